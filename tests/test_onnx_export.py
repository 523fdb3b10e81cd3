"""An exported file answers what its model answers, and its card is enough to use it."""

import json
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
from small import vit

from swys_utils import onnx_export
from swys_utils.cards import file_entry
from swys_utils.config import SwysError
from swys_utils.data import load_dataset, to_model_input
from swys_utils.explain import agreement
from swys_utils.gradcam import heatmaps
from swys_utils.models import count_parameters, save_checkpoint
from swys_utils.onnx_export import (
    export_onnx,
    onnx_session,
    package,
    predict_onnx,
    quantise_onnx_dynamic,
    read_onnx_card,
    run_onnx,
)
from swys_utils.recipe import Recipe
from swys_utils.training import fit, predict
from swys_utils.views import Augmentation

TARGETS = np.array([1, 0, 1, 1, 0] * 8)


@pytest.fixture(scope="module")
def images(drawn_data_dir):
    return load_dataset("pneumoniamnist", root=drawn_data_dir).test.sample(40).images


@pytest.fixture(scope="module")
def model(drawn_data_dir):
    """It is trained, as logits near zero would hide mistakes."""
    data = load_dataset("pneumoniamnist", root=drawn_data_dir)
    model = vit(noise=0.02, img_size=32, patch_size=8, embed_dim=192)
    recipe = Recipe(epochs=2, batch_size=16, augmentation=Augmentation())
    fit(model, data, recipe, device="cpu")
    return model


@pytest.fixture(scope="module")
def logits(model, images):
    return predict(model, images)


