"""The exported file says what the model says: in ONNX Runtime, as int8, and in the example without torch."""

from __future__ import annotations

import copy
import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from swys_utils import export
from swys_utils.config import SwysError
from swys_utils.models import create_model, file_sha256
from swys_utils.training import predict

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
TOOL = Path(__file__).resolve().parents[1] / "tools" / "run_onnx.py"


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    model = create_model("vit_tiny", 3, img_size=32, patch_size=8, depth=2).eval()
    torch.nn.init.normal_(model.head.weight, std=0.3)  # untrained heads give logits near zero, which hide mistakes
    return model


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)


@pytest.fixture(scope="module")
def exported(small, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "small.onnx"
    return export.export_onnx(small, path, class_names=["a", "b", "c"], source={"dataset": "drawn", "history": [1]})


@pytest.fixture(scope="module")
def int8(exported):
    return export.quantise_onnx_dynamic(exported.path, exported.path.with_name("small_int8.onnx"))


def test_any_batch_gives_the_models_logits(small, images, exported):
    expected = predict(small, images, progress=False)
    assert np.abs(expected).max() > 0.1
    for n in (1, 2, 5):
        got = export.predict_onnx(exported.path, images[:n])
        assert got.dtype == np.float32 and np.abs(got - expected[:n]).max() < 1e-4


def test_the_card_says_what_is_inside(exported):
    card = json.loads(exported.path.with_suffix(".json").read_text())
    assert card == exported.card == export.read_onnx_card(exported.path)
    assert card["input"]["name"] == "pixels" and card["input"]["shape"] == ["batch", 3, 32, 32]
    assert card["input"]["range"] == [-1, 1] and "not included" in card["input"]["preprocessing"]
    assert card["classes"] == ["a", "b", "c"] and card["output"]["shape"] == ["batch", 3] and card["opset"] == 17
    assert card["sha256"] == file_sha256(exported.path) and card["bytes"] == exported.path.stat().st_size
    assert card["dataset"] == "drawn" and "history" not in card
    assert 0 <= exported.max_logit_difference < export.TOLERANCE
    assert {"torch", "timm", "onnx", "onnxruntime"} <= set(card["versions"])


def test_one_file_and_its_card_and_nothing_else(exported, int8):
    names = {path.name for path in exported.path.parent.iterdir()}
    assert names == {"small.onnx", "small.json", "small_int8.onnx", "small_int8.json"}


def test_int8_is_small_and_close(small, images, exported, int8):
    weights = sum(p.numel() for p in small.parameters())
    assert int8.card["bytes"] < 1.15 * weights and int8.card["bytes"] < exported.card["bytes"] / 3
    assert int8.card["precision"] == "int8" and int8.card["quantised_from"]["sha256"] == exported.card["sha256"]
    expected = predict(small, images, progress=False)
    error = np.abs(export.predict_onnx(int8.path, images) - expected).max()
    assert 0 < error < 0.15 * np.abs(expected).max()
    with pytest.raises(SwysError, match="is int8 already"):
        export.quantise_onnx_dynamic(int8.path, int8.path.with_name("again.onnx"))


def test_int4_is_smaller_still_and_its_twin_is_close(small, images, exported, int8, tmp_path):
    pytest.importorskip("onnxruntime.quantization.matmul_nbits_quantizer")
    int4 = export.quantise_onnx_int4(exported.path, tmp_path / "small_int4.onnx")
    assert int4.card["precision"] == "int4" and int4.card["bytes"] < 0.65 * int8.card["bytes"]
    expected, got = predict(small, images, progress=False), export.predict_onnx(int4.path, images)
    stored = predict(export.dequantised_twin(int4.path, small), images, progress=False)
    assert 0 < np.abs(stored - got).max() < 0.5 * np.abs(got - expected).max() < 0.5 * np.abs(expected).max()


def test_the_float_twin_has_the_int8_weights(small, images, int8):
    twin = export.dequantised_twin(int8.path, small)
    for mine, theirs in zip(small.blocks, twin.blocks):
        for a, b in ((mine.attn.qkv, theirs.attn.qkv), (mine.mlp.fc2, theirs.mlp.fc2)):
            step = a.weight.abs().amax(dim=1, keepdim=True) / 63  # one of 127 levels, each output channel its own
            assert 0 < (a.weight - b.weight).abs().max() and ((a.weight - b.weight).abs() <= 0.6 * step).all()
    assert 0 < (small.patch_embed.proj.weight - twin.patch_embed.proj.weight).abs().max() < 0.01
    stored, expected = predict(twin, images, progress=False), predict(small, images, progress=False)
    to_int8 = np.abs(stored - export.predict_onnx(int8.path, images)).max()
    assert to_int8 < np.abs(stored - expected).max() < 0.15 * np.abs(expected).max()  # weights explain most of it
    with pytest.raises(SwysError, match="was not quantised from this model"):
        export.dequantised_twin(int8.path, create_model("vit_tiny", 3, img_size=32, patch_size=8, depth=1))


@pytest.mark.parametrize("colour", [False, True])
def test_the_example_needs_no_torch(small, images, exported, tmp_path, colour):
    pixels = np.stack([images, images[:, ::-1], images[:, :, ::-1]], axis=-1) if colour else images
    np.save(tmp_path / "images.npy", pixels)
    start = "import runpy, sys; sys.modules['torch'] = None; sys.argv[:] = sys.argv[1:]; runpy.run_path(sys.argv[0])"
    command = [sys.executable, "-c", start, str(TOOL), str(exported.path), str(tmp_path / "images.npy")]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    p = torch.from_numpy(predict(small, pixels, progress=False)).softmax(dim=1).numpy()
    assert lines[::2] == ["abc"[i] for i in p.argmax(axis=1)]
    assert np.abs(np.array(lines[1::2], float) - p.max(axis=1)).max() < 1e-4


@pytest.mark.parametrize("opset", [14, 20])
def test_other_opsets(small, tmp_path, opset):
    assert export.export_onnx(small, tmp_path / "x.onnx", opset=opset).card["opset"] == opset


def test_a_model_that_differs_is_refused_and_nothing_is_left(small, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "TOLERANCE", 0.0)
    with pytest.raises(SwysError, match="differ from torch by"):
        export.export_onnx(small, tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_export_leaves_the_old_file(small, tmp_path, monkeypatch):
    path = tmp_path / "x.onnx"
    path.write_text("old")
    monkeypatch.setattr(export, "TOLERANCE", 0.0)
    with pytest.raises(SwysError):
        export.export_onnx(small, path)
    assert [p.name for p in tmp_path.iterdir()] == ["x.onnx"] and path.read_text() == "old"


def test_bad_input_is_one_line(small, exported, tmp_path, monkeypatch):
    with pytest.raises(SwysError, match="does not end in .onnx"):
        export.export_onnx(small, tmp_path / "x.pt")
    with pytest.raises(SwysError, match="2 class names for a model with 3"):
        export.export_onnx(small, tmp_path / "x.onnx", class_names=["a", "b"])
    with pytest.raises(SwysError, match="this model is torch.bfloat16"):
        export.export_onnx(copy.deepcopy(small).bfloat16(), tmp_path / "x.onnx")
    with pytest.raises(SwysError, match="opset is 9; .* 14 to 20"):
        export.export_onnx(small, tmp_path / "x.onnx", opset=9)
    with pytest.raises(SwysError, match="cannot write"):
        (tmp_path / "file").write_text("")
        export.export_onnx(small, tmp_path / "file" / "x.onnx")
    with pytest.raises(SwysError, match="no ONNX file"):
        export.onnx_session(tmp_path / "missing.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(exported.path.read_bytes()[:5000])
    with pytest.raises(SwysError, match="no ONNX model that can be run"):
        export.onnx_session(broken)
    broken.with_suffix(".json").write_text(exported.path.with_suffix(".json").read_text())
    with pytest.raises(SwysError, match="not the file that its card describes"):
        export.read_onnx_card(broken)


def test_a_missing_package_names_the_pip_line(small, tmp_path, monkeypatch):
    real = importlib.import_module

    def without(name, *args):
        if name.startswith("onnx"):
            raise ImportError(name=name)
        return real(name, *args)

    monkeypatch.setattr(export.importlib, "import_module", without)
    with pytest.raises(SwysError, match="needs the package 'onnx'; pip install -U onnx onnxruntime"):
        export.export_onnx(small, tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []
