"""What notebooks read of the shipped measurements."""

import json

import pytest

from swys_utils import shipped_results
from swys_utils.config import SwysError


def test_a_data_set_without_planted_marks_has_those_of_the_default_one():
    assert shipped_results.planted_units("octmnist") == shipped_results.planted_units()


def test_a_data_set_whose_models_ignore_the_mark_has_those_of_the_default_one():
    assert shipped_results.read_results("bloodmnist", "planted") is not None
    assert shipped_results.planted_units("bloodmnist") == shipped_results.planted_units()


def test_the_models_of_any_architecture_are_of_one_data_set(tmp_path, monkeypatch, capsys):
    def planted(dataset, flips):
        """Each data set has a cheat of both architectures; a ResNet always obeys."""
        units = []
        for model, share in (("vit_tiny", flips), ("resnet18", 0.9)):
            scores = {"flips": share}
            units.append({"model": model, "kind": "cheat", "of": dataset, "scores": scores})
        (tmp_path / dataset).mkdir()
        (tmp_path / dataset / "planted.json").write_text(json.dumps({"units": units}))

    planted("pneumoniamnist", flips=0.8)
    planted("bloodmnist", flips=0.1)
    monkeypatch.setattr(shipped_results, "CHECKPOINTS", tmp_path)
    for model in ("vit_tiny", "resnet18"):
        (unit,) = shipped_results.planted_units("bloodmnist", model)
        assert (unit["model"], unit["of"]) == (model, "pneumoniamnist")
        line = "no model of bloodmnist obeys a planted mark: those of pneumoniamnist are shown"
        assert capsys.readouterr().out.strip() == line


def test_base_is_the_first_of_the_deployed_models():
    first = shipped_results.deployed_models()[0]
    assert first["title"] == "Base"
    assert first["same_answer"] == 1


def test_a_data_set_without_deployed_models_has_those_of_the_default_one(capsys):
    assert shipped_results.deployed_models("octmnist") == shipped_results.deployed_models()
    assert "no rounded models of octmnist: those of pneumoniamnist" in capsys.readouterr().out


def test_pairs_of_tinys_are_compared_answer_by_answer(tmp_path, monkeypatch):
    runs = []
    for seed, predicted in enumerate(["0011", "0010", "1111"]):
        runs.append(
            {"id": f"vit_tiny/labels/seed{seed}", "method": "labels", "predicted": predicted}
        )
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "runs.json").write_text(json.dumps({"runs": runs}))
    monkeypatch.setattr(shipped_results, "CHECKPOINTS", tmp_path)
    assert shipped_results.series_results("small").siblings_answers == [0.75, 0.5, 0.25]


def test_all_runs_are_compared_with_the_first_base(tmp_path, monkeypatch):
    runs = []
    answers = {
        "vit_base/labels/seed0": "0011",
        "vit_base/labels/seed1": "0010",
        "vit_tiny/labels/seed0": "1111",
    }
    for run_id, predicted in answers.items():
        runs.append({"id": run_id, "method": "labels", "predicted": predicted})
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "runs.json").write_text(json.dumps({"runs": runs}))
    monkeypatch.setattr(shipped_results, "CHECKPOINTS", tmp_path)
    same = shipped_results.series_results("small").same_answers
    assert same == {"vit_base": [0.75], "vit_tiny": [0.5]}


def test_planted_units_are_of_one_architecture():
    assert {unit["model"] for unit in shipped_results.planted_units()} == {"vit_tiny"}


def test_where_nothing_is_shipped_the_reader_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped_results, "CHECKPOINTS", tmp_path)
    with pytest.raises(SwysError, match="no runs.json"):
        shipped_results.series_results("octmnist")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("vit_base/scratch/seed1", "vit_base/labels/seed1"),
        ("vit_tiny/kd_soft/seed0", "vit_tiny/answers/seed0"),
        ("vit_tiny/kd_explain/seed0", "vit_tiny/maps/seed0"),
        ("vit_tiny/kd_coarse/seed0", "vit_tiny/answers_p7/seed0"),
        ("vit_tiny/few_scratch/seed0", "vit_tiny/few_labels/seed0"),
        ("vit_tiny/few_soft/seed0", "vit_tiny/few_answers/seed0"),
        ("vit_tiny_patch16_224/original/seed0", "vit_tiny_patch16_224/original/seed0"),
        ("vit_tiny/maps/seed3", "vit_tiny/maps/seed3"),
        ("a file in /scratch/seeds", "a file in /scratch/seeds"),
    ],
)
def test_todays_id(old, new):
    assert shipped_results.todays_id(old) == new
