"""The reference set: resumable, one start for all kinds, right in its numbers. Drawn data, tiny models."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small import RECIPE, SMALL, run_entry, some, vit

from swys_studies import agreement, original, reference, report, runs
from swys_utils import explain
from swys_utils.config import SwysError
from swys_utils.data import load_dataset
from swys_utils.distillation import Teacher
from swys_utils.gradcam import METHODS, heatmaps
from swys_utils.models import load_checkpoint
from swys_utils.recipe import batches
from swys_utils.teacher_cache import cached_teacher
from swys_utils.training import predict

GROUPS = ["alone", "soft targets", "soft targets + maps", "another teacher"]


def shrink(patch: pytest.MonkeyPatch, data, shipped: Path) -> None:
    """Two-block models, short recipes and few images; results go elsewhere."""
    build = reference.build
    patch.setattr(reference, "build", lambda *args, **_: build(*args, **SMALL))
    patch.setattr(reference, "reference_recipe", lambda *args: RECIPE)
    for module in (reference, report, agreement):
        patch.setattr(module, "study_data", lambda dataset: data)
    for module in (runs, report, agreement):
        patch.setattr(module, "CHECKPOINTS", shipped)


@pytest.fixture(scope="module")
def trained(drawn_data_dir, tmp_path_factory):
    """A folder with two seeds of each kind of run, and their data."""
    folder, data = tmp_path_factory.mktemp("trained"), some(load_dataset(root=drawn_data_dir))
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch, data, folder / "shipped")
        for seed in ("seed0", "seed1"):
            reference.reference(only=seed, folder=folder)
        yield folder, data


def test_a_small_answer_first_then_seeds():
    runs = reference.reference_runs()
    ids = [run.id for run in runs]
    assert ids[:3] == ["vit_base/scratch/seed0", "vit_tiny/scratch/seed0", "vit_tiny/kd_soft/seed0"]
    assert len(ids) == len(set(ids)) == 23 and all(run.cost(4708) > 0 for run in runs)
    assert {run.teacher for run in runs} == {None, "vit_base/scratch/seed0"}
    assert len(reference.reference_runs("bloodmnist")) == 2 + 9 + 6


def test_runs_start_alike_and_are_reported(trained, capsys, monkeypatch, tmp_path):
    folder, data = trained
    entries = runs.read_runs(folder)
    tiny = [entry for entry in entries if entry["id"].startswith("vit_tiny") and entry["seed"] == 0]
    assert len({entry["initial_weights"] for entry in tiny}) == 1 and len(tiny) == 6
    for entry in entries:
        assert len(entry["history"]) == entry["recipe"]["epochs"]
        assert {"test_auc", "val_auc", "seconds"} <= set(entry["history"][-1])
        assert load_checkpoint(folder / f"{entry['id']}.safetensors")[1]["seed"] == entry["seed"]
    assert not list(folder.rglob("*.state.*")) and not list(folder.rglob("*.curve.json"))
    reference.reference(folder=folder, list=True)
    listed = capsys.readouterr().out
    assert listed.count(" done") == len(entries) and "min on two cores" in listed
    report.report(runs=folder)
    assert "Tiny, soft targets and maps - Tiny alone" in capsys.readouterr().out
    monkeypatch.setattr(runs, "CHECKPOINTS", tmp_path)
    with pytest.raises(SwysError, match="the teacher vit_base/scratch/seed0 is not there"):
        reference.reference(only="kd_soft/seed0", folder=tmp_path)


def worker(folder: Path) -> None:
    """Train the small set in another process."""
    torch.set_num_threads(1)
    shrink(pytest.MonkeyPatch(), some(load_dataset()), folder / "shipped")
    reference.reference(folder=folder / "runs")


def test_four_processes_share_a_folder_and_one_is_killed(drawn_data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("SWYS_DATA_DIR", str(drawn_data_dir))
    monkeypatch.chdir(Path(__file__).parent)
    script = (
        f"import pathlib, test_reference; test_reference.worker(pathlib.Path({str(tmp_path)!r}))"
    )
    command, log, begun = [sys.executable, "-c", script], tmp_path / "log.txt", "min on two cores"
    with log.open("a") as file:
        first, *others = (subprocess.Popen(command, stdout=file) for _ in range(4))
        while begun not in log.read_text() and first.poll() is None:
            time.sleep(0.05)
        first.kill()
        assert [other.wait() for other in others] == [0, 0, 0]
        subprocess.run(command, stdout=file, check=True)  # what the killed one left
    trained_runs = runs.read_runs(tmp_path / "shipped" / "pneumoniamnist" / "runs.json")
    assert {run["id"] for run in trained_runs} == {run.id for run in reference.reference_runs()}
    assert (
        len(trained_runs) <= log.read_text().count(begun) <= len(trained_runs) + 1
    )  # none twice, but for the killed one


def test_a_cached_teacher_answers_like_the_teacher(drawn_data_dir, tmp_path):
    model, data = vit(seed=1, noise=0.02), some(load_dataset(root=drawn_data_dir))
    for _ in range(2):  # computed, then read
        cached = cached_teacher(model, data, RECIPE, tmp_path, torch.device("cpu"))
    for epoch in (0, 1):
        batch = next(batches(data, epoch, RECIPE))
        expected = Teacher(model).explain(batch)
        torch.testing.assert_close(cached.explain(batch), expected, rtol=0.05, atol=0.02)


def test_report_against_closed_forms_and_its_interval_widens_with_the_spread_between_seeds():
    labels, alone, taught = np.zeros(400, int), "0" * 320 + "1" * 80, "0" * 360 + "1" * 40
    entries = [run_entry(f"vit_tiny/scratch/seed{seed}", alone, accuracy=0.8) for seed in range(3)]
    entries += [
        run_entry(f"vit_tiny/kd_soft/seed{seed}", taught, accuracy=0.9) for seed in range(3)
    ]
    (row,) = report.differences(entries, labels)
    assert (row["pairs"], row["points"]) == (3, "+10.0")
    half = 196 * np.sqrt(0.1 * 0.9 / 400)  # of a mean of 400 differences, 40 of them 1
    interval = [float(x) for x in row["95 %"].split(" to ")]
    assert interval == pytest.approx([10 - half, 10 + half], abs=0.4)
    assert row["McNemar p, first seed"] == pytest.approx(2 * 0.5**40, rel=0.01)
    assert report.kinds(entries, labels)[0]["accuracy %"] == "80.0 ± 0.0"
    with pytest.raises(SwysError, match="400 predictions for 3 test images"):
        report.right(entries[0], labels[:3])
    rng = np.random.default_rng(0)
    same = np.repeat((rng.random((1, 500)) < 0.8), 4, axis=0)
    varied = rng.random((4, 500)) < np.array([0.6, 0.75, 0.85, 1.0])[:, None]
    widths = [high - low for low, high in map(report.accuracy_interval, (same, varied))]
    assert (
        widths[0] == pytest.approx(2 * 1.96 * np.sqrt(0.16 / 500), rel=0.15)
        and widths[1] > 2 * widths[0]
    )
    low, high = report.accuracy_interval(
        np.repeat([[0.8], [0.9]], 500, axis=1)
    )  # two seeds know little
    assert (low, high) == pytest.approx((0.85 - 12.706 * 0.05, 0.85 + 12.706 * 0.05), abs=1e-3)


def test_the_time_to_the_original_is_a_ratio_of_training_seconds(drawn_data_dir, monkeypatch):
    monkeypatch.setattr(
        original, "study_data", lambda name: some(load_dataset(root=drawn_data_dir))
    )
    monkeypatch.setattr(original, "epoch", lambda *args, bf16: {"seconds": 3.0})
    theirs = run_entry(f"{original.MODEL}/original/seed0", history=[{}] * 7, val_auc=0.0)
    monkeypatch.setattr(original, "read_runs", lambda path: [theirs])
    found = original.time_to_original(seconds=0.5)
    assert found["ratio"] * found["tiny"]["seconds"] == pytest.approx(7 * 3.0)
    theirs["val_auc"] = 1.1
    with pytest.raises(
        SwysError, match=r"0.1 s reach validation AUC 0.\d+, not 1.100; raise --seconds"
    ):
        original.time_to_original(seconds=0.1)
    rose = [{"val_accuracy": v} for v in (0.7, 0.8, 0.8, 0.8, 0.8)]
    assert original.stopped(rose, 3) and not original.stopped(rose[:4], 3)


def test_agreement_is_that_of_each_student_with_its_teacher(trained, capsys, monkeypatch):
    folder, data = trained
    rows = agreement.measure("pneumoniamnist", folder)
    path = folder / "shipped" / "pneumoniamnist" / "agreement.json"
    found = json.loads(path.read_text())
    assert rows == agreement.summary(found) and report.as_table(rows) in capsys.readouterr().out
    monkeypatch.setattr(agreement, "compare", pytest.fail)  # what is known is not measured again
    assert rows == agreement.measure("pneumoniamnist", folder)
    assert found["teacher"]["id"] == "vit_base/scratch/seed0" and found["images"] == len(data.test)
    assert sorted(run["group"] for run in found["runs"]) == sorted(2 * GROUPS[:3] + GROUPS[3:])
    for method in METHODS:
        assert (
            len(found["maps"][method]["runs"]) == 7
            and len(found["maps"][method]["differences"]) == 3
        )
    images, ours_id = data.test.images, "vit_tiny/kd_explain/seed1"
    models = [
        load_checkpoint(folder / f"{id}.safetensors")[0] for id in (found["teacher"]["id"], ours_id)
    ]
    theirs, ours = (predict(model, images).argmax(axis=1) for model in models)
    (run,) = (run for run in found["runs"] if run["id"] == ours_id)
    assert run["same_prediction"] == pytest.approx((theirs == ours).mean())
    maps = [heatmaps(model, images, "grad_cam", theirs, signed=True) for model in models]
    spearman = found["maps"]["grad_cam"]["runs"][ours_id]["spearman"]
    assert spearman == pytest.approx(np.nanmean(explain.agreement(*maps)), abs=1e-5)
    with pytest.raises(SwysError, match="holds runs of pneumoniamnist, not chestmnist"):
        agreement.agreement_over_runs(
            folder, replace(data, info=replace(data.info, name="chestmnist")), path
        )
    with pytest.raises(
        SwysError, match="students of one finished teacher, found none; train them first"
    ):
        agreement.split_runs([])


def test_differences_are_paired_by_seed_group_means_in_the_ladders_order():
    runs = [
        {"id": f"{group}, {seed}", "group": group, "seed": seed}
        for group in GROUPS
        for seed in range(3)
    ]
    scores = (0.1, 0.2, 0.3, 0.2, 0.4, 0.3, 0.8, 0.8, 0.8, 0.4, 0.4, 0.4)
    values = dict(zip((run["id"] for run in runs), scores))
    soft, maps, _ = agreement.differences(runs, values)
    assert (soft["of"], soft["to"]) == ("soft targets", "alone")
    assert soft["seeds"] == pytest.approx([0.1, 0.2, 0.0]) and soft["mean"] == pytest.approx(0.1)
    assert soft["high"] - 0.1 == pytest.approx(
        4.3027 * 0.1 / 3**0.5, abs=1e-4
    )  # t quantile, standard error
    assert maps["mean"] == pytest.approx(0.6) and not agreement.differences(
        runs[:1] + runs[3:4], values
    )
    rows = {k: {"spearman": v, "chance": 0.05, "chance_in_class": 0.1} for k, v in values.items()}
    (row,) = agreement.summary({"runs": runs[::-1], "maps": {"grad_cam": {"runs": rows}}})
    assert list(row)[:7] == ["map", "chance", "chance_in_class", *GROUPS]
    assert list(row.values())[1:7] == pytest.approx([0.05, 0.1, 0.2, 0.3, 0.8, 0.4])
    assert row["soft targets + maps - alone"].startswith("+0.60 [")


def test_the_earlier_projects_training_goes_on_where_it_was_killed(
    tmp_path, monkeypatch, drawn_data_dir
):
    real, done = original.epoch, []

    def killed_once(*args):
        done.append(args[3])
        if len(done) == 2:
            raise KeyboardInterrupt
        return real(*args)

    data = some(load_dataset("pneumoniamnist", root=drawn_data_dir), 8, 8, 8)
    monkeypatch.setattr(original, "study_data", lambda dataset: data)
    monkeypatch.setattr(original, "write_runs", lambda dataset, out: None)
    monkeypatch.setattr(original, "epoch", killed_once)
    monkeypatch.setitem(original.RECIPE, "epochs", 2)
    with pytest.raises(KeyboardInterrupt):
        original.original(folder=tmp_path)
    original.original(folder=tmp_path)
    (entry,) = runs.read_runs(tmp_path)
    assert done == [0, 1, 1] and [row["epoch"] for row in entry["history"]] == [1, 2]
    assert not list(tmp_path.rglob("*.state.pt")) and set(entry["last"]) == {
        "accuracy",
        "auc",
        "ece",
    }
    assert load_checkpoint(tmp_path / f"{entry['id']}.safetensors")[1]["img_size"] == 224
