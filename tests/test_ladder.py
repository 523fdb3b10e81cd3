"""Every rung says what its model says: the package's own scores, int8 near float, nothing invented."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from swys_studies import ladder
from swys_studies.ladder import ladder_table, shrink_ladder, which_to_ship
from swys_utils.config import SwysError
from swys_utils.data import load_dataset
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
    pytest.importorskip("onnxscript"), pytest.importorskip("onnxruntime")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ladder, "fast_bf16", lambda device: True)
        found = shrink_ladder({"Base": model(0, 2, 56, 14), "Tiny": model(1)}, data, **FAST)
    return {rung.name: rung for rung in found}


def test_the_rungs_and_those_above_them(rungs):
    base, tiny = ["Base fp32", "Base bf16"], ["Tiny fp32"]
    assert [*rungs] == base + tiny + ["Tiny fp32, ONNX Runtime", "Tiny int8, ONNX Runtime"]
    first, second = rungs["Base fp32"], rungs["Tiny fp32"]
    assert (first.speedup, *first.speedup_interval, round(first.like_first, 5)) == (1, 1, 1, 1)
    assert second.like_above == second.like_first < 0.8  # untrained models


def test_scores_are_those_of_evaluate_and_a_runtime_or_number_format_changes_little(rungs, data):
    test, val, rung = data.test.head(40), data.val.head(40), rungs["Tiny fp32"]
    expected = evaluate(predict(model(1), test.images), test.labels, data.info.task, n_resamples=2)
    assert (rung.n, rung.flips, rung.accuracy_interval) == (40, 0, expected.accuracy_interval)
    assert [rung.accuracy, rung.auc] == pytest.approx([expected.accuracy, expected.auc], abs=1e-5)
    assert rung.val_accuracy == (predict(model(1), val.images).argmax(axis=1) == val.labels).mean()
    same = rungs["Tiny fp32, ONNX Runtime"]
    assert same.flips == 0 and same.like_above > 0.9999
    for name, whole, share in (("Base bf16", "Base", 0.51), ("Tiny int8, ONNX Runtime", "Tiny", 0.42)):
        found, exact = rungs[name], rungs[f"{whole} fp32"]
        assert 0.5 < found.like_above < 1 and found.flips < 10 and found.bytes < share * exact.bytes
    table = ladder_table(rungs.values())
    assert [row["rung"] for row in table] == [*rungs] and table[3]["flips"] == "0 of 40"


def test_which_rung_to_ship(rungs):
    def rung(name, latency, validated, alike=1.0, trained="KD"):
        facts = {"latency_ms": latency, "speedup": 10 / latency, "n": 100, "accuracy": 1 - validated}
        facts |= {"val_accuracy": validated, "like_above": alike, "flips": 3}
        return replace(rungs["Tiny fp32"], name=name, model=trained, **facts)

    made = [rung("Base", 10, 0.90, trained="Base"), rung("KD", 5, 0.92), rung("good", 2, 0.918, 0.97)]
    made += [rung("looks elsewhere", 1, 0.92, 0.9), rung("loses", 1, 0.91, 0.99)]
    chosen, reason = which_to_ship(made)
    assert chosen.name == "good" and "5 times as fast as Base" in reason and "against KD (92.0%)" in reason
    assert "right on 8.2% of 100 test images" in reason and "changed 3 answers" in reason
    assert which_to_ship(made, max_loss=0.02)[0].name == "loses"


def test_bad_input_is_one_line(data):
    for models in ({}, {"Tiny": model(1, 5)}):
        with pytest.raises(SwysError, match="give models of pneumoniamnist"):
            shrink_ladder(models, data)
