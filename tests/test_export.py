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
from swys_utils.config import SwysError
from swys_utils.models import create_model, file_entry
from swys_utils.training import predict

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript"), pytest.importorskip("torch", "2.7")
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
print(json.dumps(onnxruntime.InferenceSession(path).run(["logits"], {"pixels": x})[0].tolist()))
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


@pytest.fixture(scope="module")
def int8(path):
    export.quantise_onnx_dynamic(path, path.with_name("small_int8.onnx"))
    return path.with_name("small_int8.onnx")


def test_any_batch_gives_the_models_logits(small, path):
    expected = predict(small, IMAGES)
    for n in (1, 2, 5):
        got = export.predict_onnx(path, IMAGES[:n])
        assert got.dtype == np.float32 and np.abs(got - expected[:n]).max() < 1e-4


def test_the_card_is_enough_to_run_it_without_torch(small, path, tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    command = [sys.executable, "-c", WITHOUT_TORCH, str(path), str(tmp_path / "images.npy")]
    got = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert np.abs(got - predict(small, IMAGES)).max() < 1e-4


def test_the_card_says_what_is_inside(path):
    card = export.read_onnx_card(path)
    assert card["input"] == {"name": "pixels", "shape": ["batch", 3, 32, 32], "dtype": "float32"}
    assert card["outputs"] == {"logits": ["batch", 3]} and card["classes"] == ["a", "b", "c"]
    assert file_entry(path, "small.onnx").items() <= card.items()
    assert card["opset"] == export.OPSET and 0 <= card["max_logit_difference"] < export.TOLERANCE
    assert card["dataset"] == "drawn" and "history" not in card
    assert b".py" not in path.read_bytes()  # no stack traces of the machine that exported it


def test_int8_is_small_and_close_and_nothing_is_left_over(small, path, int8):
    card = export.read_onnx_card(int8)
    assert card["bytes"] < 0.33 * path.stat().st_size and card["precision"] == "int8"
    assert card["quantised_from"]["sha256"] == export.read_onnx_card(path)["sha256"]
    expected = predict(small, IMAGES)
    error = np.abs(export.predict_onnx(int8, IMAGES) - expected).max()
    assert 0 < error < 0.15 * np.abs(expected).max()
    assert len(list(path.parent.iterdir())) == 4  # two files, two cards
    with pytest.raises(SwysError, match="is int8 already"):
        export.quantise_onnx_dynamic(int8, int8.with_name("again.onnx"))


def test_the_float_twin_has_the_int8_weights(small, int8):
    twin = export.dequantised_twin(int8, small)
    for mine, theirs in zip(small.blocks, twin.blocks):
        weight, error = mine.mlp.fc2.weight, (mine.mlp.fc2.weight - theirs.mlp.fc2.weight).abs()
        step = weight.abs().amax(dim=1, keepdim=True) / 63  # 127 levels, each output channel its own
        assert 0 < error.max() and (error <= 0.6 * step).all()
    stored, whole = predict(twin, IMAGES), export.predict_onnx(int8, IMAGES)
    assert np.abs(stored - whole).max() < np.abs(stored - predict(small, IMAGES)).max()
    with pytest.raises(SwysError, match="was not quantised from this model"):
        export.dequantised_twin(int8, create_model("vit_tiny", 3, depth=1))


def test_bad_input_is_one_line(small, path, tmp_path, monkeypatch):
    with pytest.raises(SwysError, match="2 class names for a model with 3"):
        export.export_onnx(small, tmp_path / "x.onnx", class_names=["a", "b"])
    monkeypatch.setattr(export, "float32_graph", lambda model, pixels: onnx.load(str(path)))
    monkeypatch.setattr(export, "TOLERANCE", 0.0)
    (tmp_path / "x.onnx").write_text("old")
    refused = {
        "x.pt": "end in .onnx",
        "x.onnx/y.onnx": "cannot write",
        "x.onnx": "a logit differs from torch's",
    }
    for name, message in refused.items():
        with pytest.raises(SwysError, match=message):
            export.export_onnx(small, tmp_path / name)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]  # and nothing else is left
    broken = tmp_path / "broken.onnx"
    for _ in range(2):  # missing, then damaged
        with pytest.raises(SwysError, match="broken.onnx' cannot be run"):
            export.onnx_session(broken)
        broken.write_bytes(path.read_bytes()[:5000])
    broken.with_suffix(".json").write_text(path.with_suffix(".json").read_text())
    with pytest.raises(SwysError, match="not the file that its card describes"):
        export.read_onnx_card(broken)
