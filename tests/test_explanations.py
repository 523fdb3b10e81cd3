"""What heatmaps are worth: counts, ranks, and a file that is not measured twice."""

import json
from dataclasses import replace

import numpy as np
import pytest
from small import some, vit

from swys_studies import explanations
from swys_utils.config import CHECKPOINTS, SwysError
from swys_utils.data import Split, load_dataset
from swys_utils.gradcam import METHODS, Method

BASELINES = ("random", "centre prior")


@pytest.fixture
def empty_rows(monkeypatch):
    """Rows of four images: logits and maps are given."""
    logits = np.array([[9.0, 0], [0, 9], [0, 9], [0.1, 0]])
    maps = np.array([[[0]], [[-1]], [[1]], [[1]]])
    monkeypatch.setattr(explanations, "predict", lambda *arguments: logits)
    monkeypatch.setattr(explanations, "heatmaps", lambda *arguments, **options: maps)
    rows = explanations.empty(vit(), ("a", "b"), Split(None, None))
    return {(row["predicted"], row["confidence"]): row for row in rows}


@pytest.mark.parametrize(
    ("predicted", "confidence", "images", "empty"),
    [
        ("all", "all", 4, 2),
        ("b", "0.95 to 1", 2, 1),
        ("a", "0.95 to 1", 1, 1),
        ("a", "below 0.8", 1, 0),
    ],
)
def test_empty_maps_are_counted(empty_rows, predicted, confidence, images, empty):
    row = empty_rows[predicted, confidence]
    assert (row["images"], row["empty"]) == (images, empty)


def test_the_share_of_empty_maps(empty_rows):
    assert empty_rows["all", "all"]["share"] == 0.5


def test_the_share_of_no_image_is_undefined(empty_rows):
    assert np.isnan(empty_rows["b", "below 0.8"]["share"])


@pytest.fixture(scope="module")
def data(drawn_data_dir):
    return some(load_dataset(root=drawn_data_dir), test=16)


@pytest.fixture(scope="module")
def ranked(data):
    """Every method on a few images."""
    return explanations.rank_methods(vit(noise=0.1, patch_size=7), data.test, steps=2)


@pytest.mark.slow
def test_methods_two_blocks_and_baselines_are_ranked(ranked):
    methods = {row["method"] for row in ranked}
    assert methods == {*METHODS, "grad_cam, block 1", *BASELINES}


@pytest.mark.slow
def test_the_ranks_of_methods_add_up(ranked):
    ranks = [row["rank"] for row in ranked if row["method"] not in BASELINES]
    assert sum(ranks) == 1 + 2 + 3 + 4 + 5


@pytest.mark.slow
def test_the_best_method_comes_first(ranked):
    ranks = [row["rank"] for row in ranked if row["method"] not in BASELINES]
    assert ranks == sorted(ranks)


@pytest.mark.slow
def test_baselines_come_last_and_have_no_rank(ranked):
    assert {row["method"] for row in ranked[-2:]} == set(BASELINES)
    assert np.isnan([row["rank"] for row in ranked[-2:]]).all()


@pytest.mark.slow
def test_a_new_way_to_explain_is_ranked(data, monkeypatch):
    new = Method("new", "something new", "#000000", METHODS["grad_cam"].function)
    monkeypatch.setitem(METHODS, "new", new)
    rows = explanations.rank_methods(vit(noise=0.1, patch_size=7), data.test, steps=2)
    by_method = {row["method"]: row for row in rows}
    assert by_method["new"]["gap"] == by_method["grad_cam"]["gap"]


@pytest.fixture
def measure(data, tmp_path, monkeypatch):
    """``measure(checkpoints)`` returns the keys of what it measures; ids stand for weights."""
    measured = []

    def load(checkpoint_id, device):
        return vit(), {"files": [{"sha256": checkpoint_id}]}

    def rank_methods(model, sample):
        measured.append("methods")
        return [{"method": method} for method in METHODS]

    def empty(model, class_names, sample):
        measured.append("empty maps")
        return []

    monkeypatch.setattr(explanations, "load_dataset", lambda *names, **options: data)
    monkeypatch.setattr(explanations, "load_checkpoint", load)
    monkeypatch.setattr(explanations, "rank_methods", rank_methods)
    monkeypatch.setattr(explanations, "empty", empty)

    def run(checkpoints):
        measured.clear()
        explanations.measure("pneumoniamnist", checkpoints, str(tmp_path / "found.json"))
        return list(measured)

    return run


