"""Reference sets whose models have other patches than Base: kept, trained and compared apart."""

import json

import pytest
from small import run_entry, some, vit

from swys_studies import agreement, reference, run_specs, runs
from swys_utils.config import CHECKPOINTS, SwysError
from swys_utils.data import load_dataset
from swys_utils.models import save_checkpoint

CARD = {"model": "vit_tiny_patch16_224", "dataset": "pneumoniamnist"}


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A folder in place of checkpoints/."""
    folder = tmp_path / "shipped"
    monkeypatch.setattr(runs, "CHECKPOINTS", folder)
    monkeypatch.setattr(agreement, "CHECKPOINTS", folder)
    return folder


def write_run(folder, run_id, **changes):
    path = folder / f"{run_id}.run.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(run_entry(run_id, **changes)))


def test_they_are_smaller():
    coarse = run_specs.reference_runs("bloodmnist", patch=7)
    assert {run.kind.patch_size for run in coarse} == {7}
    assert {run.results for run in coarse} == {"bloodmnist-p7"}
    assert [run.id for run in coarse if run.seed == 0] == [
        "vit_base/labels/seed0",
        "vit_tiny/labels/seed0",
        "vit_tiny/answers/seed0",
        "vit_tiny/maps/seed0",
    ]


def test_their_recipes_and_teachers_are_the_usual_ones():
    usual = {run.id: run for run in run_specs.reference_runs("bloodmnist")}
    for run in run_specs.reference_runs("bloodmnist", patch=7):
        assert run.recipe == usual[run.id].recipe
        assert run.teachers == usual[run.id].teachers


def test_their_results_are_kept_apart(tmp_path, shipped):
    write_run(tmp_path / "runs", "vit_tiny/labels/seed0", dataset="bloodmnist")
    runs.write_runs("bloodmnist-p7", tmp_path / "runs")
    nothing = tmp_path / "nothing"
    assert list(runs.finished_runs("bloodmnist-p7", nothing)) == ["vit_tiny/labels/seed0"]
    assert not runs.finished_runs("bloodmnist", nothing)


def test_runs_of_another_data_set_are_left_out(tmp_path, shipped):
    write_run(tmp_path / "runs", "vit_tiny/labels/seed0", dataset="pathmnist")
    assert not runs.finished_runs("bloodmnist-p7", tmp_path / "runs")


def test_a_folder_of_other_patches_is_refused(tmp_path, drawn_data_dir, monkeypatch):
    data = some(load_dataset(root=drawn_data_dir), test=8)
    monkeypatch.setattr(reference, "one_label_data", lambda dataset: data)
    write_run(tmp_path, "vit_tiny/labels/seed0", patch_size=4)
    expected = "holds vit_tiny/labels/seed0 with patches of 4 px, not 7; name another --folder"
    with pytest.raises(SwysError, match=expected):
        reference.reference(folder=str(tmp_path), patch=7, list=True)


def test_the_shipped_set_and_its_agreement_belong_together():
    folder = CHECKPOINTS / "bloodmnist-p7"
    entries = {entry["id"]: entry for entry in runs.read_runs(folder / "runs.json")}
    study = runs.read_study(folder / "agreement.json")
    measured = [study["teacher"], *study["runs"]]
    assert {run["id"] for run in measured} == set(entries)
    for run in measured:
        assert run["accuracy"] == entries[run["id"]]["last"]["accuracy"]
        assert entries[run["id"]]["patch_size"] == 7


@pytest.mark.slow
def test_their_agreement_is_kept_apart(tmp_path, shipped, drawn_data_dir, monkeypatch):
    data = some(load_dataset(root=drawn_data_dir), test=8)
    monkeypatch.setattr(agreement, "one_label_data", lambda dataset: data)
    monkeypatch.setattr(agreement, "RUNS", tmp_path)
    folder = tmp_path / "pneumoniamnist-p14"
    for seed, run_id in enumerate(("vit_base/labels/seed0", "vit_tiny/answers/seed0")):
        write_run(folder, run_id, teacher=None if seed == 0 else "vit_base/labels/seed0")
        model = vit(seed=seed, noise=0.1, patch_size=14)
        save_checkpoint(model, folder / f"{run_id}.safetensors", CARD)
    agreement.measure(patch=14)
    study = json.loads((shipped / "pneumoniamnist-p14" / "agreement.json").read_text())
    (student,) = study["runs"]
    assert student["id"] == "vit_tiny/answers/seed0"
    assert "gap" not in student  # what costs most is left out
    assert 0 <= student["same_prediction"] <= 1
    assert not (shipped / "pneumoniamnist").exists()