@pytest.fixture(scope="module")
def maps(model, images):
    """Of the classes in TARGETS."""
    return heatmaps(model, images, targets=TARGETS, signed=True)


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "new" / "small.onnx"
    source = {"dataset": "drawn", "history": [1]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing of what torch says of itself reaches a reader
        export_onnx(model, path, ["healthy", "pneumonia"], source)
    return path


@pytest.fixture(scope="module")
def int8(path):
    int8 = path.with_name("int8.onnx")
    quantise_onnx_dynamic(path, int8)
    return int8


@pytest.fixture
def ready_graph(path, monkeypatch):
    """Exporting takes the graph of ``path``: what is refused is refused without the wait."""
    graph = onnx.load(str(path))
    monkeypatch.setattr(onnx_export, "_float32_graph", lambda model, pixels: graph)


@pytest.mark.parametrize("count", [1, 5, 40])
def test_any_batch_size_gives_the_models_logits(path, images, logits, count):
    found, _ = predict_onnx(path, images[:count], batch_size=count)
    assert found == pytest.approx(logits[:count], abs=1e-4)


def test_one_batch_of_model_input_gives_the_models_logits(path, images, logits):
    pixels = to_model_input(images, 32)
    found, _ = run_onnx(onnx_session(path), pixels)
    assert found == pytest.approx(logits, abs=1e-4)


def test_the_card_is_enough_to_answer_without_torch(path, images, logits):
    """This is what a user writes who has only NumPy and ONNX Runtime."""
    card = json.loads(path.with_suffix(".json").read_text())
    size = card["input"]["shape"][-1]
    side = images.shape[1]
    pixels = np.stack([images] * 3, axis=1) / 127.5 - 1
    centres = (np.arange(size) + 0.5) * side / size - 0.5
    centres = np.clip(centres, 0, side - 1)
    distances = np.abs(centres[:, None] - np.arange(side))
    resize = np.maximum(0, 1 - distances)
    pixels = resize @ pixels @ resize.T
    feed = {
        "pixels": pixels.astype(np.float32),
        "target": np.full(len(pixels), -1),
    }
    session = onnxruntime.InferenceSession(path)
    (found,) = session.run(["logits"], feed)
    assert found == pytest.approx(logits, abs=1e-4)


def test_the_maps_are_the_grad_cam_that_autograd_finds(path, images, maps):
    _, found = predict_onnx(path, images, targets=TARGETS)
    tolerance = 1e-4 * float(np.abs(maps).max())
    assert found == pytest.approx(maps, abs=tolerance)


def test_without_targets_the_predicted_classes_are_explained(path, images, logits):
    _, found = predict_onnx(path, images)
    _, expected = predict_onnx(path, images, targets=logits.argmax(axis=1))
    assert found.tolist() == expected.tolist()


def test_float32_changes_no_answer(path, images, logits):
    found, _ = predict_onnx(path, images)
    answers = logits.argmax(axis=1).tolist()
    assert set(answers) == {0, 1}
    assert found.argmax(axis=1).tolist() == answers


def test_float32_maps_rank_the_patches_as_torch_does(path, images, maps):
    _, found = predict_onnx(path, images, targets=TARGETS)
    assert np.nanmean(agreement(found, maps)) > 0.9999


def test_the_card_says_what_goes_in(path):
    assert read_onnx_card(path)["input"] == {
        "name": "pixels",
        "shape": ["batch", 3, 32, 32],
        "dtype": "float32",
    }


def test_the_card_says_what_comes_out(path):
    assert read_onnx_card(path)["outputs"] == {
        "logits": ["batch", 2],
        "heatmap": ["batch", 4, 4],
    }


def test_the_card_names_the_classes(path):
    assert read_onnx_card(path)["classes"] == ["healthy", "pneumonia"]


def test_the_card_takes_facts_from_the_checkpoints(path):
    assert read_onnx_card(path)["dataset"] == "drawn"


def test_the_card_takes_no_history_from_the_checkpoints(path):
    assert "history" not in read_onnx_card(path)


def test_the_card_identifies_the_file(path):
    card = read_onnx_card(path)
    entry = file_entry(path, "small.onnx")
    assert card == card | entry


def test_the_file_has_no_stack_traces_of_the_machine_that_exported_it(path):
    assert b".py" not in path.read_bytes()


def test_int8_changes_few_answers(int8, images, logits):
    found, _ = predict_onnx(int8, images, batch_size=1)
    changed = found.argmax(axis=1) != logits.argmax(axis=1)
    assert changed.sum() < 4


def test_int8_logits_are_close_but_not_equal(int8, images, logits):
    found, _ = predict_onnx(int8, images, batch_size=1)
    difference = np.abs(found - logits).max()
    assert 0 < difference < 0.05 * np.abs(logits).max()


def test_int8_maps_are_close(int8, images, maps):
    _, found = predict_onnx(int8, images, 1, TARGETS)
    assert np.nanmean(agreement(found, maps)) > 0.9


def test_an_int8_file_is_small(model, int8):
    float32_bytes = 4 * count_parameters(model)
    assert int8.stat().st_size < 0.42 * float32_bytes


def test_the_int8_card_names_the_file_it_was_made_from(path, int8):
    card = read_onnx_card(int8)
    assert card["precision"] == "int8"
    assert card["quantised_from"] == read_onnx_card(path)["sha256"]


def test_quantising_returns_the_card_and_says_nothing(path, caplog):
    out = path.with_name("again.onnx")
    card = quantise_onnx_dynamic(path, out)
    assert card == read_onnx_card(out)
    assert caplog.text == ""


def test_an_int8_file_is_not_quantised_again(int8):
    with pytest.raises(SwysError, match="is int8 already"):
        quantise_onnx_dynamic(int8, int8.with_name("twice.onnx"))


@pytest.mark.parametrize("names", [["healthy"], ["healthy", "bacterial", "viral"]])
def test_each_class_has_one_name(ready_graph, model, tmp_path, names):
    message = f"{len(names)} class names for a model with 2; give one each"
    with pytest.raises(SwysError, match=message):
        export_onnx(model, tmp_path / "x.onnx", names)


def test_class_names_can_be_left_out(ready_graph, model, tmp_path):
    assert export_onnx(model, tmp_path / "x.onnx")["classes"] is None


def test_images_shrink_as_the_card_says():
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64), dtype=np.uint8)
    wider = 64 / 28
    centres = (np.arange(28) + 0.5) * wider - 0.5
    distances = np.abs(centres[:, None] - np.arange(64))
    triangle = np.maximum(0, 1 - distances / wider)
    resize = triangle / triangle.sum(axis=1, keepdims=True)
    pixels = resize @ (images / 127.5 - 1) @ resize.T
    assert "antialiased where it shrinks" in onnx_export.PREPROCESSING
    np.testing.assert_allclose(pixels, to_model_input(images, 28)[:, 0], atol=1e-5)


