"""Agreement over runs: groups and paired differences by hand, and on untrained models that look like runs."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from swys_studies import agreement as module
from swys_studies import reference
from swys_studies.agreement import agreement_over_runs, differences, group_means, measure, split_runs, summary
from swys_studies.report import as_table
from swys_utils.config import CHECKPOINTS, SwysError
from swys_utils.data import load_dataset
from swys_utils.explain import agreement
from swys_utils.gradcam import METHODS, heatmaps
from swys_utils.models import create_model, load_checkpoint, save_checkpoint
from swys_utils.training import predict

WAYS = {"scratch": "alone", "kd_soft": "soft targets", "kd_explain": "soft targets + maps"}
RUNS = [
    {"id": f"tiny/{method}/seed{seed}", "group": group, "seed": seed}
    for method, group in WAYS.items()
    for seed in (0, 1, 2)
] + [{"id": "base/scratch/seed1", "group": "another teacher", "seed": 1}]
VALUES = dict(zip((run["id"] for run in RUNS), (0.1, 0.2, 0.3, 0.2, 0.4, 0.3, 0.8, 0.8, 0.8, 0.4)))


def test_differences_are_paired_by_seed_and_group_means_in_the_order_of_the_ladder():
    soft, maps, _ = differences(RUNS, VALUES)
    assert (soft["of"], soft["to"]) == ("soft targets", "alone")
    assert soft["seeds"] == pytest.approx([0.1, 0.2, 0.0]) and soft["mean"] == pytest.approx(0.1)
    # mean 0.1, standard error 0.1 / sqrt(3), two degrees of freedom: quantile 4.3027
    half = 4.3027 * 0.1 / 3**0.5
    assert (soft["low"], soft["high"]) == pytest.approx((0.1 - half, 0.1 + half), abs=1e-4)
    assert maps["mean"] == pytest.approx(0.6)
    assert differences(RUNS[:1] + RUNS[3:4], VALUES) == []  # one pair has no interval
    expected = {"alone": 0.2, "soft targets": 0.3, "soft targets + maps": 0.8, "another teacher": 0.4}
    means = group_means(RUNS[::-1], VALUES)
    assert means == pytest.approx(expected) and list(means) == list(expected)


def test_results_of_earlier_versions_stay_readable():
    rows = {run["id"]: {"spearman": VALUES[run["id"]], "chance": 0.05} for run in RUNS}
    old = [run | {"group": run["group"].replace("soft targets + maps", "maps")} for run in RUNS]
    (row,) = summary({"runs": old, "maps": {"grad_cam": {"runs": rows, "closed": {"maps": 3.0}}}})
    assert row["soft targets + maps"] == pytest.approx(0.8) and row["chance"] == pytest.approx(0.05)
    assert row["soft targets + maps - alone"].startswith("+0.60 [") and "closed" not in str(row)
    for path in CHECKPOINTS.glob("*/pocket.json"):
        table = summary(json.loads(path.read_text()))
        assert {"alone", "soft targets + maps", "another teacher"} <= set(table[0]) and len(table) >= 4


@pytest.fixture(scope="module")
def runs(tmp_path_factory, drawn_data_dir):
    """Untrained models as the runs of a set: the student taught by soft targets has its teacher's weights."""
    folder, kwargs = tmp_path_factory.mktemp("runs"), {"depth": 2, "embed_dim": 48}
    teacher = "base/scratch/seed0"
    card = {"model": "vit_tiny", "model_kwargs": kwargs, "dataset": "pneumoniamnist"}
    ids = [teacher, "base/scratch/seed1", "base/original/seed0", "tiny/few_soft/seed0"]
    ids += [f"tiny/{method}/seed{seed}" for method in WAYS for seed in (0, 1)]
    for number, run_id in enumerate(ids):
        _, method, seed = run_id.split("/")
        torch.manual_seed(0 if method == "kd_soft" else number)
        model = create_model("vit_tiny", 2, patch_size=7, **kwargs)
        torch.nn.init.normal_(model.head.weight)
        save_checkpoint(model, folder / f"{run_id}.safetensors", card, "fp32")
        taught = method in ("kd_soft", "kd_explain", "few_soft")
        entry = {"id": run_id, "method": method, "teacher": teacher if taught else None}
        scores = {"accuracy": 0.5, "auc": 0.5, "ece": 0.1}
        entry |= {"seed": int(seed[4:]), "last": scores, "val_chosen": scores}
        entry |= {"device": "a CPU", "predicted": "0", "val_auc": 0.5}
        (folder / f"{run_id}.run.json").write_text(json.dumps(entry))
    return folder, load_dataset("pneumoniamnist", root=drawn_data_dir)


@pytest.fixture(scope="module", autouse=True)
def nothing_shipped(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "CHECKPOINTS", tmp_path_factory.mktemp("shipped"))
        yield


@pytest.fixture(scope="module")
def study(runs):
    return agreement_over_runs(*runs, images=8, device="cpu")


def test_every_run_is_compared_with_its_teacher(study, runs):
    assert study["teacher"]["id"] == "base/scratch/seed0" and study["images"] == 8
    groups = [run["group"] for run in study["runs"]]
    assert sorted(groups) == sorted(2 * list(WAYS.values()) + ["another teacher"])
    assert list(study["maps"]) == list(METHODS)
    for part in study["maps"].values():
        assert part["runs"]["tiny/kd_soft/seed1"]["spearman"] == pytest.approx(1, abs=1e-5)
        assert len(part["runs"]) == 7 and len(part["differences"]) == 3
    folder, data = runs
    images, names = data.test.head(8).images, ("base/scratch/seed0", "tiny/kd_explain/seed1")
    models = [load_checkpoint(folder / f"{name}.safetensors")[0] for name in names]
    answers = predict(models[0], images).argmax(axis=1)  # signed maps, for the class of the teacher
    maps = [heatmaps(model, images, "grad_cam", answers, signed=True) for model in models]
    found = study["maps"]["grad_cam"]["runs"][names[1]]
    assert found["spearman"] == pytest.approx(np.nanmean(agreement(*maps).spearman), abs=1e-5)
    same = next(run for run in study["runs"] if run["id"] == "tiny/kd_soft/seed1")
    assert same["same_prediction"] == 1 and same["gap"] == pytest.approx(study["teacher"]["gap"], abs=1e-6)
    assert "soft targets - alone" in str(summary(study)) and json.dumps(study)


def test_the_command_writes_the_result_beside_the_checkpoints(study, monkeypatch, runs, tmp_path, capsys):
    monkeypatch.setattr(module, "CHECKPOINTS", tmp_path)
    monkeypatch.setattr(module, "study_data", lambda dataset: runs[1])
    monkeypatch.setattr(module, "agreement_over_runs", lambda folder, data, known: study)
    rows = measure("pneumoniamnist", "runs of this set")
    found = json.loads((tmp_path / "pneumoniamnist" / "agreement.json").read_text())
    assert as_table(rows) in capsys.readouterr().out and as_table(summary(found)) == as_table(rows)


def test_no_teacher_or_other_data_is_a_line_with_the_way_out(runs):
    folder, data = runs
    other = replace(data, info=replace(data.info, name="breastmnist"))
    with pytest.raises(SwysError, match="holds runs of pneumoniamnist, not breastmnist"):
        agreement_over_runs(folder, other, device="cpu")
    with pytest.raises(SwysError, match="students of one finished teacher, found none; train them first"):
        split_runs([])
