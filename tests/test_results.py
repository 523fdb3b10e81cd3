"""Curves that a notebook leaves for later ones, and tables as text."""

import json
from types import SimpleNamespace

import pytest
from small import vit

from swys_utils import results
from swys_utils.results import as_table, read_live, with_range, write_live

HISTORY = [{"seconds": 1.0, "accuracy": 0.5}]


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A data set; what is written for it lies below ``tmp_path``."""
    monkeypatch.setattr(results, "BUILD", tmp_path)
    info = SimpleNamespace(results_name="twin")
    return SimpleNamespace(info=info)


def kept_curves(folder) -> dict:
    path = folder / "results" / "twin" / "live.json"
    return json.loads(path.read_text())


def test_a_live_curve_is_kept_with_the_geometry_of_its_model(data, tmp_path):
    write_live(data, "vit_tiny", vit(), HISTORY)
    curve = {"img_size": 28, "patch_size": 14, "history": HISTORY}
    assert kept_curves(tmp_path) == {"vit_tiny": curve}


def test_a_live_curve_leaves_those_of_other_models(data, tmp_path):
    write_live(data, "vit_base", vit(), HISTORY)
    write_live(data, "vit_tiny", vit(), HISTORY)
    assert set(kept_curves(tmp_path)) == {"vit_base", "vit_tiny"}


def test_a_live_curve_replaces_an_older_one_of_the_same_name(data, tmp_path):
    write_live(data, "vit_tiny", vit(), HISTORY)
    write_live(data, "vit_tiny", vit(), [])
    assert kept_curves(tmp_path)["vit_tiny"]["history"] == []


def test_a_table_has_columns_as_wide_as_their_longest_cell():
    rows = [
        {"name": "a", "n": 1},
        {"name": "abcde", "n": 2},
    ]
    table = as_table(rows)
    assert table.splitlines() == [
        "name   n",
        "a      1",
        "abcde  2",
    ]


def test_a_table_shows_floats_with_three_decimals():
    table = as_table([{"x": 0.12345}])
    assert table.splitlines() == ["x", "0.123"]


def test_rows_of_other_keys_make_no_table():
    with pytest.raises(ValueError, match="the same keys"):
        as_table([{"a": 1, "b": 2}, {"a": 1}])


def test_a_table_without_rows_says_so():
    assert as_table([]) == "(nothing to compare yet)"


def test_a_kept_curve_is_read_again(data):
    write_live(data, "vit_tiny", vit(), HISTORY)
    assert read_live(data, "vit_tiny") == HISTORY


def test_a_curve_that_no_notebook_kept_is_empty(data):
    assert read_live(data, "vit_base") == []


def test_a_range_has_the_mean_the_lowest_and_the_highest():
    assert with_range([0.25, 0.75], ".0%") == "50% (25% to 75%)"
    assert with_range([0.25], ".2f") == "0.25"
