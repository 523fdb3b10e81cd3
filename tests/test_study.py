"""Agreement over runs: groups, paired differences and the distance closed, on runs of drawn images and by hand."""

from dataclasses import replace

import numpy as np
import pytest
from test_reference import drawn_data

from swys_utils import reference
from swys_utils.config import SwysError
from swys_utils.explain import agreement, heatmaps
from swys_utils.models import load_checkpoint
from swys_utils.stats import t_interval
from swys_utils.study import agreement_over_runs, closed, differences, group_means, summary

RUNS = [
    {"id": f"tiny/{method}/seed{seed}", "group": group, "seed": seed}
    for method, group in (("scratch", "alone"), ("kd_soft", "soft targets"), ("kd_explain", "maps"))
    for seed in (0, 1, 2)
] + [{"id": "base/scratch/seed1", "group": "another teacher", "seed": 1}]
VALUES = dict(zip((run["id"] for run in RUNS), (0.1, 0.2, 0.3, 0.2, 0.4, 0.3, 0.8, 0.8, 0.8, 0.4)))


def test_differences_are_paired_by_seed():
    soft, maps, _ = differences(RUNS, VALUES)
    assert (soft["of"], soft["to"]) == ("soft targets", "alone")
    assert soft["seeds"] == pytest.approx([0.1, 0.2, 0.0]) and soft["mean"] == pytest.approx(0.1)
    # mean 0.1, standard error 0.1 / sqrt(3), two degrees of freedom: quantile 4.3027
    half = 4.3027 * 0.1 / 3**0.5
    assert (soft["low"], soft["high"]) == pytest.approx((0.1 - half, 0.1 + half), abs=1e-4)
    assert maps["mean"] == pytest.approx(0.6)


def test_the_distance_from_floor_to_ceiling():
    assert group_means(RUNS, VALUES) == pytest.approx(
        {"alone": 0.2, "soft targets": 0.3, "maps": 0.8, "another teacher": 0.4}
    )
    assert closed(RUNS, VALUES) == pytest.approx({"soft targets": 0.5, "maps": 3.0})
    assert closed(RUNS[:-1], VALUES) == {}


def test_t_interval_covers_the_mean_of_few_runs():
    rng = np.random.default_rng(0)
    hits = [low <= 0 <= high for low, high in (t_interval(rng.normal(size=4)) for _ in range(400))]
    assert 0.91 < np.mean(hits) < 0.99


@pytest.fixture(scope="module")
def pocket(tmp_path_factory):
    out, data = tmp_path_factory.mktemp("pocket"), drawn_data()
    runs = [run for run in reference.pocket_runs() if run.seed < 2]
    runs = [replace(r, recipe=replace(r.recipe, epochs=2), model_kwargs={**r.model_kwargs, "depth": 2}) for r in runs]
    reference.reproduce(out=out, data=data, runs=runs, device="cpu", progress=False)
    return out, data


def test_every_run_is_compared_with_its_teacher(pocket):
    out, data = pocket
    study = agreement_over_runs(out, data)
    assert study["teacher"]["id"] == "pocket_base/scratch/seed0" and study["images"] == len(data.test)
    groups = [run["group"] for run in study["runs"]]
    assert sorted(groups) == sorted(2 * ["alone", "soft targets", "maps"] + ["another teacher"])
    assert all(len(part["runs"]) == 7 and len(part["differences"]) == 3 for part in study["maps"].values())
    ids = ("pocket_base/scratch/seed0", "pocket_tiny/kd_soft/seed1")
    models = [load_checkpoint(out / f"{name}.safetensors")[0] for name in ids]
    theirs, ours = (heatmaps(model, data.test.images, targets=1, signed=True) for model in models)
    row = study["maps"]["grad_cam, class pneumonia"]["runs"][ids[1]]
    assert row["spearman"] == pytest.approx(np.nanmean(agreement(theirs, ours).spearman), abs=1e-5)
    assert "soft targets - alone" in str(summary(study))


def test_students_start_alike_and_report_compares_them(pocket):
    out, _ = pocket
    digests = {}
    for entry in reference.read_runs(out):
        digests.setdefault((reference.model_of(entry["id"]), entry["seed"]), set()).add(entry["initial_weights"])
    assert all(len(same) == 1 for same in digests.values()) and len(digests) == 4
    assert "pocket_tiny taught by soft targets - pocket_tiny alone" in reference.report(out)


def test_runs_of_two_data_sets_do_not_mix(pocket):
    out, data = pocket
    with pytest.raises(SwysError, match="holds runs of pneumoniamnist, not bloodmnist"):
        reference.reproduce("bloodmnist", out, data=data, progress=False)


def test_no_teacher_is_a_line_with_the_way_out(tmp_path):
    with pytest.raises(SwysError, match="no finished run with its teacher; run 'swys reproduce"):
        agreement_over_runs(tmp_path, drawn_data())
