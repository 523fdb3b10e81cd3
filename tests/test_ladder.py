"""Every rung says what its model says: scores against the package's own, int8 against float, nothing invented."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from swys_utils import ladder
from swys_utils.config import SwysError
from swys_utils.data import load_dataset
from swys_utils.ladder import Step, ladder_table, measure_ladder, shrink_ladder, write_json
from swys_utils.models import create_model
from swys_utils.training import evaluate, predict

FAST = {"images": 40, "explain_images": 6, "seconds": 0.01, "rounds": 2, "memory": False}


def model(seed: int, classes: int = 2, depth: int = 2):
    torch.manual_seed(seed)
    built = create_model("vit_tiny", classes, img_size=32, patch_size=8, depth=depth).eval()
    torch.nn.init.normal_(built.head.weight, std=0.3)  # so that predictions differ between images
    return built


@pytest.fixture(scope="module")
def data(drawn_data_dir):
    return load_dataset("pneumoniamnist", root=drawn_data_dir)


@pytest.fixture(scope="module")
def rungs(data):
    pytest.importorskip("onnxruntime")
    steps = [
        Step("Base", model(0, depth=3)),
        Step("KD Tiny", model(1), ladder.VARIANTS),
        Step("coarse", model(2), trained=False),
    ]
    return measure_ladder(steps, data, **FAST)


def by_name(rungs):
    return {rung.name: rung for rung in rungs}


def test_the_rungs_in_order(rungs):
    assert [r.name for r in rungs] == [
        "Base fp32", "KD Tiny fp32", "KD Tiny bf16", "KD Tiny int8, PyTorch", "KD Tiny fp32, ONNX Runtime",
        "KD Tiny int8, ONNX Runtime", "KD Tiny int4, ONNX Runtime", "coarse fp32",
    ]  # fmt: skip


def test_scores_are_those_of_evaluate(rungs, data):
    test = data.test.head(40)
    expected = evaluate(predict(model(1), test.images, progress=False), test.labels, data.info.task, n_resamples=2)
    for name in ("KD Tiny fp32", "KD Tiny fp32, ONNX Runtime"):
        rung = by_name(rungs)[name]
        assert rung.n == 40 and rung.flips == 0
        assert (rung.accuracy, rung.auc, rung.ece) == pytest.approx(
            (expected.accuracy, expected.auc, expected.ece), abs=1e-5
        )
        assert (rung.accuracy_low, rung.accuracy_high) == expected.accuracy_interval


def test_int8_is_close_and_explained_through_a_twin(rungs):
    for name in ("KD Tiny int8, ONNX Runtime", "KD Tiny int8, PyTorch"):
        rung = by_name(rungs)[name]
        if not rung.measured:
            assert rung.note.startswith("not run") and "PyTorch" in name  # removed from some torch
            continue
        assert rung.above == "KD Tiny fp32" and rung.explained == "a float twin with the int8 weights"
        assert 0.8 < rung.spearman < 1 and rung.flips <= 6
        assert rung.disk_bytes < 0.35 * by_name(rungs)["KD Tiny fp32"].disk_bytes


def test_a_float_model_is_compared_with_the_model_before_it(rungs):
    first, second = by_name(rungs)["Base fp32"], by_name(rungs)["KD Tiny fp32"]
    assert first.above == "" and np.isnan(first.spearman)
    assert second.above == "Base fp32" and second.spearman < 0.8  # two untrained models agree on nothing
    assert (first.speedup, first.speedup_low, first.speedup_high) == (1, 1, 1)


def test_what_was_not_measured_is_not_invented(rungs):
    coarse, bf16 = by_name(rungs)["coarse fp32"], by_name(rungs)["KD Tiny bf16"]
    assert coarse.measured and coarse.note == ladder.UNTRAINED and np.isnan(coarse.accuracy) and coarse.n == 0
    if not ladder.fast_bf16("cpu"):
        assert not bf16.measured and "emulates bfloat16" in bf16.note and np.isnan(bf16.spearman)
    columns, rows = ladder_table(rungs)
    assert all(len(row) == len(columns) for row in rows)
    assert dict(zip(columns, rows[-1]))["accuracy"] == "-" and "nan" not in str(rows)


def test_bf16_runs_where_the_processor_has_it(data, monkeypatch):
    monkeypatch.setattr(ladder, "fast_bf16", lambda device: True)
    whole, half = measure_ladder([Step("Tiny", model(1), ("fp32", "bf16"))], data, **FAST)
    assert half.measured and half.disk_bytes == whole.disk_bytes / 2 and half.above == "Tiny fp32"
    assert 0.5 < half.spearman < 1 and half.flips < 10 and half.macs == whole.macs


def test_written_json_reads_back_without_nan(rungs, tmp_path):
    write_json(rungs, tmp_path / "deep" / "ladder.json", dataset="drawn")
    text = (tmp_path / "deep" / "ladder.json").read_text()
    content = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert content["dataset"] == "drawn" and len(content["rungs"]) == len(rungs)
    assert content["rungs"][-1]["accuracy"] is None and content["original"]["rows"][0]["parameters"] == "85.8 M"
    (tmp_path / "file").write_text("")
    with pytest.raises(SwysError, match="cannot write"):
        write_json(rungs, tmp_path / "file" / "ladder.json")


def test_known_logits_are_used_and_models_left_as_found(data):
    logits = np.tile(np.array([[0.0, 9.0]], np.float32), (40, 1))
    tiny = model(1).train()
    (rung,) = measure_ladder([Step("Tiny", tiny)], data, logits={"Tiny": logits}, **FAST)
    assert rung.accuracy == pytest.approx((data.test.head(40).labels == 1).mean()) and tiny.training
    with pytest.raises(SwysError, match="3 known logits of 'Tiny' for 40 images"):
        measure_ladder([Step("Tiny", tiny)], data, logits={"Tiny": logits[:3]}, **FAST)


def test_several_labels_at_once(drawn_data_dir):
    chest = load_dataset("chestmnist", root=drawn_data_dir)
    a, b = measure_ladder([Step("Base", model(0, 14)), Step("Tiny", model(1, 14))], chest, **FAST)
    assert 0 < b.accuracy < 1 and b.accuracy_low < b.accuracy < b.accuracy_high and not np.isnan(b.spearman)


def test_shrink_ladder_adds_untrained_coarse_grids(data, monkeypatch):
    seen = []
    monkeypatch.setattr(ladder, "measure_ladder", lambda steps, data, **options: seen.extend(steps))
    shrink_ladder(None, model(1), model(2), data)
    assert [step.name for step in seen] == ["Tiny", "KD Tiny", "Tiny, patch 4 on 28 px", "Tiny, patch 2 on 28 px"]
    assert [step.model.patch_embed.num_patches for step in seen[2:]] == [49, 196]
    assert not any(step.trained for step in seen[2:]) and seen[1].variants == ladder.VARIANTS


def test_bad_input_is_one_line(data):
    with pytest.raises(SwysError, match="no steps"):
        measure_ladder([], data)
    with pytest.raises(SwysError, match="unknown variants .'fp8'."):
        measure_ladder([Step("Tiny", model(1), ("fp8",))], data)
    with pytest.raises(SwysError, match="'Tiny' has 5 classes, pneumoniamnist has 2"):
        measure_ladder([Step("Tiny", model(1, 5))], data)
