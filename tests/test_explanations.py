"""What heatmaps are worth: counts, ranks, and a file that is not measured twice."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from small import some, vit

from swys_studies import explanations, reference
from swys_utils.config import CHECKPOINTS, SwysError
from swys_utils.data import Split, load_dataset
from swys_utils.gradcam import METHODS, Method

BASELINES = {"random", "centre prior"}
LOGITS = [[9.0, 0.0], [0.0, 9.0], [0.0, 9.0], [0.1, 0.0]]
STRONGEST = [0, -1, 1, 1]  # of each image's map


@pytest.fixture
def empty_rows(monkeypatch):
    """Rows of four images: logits and maps are given."""
    logits = np.array(LOGITS)
    maps = np.reshape(STRONGEST, (4, 1, 1))
    monkeypatch.setattr(explanations, "predict", lambda *arguments: logits)
    monkeypatch.setattr(explanations, "heatmaps", lambda *arguments, **options: maps)
    by_group = {}
    for row in explanations.empty(vit(), ("a", "b"), Split(None, None)):
        by_group[row["predicted"], row["confidence"]] = row
    return by_group


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
    assert row["images"] == images
    assert row["empty"] == empty


def test_the_share_of_empty_maps(empty_rows):
    assert empty_rows["all", "all"]["share"] == 0.5


def test_the_share_of_no_image_is_undefined(empty_rows):
    row = empty_rows["b", "below 0.8"]
    assert np.isnan(row["share"])


@pytest.fixture(scope="module")
def data(drawn_data_dir):
    return some(load_dataset(root=drawn_data_dir), test=16)


@pytest.fixture(scope="module")
def model():
    return vit(noise=0.1, patch_size=7)


@pytest.fixture(scope="module")
def ranked(model, data):
    """Name of a method -> its rank on a few images, in the order of the rows."""
    rows = explanations.rank_methods(model, data.test, steps=2)
    return {row["method"]: row["rank"] for row in rows}


def add_method(monkeypatch):
    """A way to explain that somebody adds."""
    grad_cam = METHODS["grad_cam"]
    new = Method("new", "something new", "#000000", grad_cam.function)
    monkeypatch.setitem(METHODS, "new", new)


@pytest.mark.slow
def test_methods_and_another_block_and_baselines_are_ranked(ranked):
    methods = explanations.ranked_methods()
    assert ranked.keys() == {*methods, "grad_cam, block 1", *BASELINES}


@pytest.mark.slow
def test_occlusion_is_not_ranked_by_hiding_patches(ranked):
    assert "occlusion" not in ranked


@pytest.mark.slow
def test_the_ranks_of_methods_add_up(ranked):
    ranks = list(ranked.values())
    assert np.nansum(ranks) == 1 + 2 + 3 + 4 + 5


@pytest.mark.slow
def test_the_best_method_comes_first(ranked):
    *ranks, _, _ = ranked.values()
    assert ranks == sorted(ranks)


@pytest.mark.slow
def test_baselines_come_last_without_a_rank(ranked):
    last_two = list(ranked)[-2:]
    assert set(last_two) == BASELINES
    for name in last_two:
        assert np.isnan(ranked[name])


@pytest.mark.slow
def test_a_new_way_to_explain_is_ranked(model, data, monkeypatch):
    add_method(monkeypatch)
    rows = explanations.rank_methods(model, data.test, steps=2)
    gaps = {row["method"]: row["gap"] for row in rows}
    assert gaps["new"] == gaps["grad_cam"]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "explanations.json"


@pytest.fixture
def measure(data, path, monkeypatch):
    """``measure(checkpoints)`` returns the keys of what it measures; ids stand for weights."""
    measured = []

    def load(checkpoint_id, device, num_classes):
        weights = {"sha256": checkpoint_id}
        return vit(), {"files": [weights], "dataset": "pneumoniamnist"}

    def rank_methods(model, sample):
        measured.append("methods")
        return [{"method": method} for method in METHODS]

    def empty(model, class_names, sample):
        measured.append("empty maps")
        return []

    monkeypatch.setattr(reference, "load_dataset", lambda *names, **options: data)
    monkeypatch.setattr(explanations, "load_checkpoint", load)
    monkeypatch.setattr(explanations, "rank_methods", rank_methods)
    monkeypatch.setattr(explanations, "empty", empty)

    def run(checkpoints):
        measured.clear()
        explanations.measure("pneumoniamnist", checkpoints, str(path))
        return list(measured)

    return run


def stored_parts(path):
    content = json.loads(path.read_text())
    return content["parts"]


def test_two_parts_are_measured_of_each_model(measure, path):
    measure({"Base": "base", "Tiny": "tiny"})
    assert list(stored_parts(path)) == [
        "empty maps, Base",
        "empty maps, Tiny",
        "methods, Base",
        "methods, Tiny",
    ]


def test_a_part_says_how_many_images_it_is_of(measure, path, data):
    measure({"Base": "base"})
    part = stored_parts(path)["methods, Base"]
    assert part["images"] == len(data.test)


def test_a_part_has_the_rows_of_its_measurement(measure, path):
    measure({"Base": "base"})
    part = stored_parts(path)["methods, Base"]
    assert len(part["rows"]) == len(METHODS)


@pytest.mark.parametrize("name", ["Base", "Tiny, answers", "mine, by night"])
def test_what_is_known_of_the_same_weights_is_not_measured_again(measure, name):
    measure({name: "weights"})
    assert measure({name: "weights"}) == []


def test_other_weights_are_measured_again(measure):
    measure({"Base": "base"})
    assert measure({"Base": "new weights"}) == ["empty maps", "methods"]


def test_a_model_that_is_added_is_measured_alone(measure):
    measure({"Base": "base"})
    assert measure({"Base": "base", "Tiny": "tiny"}) == ["empty maps", "methods"]


def test_what_is_known_of_other_models_stays(measure, path):
    measure({"Base": "base"})
    before = json.loads(path.read_text("utf-8"))
    measure({"Mine": "another"})
    after = json.loads(path.read_text("utf-8"))
    assert before["parts"].items() <= after["parts"].items()
    assert before["weights"].items() <= after["weights"].items()


def test_known_weights_are_measured_again_by_a_new_way_to_explain(measure, monkeypatch):
    measure({"Base": "base"})
    add_method(monkeypatch)
    assert measure({"Base": "base"}) == ["methods"]


RENAMED = [
    ("KD Tiny", "Tiny, answers"),
    ("Map Tiny", "Tiny, answers + maps"),
]


@pytest.mark.parametrize(("old", "new"), RENAMED)
def test_a_model_is_known_by_its_name_of_before(measure, old, new):
    measure({old: "weights"})
    assert measure({new: "weights"}) == []


@pytest.mark.parametrize(("old", "new"), RENAMED)
def test_what_is_written_has_todays_names(measure, path, old, new):
    measure({old: "weights"})
    measure({new: "weights", "Base": "base"})
    assert f"methods, {new}" in stored_parts(path)
    assert f"methods, {old}" not in stored_parts(path)


def test_the_shipped_models_of_the_series():
    assert explanations.shipped_models("pneumoniamnist") == {
        "Base": "pneumoniamnist/vit_base",
        "Tiny": "pneumoniamnist/vit_tiny",
        "Tiny, answers": "pneumoniamnist/vit_tiny_answers",
        "Tiny, answers + maps": "pneumoniamnist/vit_tiny_maps",
    }


@pytest.mark.slow
def test_nothing_of_the_shipped_models_is_measured_again(data, path, monkeypatch):
    shipped = CHECKPOINTS / "pneumoniamnist" / "explanations.json"
    shutil.copy(shipped, path)
    all_images = range(624)  # as many as the real test split has
    real = SimpleNamespace(sample=lambda n: all_images[: n or 624])
    monkeypatch.setattr(
        reference, "load_dataset", lambda *names, **options: replace(data, test=real)
    )
    monkeypatch.setattr(explanations, "empty", pytest.fail)
    monkeypatch.setattr(explanations, "rank_methods", pytest.fail)
    study = explanations.measure("pneumoniamnist", save_path=str(path))
    assert len(study["parts"]) == 8


def test_without_a_checkpoint_nothing_is_measured(drawn_data_dir, monkeypatch):
    monkeypatch.setenv("SWYS_DATA_DIR", str(drawn_data_dir))
    with pytest.raises(SwysError, match="no checkpoint of 'retinamnist' is shipped; name some"):
        explanations.measure("retinamnist")


def test_several_labels_an_image_are_refused(drawn_data_dir, monkeypatch):
    monkeypatch.setenv("SWYS_DATA_DIR", str(drawn_data_dir))
    with pytest.raises(SwysError, match="'chestmnist' has several labels an image"):
        explanations.measure("chestmnist")


def test_a_model_of_other_images_is_refused(drawn_data_dir, monkeypatch, path):
    monkeypatch.setenv("SWYS_DATA_DIR", str(drawn_data_dir))
    card = {"dataset": "bloodmnist", "files": []}
    monkeypatch.setattr(explanations, "load_checkpoint", lambda *arguments: (vit(), card))
    with pytest.raises(SwysError, match="'mine' learned bloodmnist, not pneumoniamnist"):
        explanations.measure("pneumoniamnist", {"Mine": "mine"}, str(path))
