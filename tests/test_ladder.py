"""Every rung says what its model says: scores against the package's own, int8 against float, nothing invented."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from swys_utils import ladder
from swys_utils.benchmark import count_macs, vit_macs
from swys_utils.config import SwysError
from swys_utils.data import load_dataset, to_model_input
from swys_utils.explain import heatmaps
from swys_utils.export import export_onnx, predict_onnx
from swys_utils.gradcam import grad_cam
from swys_utils.ladder import (
    Rung,
    Step,
    ladder_steps,
    ladder_table,
    measure_ladder,
    shrink_ladder,
    which_to_ship,
    write_json,
)
from swys_utils.models import at_native_resolution, create_model
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
    val = data.val.head(40)
    expected = (predict(tiny, val.images, progress=False).argmax(1) == val.labels).mean()
    assert rung.val_accuracy == pytest.approx(expected) and rung.val_n == len(val)
    known = {"Tiny": np.tile(logits[:1], (len(data.val), 1))}
    (rung,) = measure_ladder([Step("Tiny", tiny)], data, val_logits=known, **FAST)
    assert rung.val_accuracy == pytest.approx((val.labels == 1).mean())
    with pytest.raises(SwysError, match="3 known logits of 'Tiny' for 40 images"):
        measure_ladder([Step("Tiny", tiny)], data, logits={"Tiny": logits[:3]}, **FAST)


def test_several_labels_at_once(drawn_data_dir):
    chest = load_dataset("chestmnist", root=drawn_data_dir)
    a, b = measure_ladder([Step("Base", model(0, 14)), Step("Tiny", model(1, 14))], chest, **FAST)
    assert 0 < b.accuracy < 1 and b.accuracy_low < b.accuracy < b.accuracy_high and not np.isnan(b.spearman)


def test_a_slow_rung_is_scored_on_a_sample_and_says_so(data, monkeypatch):
    monkeypatch.setattr(ladder, "MIN_SCORED", 7)
    monkeypatch.setattr(ladder, "fast_bf16", lambda device: True)
    known = {"Tiny": predict(model(1), data.test.head(40).images, progress=False)}
    steps = [Step("Tiny", model(1), ("fp32", "bf16"))]
    whole, half = measure_ladder(steps, data, logits=known, score_seconds=1e-9, **FAST)
    assert (whole.n, half.n, half.compared) == (40, 7, 7) and half.flips <= 2
    assert half.note == "scored on a sample of 7 images" and whole.note == ""
    columns, rows = ladder_table([whole, half], ladder.KEPT)
    assert rows[1][columns.index("accuracy")].endswith(" of 7") and "of" not in rows[0][columns.index("accuracy")]


def test_known_maps_are_used_for_the_first_rungs_predictions(data):
    images = data.test.head(6).images
    classes = predict(model(0), images, progress=False).argmax(axis=1)
    steps = [Step("Base", model(0)), Step("Tiny", model(1))]
    maps = {step.name: heatmaps(step.model, images, targets=classes, signed=True) for step in steps}
    again = measure_ladder(steps, data, maps=maps, **FAST)[1]
    fresh = measure_ladder(steps, data, **FAST)[1]
    assert again.like_first == again.spearman == pytest.approx(fresh.spearman)
    assert measure_ladder(steps, data, maps={**maps, "Tiny": maps["Base"]}, **FAST)[1].like_first == pytest.approx(1)


def test_the_steps_of_the_series(data):
    coarse = create_model("vit_tiny", 2, img_size=28, patch_size=4, depth=2)
    models = {"Base": enlarging(0), "Tiny": enlarging(1), "KD Tiny": enlarging(2), "KD Tiny patch 4": coarse}
    steps = {step.name: step for step in ladder_steps(models, data)}
    assert list(steps) == ["Base", "Tiny", "KD Tiny", "KD Tiny on 28 px", "KD Tiny patch 4"]
    assert steps["Base"].variants == ("fp32", "bf16") and steps["KD Tiny"].variants == ladder.VARIANTS
    assert steps["KD Tiny on 28 px"].equals == "KD Tiny" and steps["KD Tiny patch 4"].model is coarse
    assert [step.name for step in ladder_steps({"mine": coarse}, data)] == ["mine"]  # reads 28 px already
    with pytest.raises(SwysError, match="no steps"):
        ladder_steps({}, data)


def test_the_rewritten_model_takes_over_the_known_logits(data, monkeypatch):
    seen = {}
    monkeypatch.setattr(ladder, "measure_ladder", lambda steps, data, **options: seen.update(options))
    logits = predict(enlarging(2), data.test.images, progress=False)
    shrink_ladder({"KD Tiny": enlarging(2)}, data, logits={"KD Tiny": logits})
    assert seen["logits"]["KD Tiny on 28 px"] is logits
    with pytest.raises(SwysError, match="no exact rewrite"):
        shrink_ladder({"KD Tiny": enlarging(2)}, data, logits={"KD Tiny": -logits})


def rung(name, latency, accuracy, **other):
    fields = {"model": name, "precision": "fp32", "runtime": "PyTorch", "trained": True, "parameters": 1, "macs": 1,
              "disk_bytes": 100, "device": "cpu", "threads": 1, "n": 100, "compared": 100, "val_n": 100,
              "explained": "itself"}  # fmt: skip
    fields |= {"val_accuracy": accuracy, "accuracy": 1 - accuracy}  # test scores must choose nothing
    return Rung(name, **{**fields, "latency_ms": latency, "speedup": 10 / latency, **other})


def test_which_rung_to_ship():
    int8 = {"precision": "int8", "explained": "a float twin", "above": "KD", "disk_bytes": 10}
    rungs = [
        rung("Base", 10, 0.90),
        rung("KD", 5, 0.92),
        rung("KD in another runtime", 4, 0.92, model="KD", runtime="ONNX Runtime"),
        rung("better, but not to be shipped", 6, 0.97),
        rung("good", 2, 0.918, spearman=0.97, like_first=0.2, flips=3, **int8),
        rung("looks elsewhere", 1, 0.92, spearman=0.9, **int8),
        rung("loses", 1, 0.91, spearman=0.99, **int8),
        rung("hardly scored", 1, 0.99, spearman=0.99, **{**int8, "val_n": 10}),
        rung("not run", float("nan"), float("nan"), val_n=0),
    ]
    chosen, reason = which_to_ship(rungs)
    assert chosen.name == "good" and "5 times as fast as Base" in reason and "10 times smaller" in reason
    assert "against KD (92.0%)" in reason and "8.2% right on the test images" in reason
    assert "3 of 100 answers changed" in reason and "0.97 like KD and 0.20 like Base" in reason
    assert which_to_ship(rungs, max_loss=0.02)[0].name == "loses"
    with pytest.raises(SwysError, match="no rung was measured"):
        which_to_ship(rungs[-1:])


# --- the exact rewrite ------------------------------------------------------------------------------------------


def enlarging(seed: int, img_size: int = 56, patch_size: int = 4):
    """A model that reads 28 px enlarged to 56."""
    torch.manual_seed(seed)
    built = create_model("vit_tiny", 2, img_size=img_size, patch_size=patch_size, depth=2).eval()
    torch.nn.init.normal_(built.head.weight, std=0.3)
    return built


@pytest.mark.parametrize("img_size, patch_size", [(224, 16), (84, 12), (56, 4), (56, 14)])
def test_the_rewrite_reads_native_pixels_and_gives_the_same_logits_and_maps(data, img_size, patch_size):
    wide = enlarging(0, img_size, patch_size)
    native = at_native_resolution(wide)
    images = data.test.images[:5]
    enlarged, small = to_model_input(images, img_size), to_model_input(images, 28)
    with torch.no_grad():
        assert wide(enlarged).abs().max() > 0.1
        assert (wide(enlarged) - native(small)).abs().max() < 1e-4
    expected = grad_cam(wide, enlarged, signed=True)
    assert torch.allclose(expected, grad_cam(native, small, signed=True), atol=1e-4 * float(expected.abs().max()))
    patch = 28 * patch_size // img_size
    assert native.patch_embed.grid_size == wide.patch_embed.grid_size and native.patch_embed.img_size == (28, 28)
    assert native.patch_embed.patch_size == (patch, patch)
    assert count_macs(native) == vit_macs(native.patch_embed.num_patches, 192, 2, patch + 2, classes=2)
    assert wide.patch_embed.img_size == (img_size, img_size) and not native.training


def test_the_rewrite_can_be_exported(data, tmp_path):
    pytest.importorskip("onnxruntime")
    wide = enlarging(0)
    exported = export_onnx(at_native_resolution(wide), tmp_path / "native.onnx")
    expected = predict(wide, data.test.images[:5], progress=False)
    assert np.abs(predict_onnx(exported.path, data.test.images[:5]) - expected).max() < 1e-4
    assert exported.card["input"]["shape"] == ["batch", 3, 28, 28]


@pytest.mark.parametrize("img_size, patch_size, size", [(28, 4, 28), (224, 16, 64), (56, 7, 28), (56, 8, 0)])
def test_what_cannot_be_rewritten_is_one_line(img_size, patch_size, size):
    with pytest.raises(SwysError, match=f"on {img_size} px cannot be rewritten for {size} px"):
        at_native_resolution(enlarging(0, img_size, patch_size), size)


def test_bad_input_is_one_line(data):
    with pytest.raises(SwysError, match="no steps"):
        measure_ladder([], data)
    with pytest.raises(SwysError, match="unknown variants .'fp8'."):
        measure_ladder([Step("Tiny", model(1), ("fp8",))], data)
    with pytest.raises(SwysError, match="'Tiny' has 5 classes, pneumoniamnist has 2"):
        measure_ladder([Step("Tiny", model(1, 5))], data)
