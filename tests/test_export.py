"""An exported file says what its model says, its card is enough to use it; so does every rung."""

import json
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
from small import vit

from swys_utils import onnx_export as export
from swys_utils.cards import file_entry
from swys_utils.config import SwysError
from swys_utils.explain import agreement
from swys_utils.gradcam import heatmaps
from swys_utils.models import save_checkpoint
from swys_utils.onnx_gradcam import WithGradCAM
from swys_utils.training import predict

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
SMALL = vit(
    3, noise=0.05, img_size=32, patch_size=8, embed_dim=192
)  # logits near zero would hide mistakes
TINY = vit(seed=1, noise=0.05, embed_dim=192, patch_size=7)
MODELS = {"Base": vit(noise=0.05, embed_dim=192, img_size=56), "Tiny": TINY}


def without_torch(path, images):
    """What a user writes who has only NumPy and ONNX Runtime, from what the card says of the input."""
    size, side = (
        json.loads(path.with_suffix(".json").read_text())["input"]["shape"][-1],
        images.shape[1],
    )
    x = np.stack([images] * 3, axis=1) / 127.5 - 1
    centres = np.clip((np.arange(size) + 0.5) * side / size - 0.5, 0, side - 1)
    resize = np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(side)))
    feed = {"pixels": (resize @ x @ resize.T).astype(np.float32), "target": np.full(len(x), -1)}
    return onnxruntime.InferenceSession(path).run(["logits"], feed)[0]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    target = tmp_path_factory.mktemp("onnx") / "new" / "small.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing of what torch says of itself reaches a reader
        export.export_onnx(SMALL, target, ["a", "b", "c"], {"dataset": "drawn", "history": [1]})
    return target


def test_file_and_card_are_enough_for_any_batch_without_torch(path):
    expected = predict(SMALL, IMAGES)
    for n in (1, 5):
        np.testing.assert_allclose(
            export.predict_onnx(path, IMAGES[:n])[0], expected[:n], rtol=0, atol=1e-4
        )
    np.testing.assert_allclose(without_torch(path, IMAGES), expected, rtol=0, atol=1e-4)
    card = export.read_onnx_card(path)
    assert card["input"] == {"name": "pixels", "shape": ["batch", 3, 32, 32], "dtype": "float32"}
    assert card["outputs"] == {"logits": ["batch", 3], "heatmap": ["batch", 4, 4]}
    assert card["classes"] == list("abc") and card["dataset"] == "drawn" and "history" not in card
    assert file_entry(path, "small.onnx").items() <= card.items()
    assert b".py" not in path.read_bytes()  # no stack traces of the machine that exported it


@pytest.mark.parametrize("targets", [None, [2, 0, 1, 1, 0]])
def test_the_file_returns_the_grad_cam_that_autograd_finds(path, targets):
    expected = heatmaps(SMALL, IMAGES, targets=targets, signed=True)
    _, found = export.predict_onnx(path, IMAGES, 2, targets)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_int8_is_small_and_close(path, caplog):
    int8, classes = path.with_name("int8.onnx"), [2, 0, 1, 1, 0]
    card = export.quantise_onnx_dynamic(path, int8)
    assert card == export.read_onnx_card(int8) and card["bytes"] < 0.4 * path.stat().st_size
    assert card["quantised_from"] == export.read_onnx_card(path)["sha256"] and not caplog.text
    expected, (found, maps) = predict(SMALL, IMAGES), export.predict_onnx(int8, IMAGES, 1, classes)
    assert 0 < np.abs(found - expected).max() < 0.15 * np.abs(expected).max()
    alike = agreement(maps, heatmaps(SMALL, IMAGES, targets=classes, signed=True))
    assert np.nanmean(alike) > 0.9
    with pytest.raises(SwysError, match="is int8 already"):
        export.quantise_onnx_dynamic(int8, path.with_name("again.onnx"))


def test_bad_input_is_one_line(path, tmp_path, monkeypatch, data):
    monkeypatch.setattr(export, "float32_graph", lambda model, pixels: onnx.load(str(path)))
    save_checkpoint(SMALL, tmp_path / "m.safetensors", {"model": "vit_tiny"})
    for name, text in (("x.onnx", "old"), ("list.json", "[]"), ("broken.json", '{"format')):
        (tmp_path / name).write_text(text)
    before = sorted(tmp_path.iterdir())
    wrong = {"x.pt": "end in .onnx", "x.onnx/y.onnx": "cannot write"}
    wrong |= {f"{name}.onnx": "is the card of another file" for name in ("m", "list", "broken")}
    for name, message in wrong.items():
        with pytest.raises(SwysError, match=message):
            export.export_onnx(SMALL, tmp_path / name)
    monkeypatch.setattr(export, "TOLERANCE", 0.0)
    with pytest.raises(SwysError, match="a logit differs from torch's"):
        export.export_onnx(SMALL, tmp_path / "x.onnx")
    assert (tmp_path / "x.onnx").read_text() == "old" and sorted(tmp_path.iterdir()) == before
    (tmp_path / "x.json").write_text(path.with_suffix(".json").read_text())
    for call, message in (
        (export.onnx_session, "cannot be run"),
        (export.read_onnx_card, "not the file"),
    ):
        with pytest.raises(SwysError, match=message):
            call(tmp_path / "x.onnx")
    average = {"global_pool": "avg", "class_token": False}
    for options in (average, {"init_values": 0.5}, {"act_layer": "relu"}):
        with pytest.raises(SwysError, match="from its CLS token"):
            WithGradCAM(vit(**options))
