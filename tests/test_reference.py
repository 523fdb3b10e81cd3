"""The reference set: resumable, one start for all kinds, right in its numbers. Drawn data, tiny models."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from swys_studies import original, reference, report
from swys_studies.teacher_cache import cached_teacher
from swys_utils.config import SwysError
from swys_utils.data import Dataset, load_dataset
from swys_utils.distillation import Teacher
from swys_utils.models import load_checkpoint
from swys_utils.recipe import Recipe, batches
from swys_utils.training import build

SMALL = {"patch_size": 14, "depth": 2, "embed_dim": 48, "num_heads": 3}
RECIPE = Recipe(epochs=2, batch_size=16, warmup_epochs=1, patch_drop=0.5, views=2)


def some(data: Dataset) -> Dataset:
    return Dataset(data.train.head(64), data.val.head(16), data.test.head(32), data.info)


def shrink(replace_by, data: Dataset, shipped: Path) -> None:
    """Two-block models, short recipes and few images; ``runs.json`` goes elsewhere."""
    real_build, real_save = reference.build, reference.save_checkpoint
    kwargs = {"model_kwargs": {key: SMALL[key] for key in ("depth", "embed_dim", "num_heads")}}
    save = lambda model, path, card, storage: real_save(model, path, card | kwargs, storage)  # noqa: E731
    replace_by(reference, "build", lambda *args, **_: real_build(*args, **SMALL))
    replace_by(reference, "study_data", lambda dataset: data)
    replace_by(reference, "reference_recipe", lambda *args: RECIPE)
    replace_by(reference, "CHECKPOINTS", shipped)
    replace_by(reference, "save_checkpoint", save)


@pytest.fixture(scope="module")
def data(drawn_data_dir):
    return some(load_dataset(root=drawn_data_dir))


@pytest.fixture
def small(monkeypatch, data, tmp_path):
    shrink(monkeypatch.setattr, data, tmp_path / "shipped")
    return tmp_path / "runs"


def test_a_small_answer_first_then_seeds():
    runs = reference.reference_runs()
    ids = [run.id for run in runs]
    assert ids[:3] == ["vit_base/scratch/seed0", "vit_tiny/scratch/seed0", "vit_tiny/kd_soft/seed0"]
    assert len(ids) == len(set(ids)) == 23 and all(run.cost(4708) > 0 for run in runs)
    assert {run.teacher for run in runs} == {None, "vit_base/scratch/seed0"}
    assert len(reference.reference_runs("bloodmnist")) == 2 + 9 + 6 + 1


def test_runs_are_trained_once_from_the_same_start_and_reported(small, capsys, data, monkeypatch):
    with pytest.raises(SwysError, match="the teacher vit_base/scratch/seed0 is not there"):
        reference.reference(only="kd_soft/seed0", folder=str(small))
    for only in ("scratch/seed0", "kd_soft/seed0", "kd_explain/seed0", "few_scratch/seed0", "few_soft/seed0"):
        reference.reference(only=only, folder=str(small))
    entries = reference.read_runs(small)
    tiny = [entry for entry in entries if entry["id"].startswith("vit_tiny") and entry["seed"] == 0]
    assert len({entry["initial_weights"] for entry in tiny}) == 1 and len(tiny) == 5
    for entry in entries:
        assert len(entry["predicted"]) == len(data.test)
        assert len(entry["history"]) == entry["recipe"]["epochs"]
        assert {"test_auc", "val_auc", "seconds"} <= set(entry["history"][-1])
        assert load_checkpoint(small / f"{entry['id']}.safetensors")[1]["seed"] == entry["seed"]
    assert not list(small.rglob("*.state.*")) and not list(small.rglob("*.curve.json"))
    capsys.readouterr()
    reference.reference(folder=str(small), list=True)
    listed = capsys.readouterr().out
    assert listed.count(" done") == len(entries) and "min on two cores" in listed
    monkeypatch.setattr(report, "study_data", lambda dataset: data)
    report.report(runs=str(small))
    assert "Tiny, soft targets and maps - Tiny alone" in capsys.readouterr().out


def worker(folder: str) -> None:
    """Train the small set in another process; every start of a run leaves a line in fits.txt."""
    torch.set_num_threads(1)
    shrink(setattr, some(load_dataset()), Path(folder) / "shipped")
    fit = reference.fit

    def counted(*args, **kwargs):
        with open(Path(folder) / "fits.txt", "a") as file:
            file.write(f"{kwargs['state_path']}\n")
        return fit(*args, **kwargs)

    reference.fit = counted
    reference.reference(folder=f"{folder}/runs")


def test_four_processes_share_a_folder_and_one_is_killed(drawn_data_dir, tmp_path):
    env = os.environ | {"SWYS_DATA_DIR": str(drawn_data_dir)}
    command = [sys.executable, "-c", f"import test_reference; test_reference.worker({str(tmp_path)!r})"]
    start = lambda: subprocess.Popen(command, env=env, cwd=Path(__file__).parent)  # noqa: E731
    workers = [start() for _ in range(4)]
    while not (tmp_path / "fits.txt").is_file() and workers[0].poll() is None:
        time.sleep(0.05)
    workers.pop(0).kill()
    assert [worker.wait() for worker in workers] == [0, 0, 0]
    assert start().wait() == 0  # what the killed one left
    fits = (tmp_path / "fits.txt").read_text().split()
    runs = reference.read_runs(tmp_path / "shipped" / "pneumoniamnist" / "runs.json")
    assert {run["id"] for run in runs} == {run.id for run in reference.reference_runs()}
    assert len(runs) <= len(fits) <= len(runs) + 1, fits  # no run twice, but for the killed one


def test_a_cached_teacher_answers_like_the_teacher(data, tmp_path):
    model = build("vit_tiny", data, RECIPE, 1, **SMALL).eval()
    for _ in range(2):  # computed, then read
        cached = cached_teacher(model, data, RECIPE, tmp_path, torch.device("cpu"))
    asked = Teacher(model)
    for epoch in (0, 1):
        batch = next(batches(data, epoch, RECIPE))
        for mine, theirs in zip(cached.logits_and_map(batch), asked.logits_and_map(batch)):
            torch.testing.assert_close(mine, theirs, rtol=0.05, atol=0.02)
    with pytest.raises(SwysError, match="views=0"):
        cached_teacher(model, data, replace(RECIPE, views=0), tmp_path, torch.device("cpu"))


def entry(model: str, method: str, seed: int, right: np.ndarray) -> dict:
    scores = {"accuracy": float(right.mean()), "auc": 0.5, "ece": 0.1}
    run = {"id": f"{model}/{method}/seed{seed}", "method": method, "seed": seed, "val_auc": 0.5}
    predicted = "".join("0" if ok else "1" for ok in right)
    return run | {"device": "drawn", "last": scores, "val_chosen": scores, "predicted": predicted}


def test_report_against_closed_forms_and_its_interval_widens_with_the_spread_between_seeds():
    # 400 images: alone 80 %; taught 90 %: right wherever alone is right, and on 40 images more
    alone, taught, labels = np.arange(400) < 320, np.arange(400) < 360, np.zeros(400, int)
    entries = [entry("vit_tiny", "scratch", seed, alone) for seed in range(3)]
    entries += [entry("vit_tiny", "kd_soft", seed, taught) for seed in range(3)]
    (row,) = report.differences(entries, labels)
    assert (row["pairs"], row["points"]) == (3, "+10.0")
    low, high = (float(x) for x in row["95 %"].split(" to "))
    half = 196 * np.sqrt(0.1 * 0.9 / 400)  # of a mean of 400 differences, 40 of them 1
    assert low == pytest.approx(10 - half, abs=0.4) and high == pytest.approx(10 + half, abs=0.4)
    assert row["McNemar p, first seed"] == pytest.approx(2 * 0.5**40, rel=0.01)
    assert report.kinds(entries, labels)[0]["accuracy %"] == "80.0 ± 0.0"
    with pytest.raises(SwysError, match="400 predictions for 3 test images"):
        report.right(entries[0], labels[:3])
    rng = np.random.default_rng(0)
    same = np.repeat((rng.random((1, 500)) < 0.8), 4, axis=0)
    varied = rng.random((4, 500)) < np.array([0.6, 0.75, 0.85, 1.0])[:, None]
    widths = [high - low for low, high in map(report.accuracy_interval, (same, varied))]
    assert widths[0] == pytest.approx(2 * 1.96 * np.sqrt(0.16 / 500), rel=0.15) and widths[1] > 2 * widths[0]
    low, high = report.accuracy_interval(np.repeat([[0.8], [0.9]], 500, axis=1))  # two seeds know little
    assert (low, high) == pytest.approx((0.85 - 12.706 * 0.05, 0.85 + 12.706 * 0.05), abs=1e-3)


def test_the_time_to_the_original_is_a_ratio_of_training_seconds(tmp_path):
    rows = [{"epoch": e, "seconds": 10.0 * e, "val_auc": 0.9 + e / 100, "test_auc": 0.8} for e in (1, 2, 3)]
    ours = entry("vit_tiny", "scratch", 0, np.ones(3, bool)) | {"history": rows}
    theirs = entry(original.MODEL, "original", 0, np.ones(3, bool)) | {"seconds": 800.0, "val_auc": 0.915}
    (tmp_path / "runs.json").write_text(json.dumps({"runs": [ours, theirs]}))
    found = original.time_to_original(folder=str(tmp_path / "runs.json"))
    assert (found["epoch"], found["seconds"], found["ratio"]) == (2, 20.0, 40.0)
    flat = [{"val_accuracy": v} for v in (0.7, 0.8, 0.8, 0.8, 0.8)]
    assert original.stopped(flat, 3) and not original.stopped(flat[:4], 3)
    with pytest.raises(SwysError, match="is missing"):
        original.time_to_original(folder=str(tmp_path))
