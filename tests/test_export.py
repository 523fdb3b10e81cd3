"""The exported file says what the model says, in float32 and int8, and its card is enough to use it."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

from swys_studies import export
from swys_studies.closed_form import WithGradCAM
from swys_utils.config import SwysError
from swys_utils.explain import agreement
from swys_utils.gradcam import heatmaps
from swys_utils.models import create_model, file_entry, load_checkpoint, save_checkpoint
from swys_utils.training import predict

onnx, _ = pytest.importorskip("onnx"), pytest.importorskip("onnxscript")
pytestmark = pytest.mark.slow
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
# What a user writes who has only NumPy and ONNX Runtime, from what the card says of the input.
WITHOUT_TORCH = """
import json, sys
import numpy as np, onnxruntime
path, images = sys.argv[1], np.load(sys.argv[2])
size, side = json.load(open(path.replace(".onnx", ".json")))["input"]["shape"][-1], images.shape[1]
x = np.stack([images] * 3, axis=1) / 127.5 - 1
centres = np.clip((np.arange(size) + 0.5) * side / size - 0.5, 0, side - 1)
resize = np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(side)))
x = (resize @ x @ resize.T).astype(np.float32)
feed = {"pixels": x, "target": np.full(len(x), -1)}
print(json.dumps(onnxruntime.InferenceSession(path).run(["logits"], feed)[0].tolist()))
"""


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    model = create_model("vit_tiny", 3, img_size=32, patch_size=8, depth=2).eval()
    torch.nn.init.normal_(model.head.weight, std=0.3)  # logits near zero would hide mistakes
    return model


@pytest.fixture(scope="module")
def path(small, tmp_path_factory):
    target = tmp_path_factory.mktemp("onnx") / "small.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing of what torch says of itself reaches a reader
        export.export_onnx(small, target, ["a", "b", "c"], {"dataset": "drawn", "history": [1]})
    return target


def test_file_and_card_are_enough_for_any_batch_without_torch(small, path, tmp_path):
    expected = predict(small, IMAGES)
    for n in (1, 5):
        assert np.abs(export.predict_onnx(path, IMAGES[:n])[0] - expected[:n]).max() < 1e-4
    np.save(tmp_path / "images.npy", IMAGES)
    command = [sys.executable, "-c", WITHOUT_TORCH, str(path), str(tmp_path / "images.npy")]
    got = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert np.abs(got - expected).max() < 1e-4
    card = export.read_onnx_card(path)
    assert card["input"] == {"name": "pixels", "shape": ["batch", 3, 32, 32], "dtype": "float32"}
    assert card["outputs"] == {"logits": ["batch", 3], "heatmap": ["batch", 4, 4]}
    assert card["classes"] == list("abc")
    assert file_entry(path, "small.onnx").items() <= card.items()
    assert card["dataset"] == "drawn" and "history" not in card
    assert b".py" not in path.read_bytes()  # no stack traces of the machine that exported it


@pytest.mark.parametrize("targets", [None, [2, 0, 1, 1, 0]])
def test_the_file_returns_the_grad_cam_that_autograd_finds(small, path, targets):
    expected = heatmaps(small, IMAGES, targets=targets, signed=True)
    _, found = export.predict_onnx(path, IMAGES, 2, targets)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    int8 = path.with_name("maps.onnx")
    export.quantise_onnx_dynamic(path, int8)
    if targets:  # else a class may change
        _, found = export.predict_onnx(int8, IMAGES, 1, targets)
        assert np.nanmean(agreement(found, expected).spearman) > 0.9


def test_closed_form_needs_a_cls_token_and_no_layer_scale():
    for options in (
        {"global_pool": "avg", "class_token": False},
        {"init_values": 0.5},
        {"act_layer": "relu"},
    ):
        with pytest.raises(SwysError, match="from its CLS token"):
            WithGradCAM(create_model("vit_tiny", 3, depth=1, **options))


def test_int8_is_small_and_close(small, path, caplog):
    int8 = path.with_name("int8.onnx")
    card = export.quantise_onnx_dynamic(path, int8)
    assert card == export.read_onnx_card(int8) and card["bytes"] < 0.4 * path.stat().st_size
    assert card["quantised_from"] == export.read_onnx_card(path)["sha256"] and not caplog.text
    expected, found = predict(small, IMAGES), export.predict_onnx(int8, IMAGES)[0]
    assert 0 < np.abs(found - expected).max() < 0.15 * np.abs(expected).max()
    with pytest.raises(SwysError, match="is int8 already"):
        export.quantise_onnx_dynamic(int8, path.with_name("again.onnx"))


def test_bad_input_is_one_line(small, path, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "float32_graph", lambda model, pixels: onnx.load(str(path)))
    (tmp_path / "x.onnx").write_text("old")
    for name, message in {"x.pt": "end in .onnx", "x.onnx/y.onnx": "cannot write"}.items():
        with pytest.raises(SwysError, match=message):
            export.export_onnx(small, tmp_path / name)
    save_checkpoint(small, tmp_path / "m.safetensors", {"model": "vit_tiny"})
    with pytest.raises(SwysError, match="is the card of another file"):
        export.export_onnx(small, tmp_path / "m.onnx")
    assert load_checkpoint(tmp_path / "m.safetensors")[1]["model_kwargs"]["depth"] == 2  # it needs no help
    [file.unlink() for file in tmp_path.glob("m.*")]
    monkeypatch.setattr(export, "TOLERANCE", 0.0)
    with pytest.raises(SwysError, match="a logit differs from torch's"):
        export.export_onnx(small, tmp_path / "x.onnx")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]  # and nothing else is left
    (tmp_path / "x.json").write_text(path.with_suffix(".json").read_text())
    for call, message in ((export.onnx_session, "cannot be run"), (export.read_onnx_card, "not the file")):
        with pytest.raises(SwysError, match=message):
            call(tmp_path / "x.onnx")
