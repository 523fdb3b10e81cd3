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


def test_base_is_the_first_of_the_deployed_models():
    first = shipped_results.deployed_models()[0]
    assert first["title"] == "Base"
    assert first["same_answer"] == 1


def test_a_data_set_without_deployed_models_has_those_of_the_default_one():
    assert shipped_results.deployed_models("octmnist") == shipped_results.deployed_models()


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


def test_planted_units_are_of_one_architecture():
    assert {unit["model"] for unit in shipped_results.planted_units()} == {"vit_tiny"}


def test_where_nothing_is_shipped_the_reader_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped_results, "CHECKPOINTS", tmp_path)
    with pytest.raises(SwysError, match="no runs.json"):
        shipped_results.series_results("octmnist")