def test_a_wrong_ending_is_refused_before_the_export(model, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "_float32_graph", pytest.fail)
    with pytest.raises(SwysError, match="does not end in .onnx"):
        export_onnx(model, tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("name", "message"),
    [("x.pt", "end in .onnx"), ("file/x.onnx", "cannot write")],
)
def test_a_path_that_cannot_be_written_is_refused(ready_graph, model, tmp_path, name, message):
    (tmp_path / "file").write_text("in the way of a folder")
    with pytest.raises(SwysError, match=message):
        export_onnx(model, tmp_path / name)


@pytest.mark.parametrize("content", ["[]", '{"format', '{"note": {"format": "onnx"}}'])
def test_json_that_is_no_card_of_ours_is_not_written_over(ready_graph, model, tmp_path, content):
    path = tmp_path / "x.onnx"
    card_path = tmp_path / "x.json"
    card_path.write_text(content)
    with pytest.raises(SwysError, match="is the card of another file"):
        export_onnx(model, path)
    assert card_path.read_text() == content
    assert not path.exists()


def test_the_card_of_a_checkpoint_is_not_written_over(ready_graph, model, tmp_path):
    save_checkpoint(model, tmp_path / "x.safetensors", {"model": "vit_tiny"})
    with pytest.raises(SwysError, match="is the card of another file"):
        export_onnx(model, tmp_path / "x.onnx")


def test_a_file_of_ours_is_replaced(ready_graph, model, tmp_path):
    path = tmp_path / "x.onnx"
    export_onnx(model, path, ["no", "yes"])
    export_onnx(model, path, ["healthy", "pneumonia"])
    assert read_onnx_card(path)["classes"] == ["healthy", "pneumonia"]


def test_wrong_logits_leave_the_old_file(ready_graph, model, tmp_path, monkeypatch):
    path = tmp_path / "x.onnx"
    path.write_text("old")
    monkeypatch.setattr(onnx_export, "TOLERANCE", 0.0)
    with pytest.raises(SwysError, match="a logit differs from torch's"):
        export_onnx(model, path)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "old"


def test_a_damaged_file_cannot_be_run(tmp_path):
    path = tmp_path / "x.onnx"
    path.write_text("damaged")
    with pytest.raises(SwysError, match="cannot be run"):
        onnx_session(path)


def test_a_card_of_another_file_is_refused(path, tmp_path):
    other = tmp_path / "x.onnx"
    other.write_text("another file")
    card = path.with_suffix(".json").read_text()
    other.with_suffix(".json").write_text(card)
    with pytest.raises(SwysError, match="not the file"):
        read_onnx_card(other)


def test_a_missing_package_is_one_line_with_the_way_to_get_it():
    with pytest.raises(SwysError, match="ONNX needs 'onnx_of_tomorrow'; pip install onnx"):
        package("onnx_of_tomorrow")


def test_a_file_without_a_card_is_refused(tmp_path):
    path = tmp_path / "x.onnx"
    path.write_text("alone")
    with pytest.raises(SwysError, match="not the file"):
        read_onnx_card(path)


def without(key):
    def change(card):
        del card[key]

    return change


def with_another_shape(card):
    card["input"]["shape"] = ["batch", 3, 10**9, 10**9]


@pytest.mark.parametrize(
    "change",
    [without("precision"), without("outputs"), with_another_shape],
    ids=lambda f: f.__name__,
)
def test_a_card_with_a_missing_or_hostile_field_is_refused(path, tmp_path, change):
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    card = json.loads(path.with_suffix(".json").read_text())
    change(card)
    copy.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(SwysError, match="cannot be used"):
        read_onnx_card(copy)
