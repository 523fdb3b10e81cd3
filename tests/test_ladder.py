"""Every rung says what its model says: the package's own scores, int8 near float, nothing invented."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch

from swys_studies import ladder
from swys_studies.ladder import Rung, ladder_table, shrink_ladder, which_to_ship, write
from swys_studies.native import at_native_resolution
from swys_utils.benchmark import count_macs, vit_macs
from swys_utils.config import SwysError
from swys_utils.data import load_dataset, to_model_input
from swys_utils.gradcam import grad_cam
from swys_utils.metrics import evaluate
from swys_utils.models import create_model
from swys_utils.training import predict

FAST = {"images": 40, "explain_images": 6, "rounds": 2}
pytestmark = pytest.mark.slow


def model(seed: int, classes: int = 2, img_size: int = 28, patch_size: int = 7):
    torch.manual_seed(seed)
    built = create_model("vit_tiny", classes, img_size=img_size, patch_size=patch_size, depth=2).eval()
    torch.nn.init.normal_(built.head.weight, std=0.3)  # so that predictions differ between images
    return built


@pytest.fixture(scope="module")
def data(drawn_data_dir):
    return load_dataset("pneumoniamnist", root=drawn_data_dir)


@pytest.fixture(scope="module")
def rungs(data):
    pytest.importorskip("onnxscript"), pytest.importorskip("onnxruntime"), pytest.importorskip("torch", "2.7")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ladder, "fast_bf16", lambda device: True)
        found = shrink_ladder({"Base": model(0, 2, 56, 14), "Tiny": model(1)}, data, **FAST)
    return {rung.name: rung for rung in found}


def test_the_rungs_and_those_above_them(rungs):
    base, tiny = ["Base fp32", "Base bf16", "Base on 28 px fp32"], ["Tiny fp32"]
    assert [*rungs] == base + tiny + ["Tiny fp32, ONNX Runtime", "Tiny int8, ONNX Runtime"]
    assert [rung.above for rung in rungs.values()] == ["", *base[:1] * 3, *tiny * 2]
    first, second = rungs["Base fp32"], rungs["Tiny fp32"]
    assert (first.speedup, *first.speedup_interval) == (1, 1, 1) and np.isnan(first.like_first)
    assert second.like_above == second.like_first < 0.8  # untrained models


def test_scores_are_those_of_evaluate(rungs, data):
    test, val, rung = data.test.head(40), data.val.head(40), rungs["Tiny fp32"]
    expected = evaluate(predict(model(1), test.images), test.labels, data.info.task, n_resamples=2)
    assert (rung.n, rung.flips, rung.accuracy_interval) == (40, 0, expected.accuracy_interval)
    assert [rung.accuracy, rung.auc] == pytest.approx([expected.accuracy, expected.auc], abs=1e-5)
    assert rung.val_accuracy == (predict(model(1), val.images).argmax(axis=1) == val.labels).mean()


def test_a_rewrite_and_a_runtime_change_nothing_and_a_number_format_little(rungs):
    for name in ("Base on 28 px fp32", "Tiny fp32, ONNX Runtime"):
        assert rungs[name].flips == 0 and rungs[name].like_above > 0.9999
    for name, whole, share in (
        ("Base bf16", "Base fp32", 0.51),
        ("Tiny int8, ONNX Runtime", "Tiny fp32", 0.35),
    ):
        assert 0.5 < rungs[name].like_above < 1 and rungs[name].flips < 10
        assert rungs[name].bytes < share * rungs[whole].bytes and rungs[name].macs == rungs[whole].macs


def test_what_cannot_run_is_listed_with_its_reason(data, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setattr(ladder, "fast_bf16", lambda device: False)
    found = shrink_ladder({"Tiny": model(1)}, data, **FAST)
    assert all("ONNX needs 'onnxscript'; pip install" in rung.reason for rung in found[2:])
    assert [rung.reason for rung in found[:2]] == ["", "this CPU only emulates bfloat16"]
    table = ladder_table(found)
    assert table[0]["accuracy"] != "-" == table[1]["accuracy"] == table[1]["flips"] and "nan" not in str(
        table
    )
    write(found, tmp_path / "deep" / "ladder.json", dataset="drawn")
    rungs = json.loads((tmp_path / "deep" / "ladder.json").read_text())["rungs"]
    assert rungs[1]["speedup_interval"] == [None, None] and rungs[0]["accuracy"] == found[0].accuracy
    assert which_to_ship(found)[0].name == "Tiny fp32"


def test_several_labels_at_once(drawn_data_dir, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    chest = load_dataset("chestmnist", root=drawn_data_dir)
    tiny = shrink_ladder({"Base": model(0, 14), "Tiny": model(1, 14)}, chest, **FAST)[2]
    assert 0 < tiny.accuracy_interval[0] < tiny.accuracy < tiny.accuracy_interval[1] < 1 and tiny.flips == 0


def test_which_rung_to_ship():
    def rung(name, latency, validated, trained="KD", **other):
        facts = {"latency_ms": latency, "speedup": 10 / latency, "n": 100, "accuracy": 1 - validated}
        return Rung(name, trained, 1, 1, 100, val_accuracy=validated, **(facts | other))

    rungs = [
        rung("Base", 10, 0.90, "Base"),
        rung("not run", 1, 0.99, "Base", reason="no"),
        rung("KD", 5, 0.92),
        rung("good", 2, 0.918, like_above=0.97, flips=3),
        rung("looks elsewhere", 1, 0.92, like_above=0.9),
        rung("loses", 1, 0.91, like_above=0.99),
    ]
    chosen, reason = which_to_ship(rungs)
    assert chosen.name == "good" and "5 times as fast as Base" in reason and "against KD (92.0%)" in reason
    assert "right on 8.2% of 100 test images" in reason and "changed 3 answers" in reason
    assert which_to_ship(rungs, max_loss=0.02)[0].name == "loses"


@pytest.mark.parametrize("img_size, patch_size", [(224, 16), (84, 12), (56, 14)])
def test_the_rewrite_gives_the_same_logits_and_maps(data, img_size, patch_size):
    wide = model(0, 2, img_size, patch_size)
    native, kernel = at_native_resolution(wide), 28 * patch_size // img_size + 2
    enlarged, small = (to_model_input(data.test.images[:5], size) for size in (img_size, 28))
    with torch.no_grad():
        assert (wide(enlarged) - native(small)).abs().max() < 1e-4 < wide(enlarged).abs().max()
    expected, found = grad_cam(wide, enlarged, signed=True), grad_cam(native, small, signed=True)
    assert torch.allclose(expected, found, atol=1e-4 * float(expected.abs().max()))
    assert count_macs(native) == vit_macs((img_size // patch_size) ** 2, 192, 2, kernel, classes=2)


@pytest.mark.parametrize("img_size, patch_size, size", [(28, 4, 28), (224, 16, 64), (56, 7, 28), (56, 8, 0)])
def test_what_cannot_be_rewritten_is_one_line(img_size, patch_size, size):
    with pytest.raises(SwysError, match=f"on {img_size} px cannot be rewritten for {size} px"):
        at_native_resolution(model(0, 2, img_size, patch_size), size)


def test_bad_input_is_one_line(data):
    with pytest.raises(SwysError, match="the ladder has no models"):
        shrink_ladder({}, data)
    with pytest.raises(SwysError, match="'Tiny' has 5 classes; use one trained on pneumoniamnist"):
        shrink_ladder({"Tiny": model(1, 5)}, data)