@pytest.fixture
def stored(tmp_path):
    """``stored()``: what the file has."""
    return lambda: json.loads((tmp_path / "found.json").read_text())


def test_two_parts_are_measured_of_each_model(measure, stored):
    assert measure({"Base": "base", "Tiny": "tiny"}) == 2 * ["empty maps"] + 2 * ["methods"]
    assert list(stored()["parts"]) == [
        "empty maps, Base",
        "empty maps, Tiny",
        "methods, Base",
        "methods, Tiny",
    ]


def test_a_part_says_how_it_was_measured(measure, stored, data):
    measure({"Base": "base"})
    part = stored()["parts"]["methods, Base"]
    assert part["images"] == len(data.test)
    assert part["rows"] == [{"method": method} for method in METHODS]


@pytest.mark.parametrize("name", ["Base", "Tiny, answers", "mine, trained at night"])
def test_what_is_known_of_the_same_weights_is_not_measured_again(measure, name):
    measure({name: "weights"})
    assert measure({name: "weights"}) == []


def test_other_weights_are_measured_again(measure):
    measure({"Base": "base"})
    assert measure({"Base": "new weights"}) == ["empty maps", "methods"]


def test_a_model_that_is_added_is_measured_alone(measure):
    measure({"Base": "base"})
    assert measure({"Base": "base", "Tiny": "tiny"}) == ["empty maps", "methods"]


def test_a_new_way_to_explain_is_measured_for_known_weights(measure, monkeypatch):
    measure({"Base": "base"})
    new = Method("new", "something new", "#000000", METHODS["grad_cam"].function)
    monkeypatch.setitem(METHODS, "new", new)
    assert measure({"Base": "base"}) == ["methods"]


@pytest.mark.parametrize(
    ("old", "new"), [("KD Tiny", "Tiny, answers"), ("Map Tiny", "Tiny, answers + maps")]
)
def test_a_model_is_known_by_its_name_of_before(measure, stored, old, new):
    measure({old: "weights"})
    assert measure({new: "weights", "Base": "base"}) == ["empty maps", "methods"]
    assert f"methods, {new}" in stored()["parts"]


def test_the_shipped_models_of_the_series():
    assert explanations.shipped_models("pneumoniamnist") == {
        "Base": "pneumoniamnist/vit_base",
        "Tiny": "pneumoniamnist/vit_tiny",
        "Tiny, answers": "pneumoniamnist/vit_tiny_answers",
        "Tiny, answers + maps": "pneumoniamnist/vit_tiny_maps",
    }


def test_the_shipped_explanations_are_those_of_the_shipped_weights():
    shipped = CHECKPOINTS / "pneumoniamnist"
    weights = json.loads((shipped / "explanations.json").read_text())["weights"]
    old_names = {"vit_tiny": "Tiny", "vit_tiny_answers": "KD Tiny", "vit_tiny_maps": "Map Tiny"}
    for model, name in old_names.items():
        card = json.loads((shipped / model / "card.json").read_text())
        assert [entry["sha256"] for entry in card["files"]] == weights[name]


def test_without_a_checkpoint_nothing_is_measured(drawn_data_dir, monkeypatch):
    monkeypatch.setenv("SWYS_DATA_DIR", str(drawn_data_dir))
    with pytest.raises(SwysError, match="no checkpoint of 'retinamnist' is shipped; name some"):
        explanations.measure("retinamnist")


def test_several_labels_an_image_are_refused(drawn_data_dir, monkeypatch):
    monkeypatch.setenv("SWYS_DATA_DIR", str(drawn_data_dir))
    with pytest.raises(SwysError, match="'chestmnist' is synthetic here or has several labels"):
        explanations.measure("chestmnist")
