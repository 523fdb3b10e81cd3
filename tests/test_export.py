"""An exported file says what its model says, its card is enough to use it; so does every rung."""

import json
import warnings
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from small import vit

from swys_studies import export, ladder
from swys_studies.closed_form import WithGradCAM
from swys_utils.config import SwysError
from swys_utils.data import load_dataset
from swys_utils.explain import agreement
from swys_utils.gradcam import heatmaps
from swys_utils.metrics import evaluate
from swys_utils.models import file_entry, save_checkpoint
from swys_utils.training import predict

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
SMALL = vit(3, noise=0.05, img_size=32, patch_size=8, embed_dim=192)  # logits near zero would hide mistakes
TINY = vit(seed=1, noise=0.05, embed_dim=192, patch_size=7)
MODELS = {"Base": vit(noise=0.05, embed_dim=192, img_size=56), "Tiny": TINY}


def without_torch(path, images):
    """What a user writes who has only NumPy and ONNX Runtime, from what the card says of the input."""
    size, side = json.loads(path.with_suffix(".json").read_text())["input"]["shape"][-1], images.shape[1]
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
        np.testing.assert_allclose(export.predict_onnx(path, IMAGES[:n])[0], expected[:n], rtol=0, atol=1e-4)
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
    for call, message in ((export.onnx_session, "cannot be run"), (export.read_onnx_card, "not the file")):
        with pytest.raises(SwysError, match=message):
            call(tmp_path / "x.onnx")
    average = {"global_pool": "avg", "class_token": False}
    for options in (average, {"init_values": 0.5}, {"act_layer": "relu"}):
        with pytest.raises(SwysError, match="from its CLS token"):
            WithGradCAM(vit(**options))
    for models in ({}, {"Tiny": vit(5)}):
        with pytest.raises(SwysError, match="give models of pneumoniamnist"):
            ladder.shrink_ladder(models, data)


@pytest.fixture(scope="module")
def data(drawn_data_dir):
    return load_dataset("pneumoniamnist", root=drawn_data_dir)


@pytest.fixture(scope="module")
def rungs(data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ladder, "fast_bf16", lambda device: True)
        found = ladder.shrink_ladder(MODELS, data, images=40, explain_images=6, rounds=2)
    return {rung.name: rung for rung in found}


def test_the_rungs_and_those_above_them(rungs):
    base, tiny = ["Base fp32", "Base bf16"], ["Tiny fp32"]
    assert [*rungs] == base + tiny + ["Tiny fp32, ONNX Runtime", "Tiny int8, ONNX Runtime"]
    first, second = rungs["Base fp32"], rungs["Tiny fp32"]
    assert (first.speedup, *first.speedup_interval, round(first.like_first, 5)) == (1, 1, 1, 1)
    assert second.like_above == second.like_first < 0.8  # untrained models
    table = ladder.ladder_table(rungs.values())
    assert [row["rung"] for row in table] == [*rungs] and table[3]["flips"] == "0 of 40"


def test_scores_are_those_of_evaluate_and_a_runtime_or_number_format_changes_little(rungs, data):
    test, val, rung = data.test.head(40), data.val.head(40), rungs["Tiny fp32"]
    expected = evaluate(predict(TINY, test.images), test.labels, data.info.task, n_resamples=2)
    assert (rung.n, rung.flips, rung.accuracy_interval) == (40, 0, expected.accuracy_interval)
    assert [rung.accuracy, rung.auc] == pytest.approx([expected.accuracy, expected.auc], abs=1e-5)
    assert rung.val_accuracy == (predict(TINY, val.images).argmax(axis=1) == val.labels).mean()
    same = rungs["Tiny fp32, ONNX Runtime"]
    assert same.flips == 0 and same.like_above > 0.9999
    for name, whole, share in (("Base bf16", "Base", 0.51), ("Tiny int8, ONNX Runtime", "Tiny", 0.42)):
        found, exact = rungs[name], rungs[f"{whole} fp32"]
        assert 0.5 < found.like_above <= 1 and found.flips < 10 and found.bytes < share * exact.bytes


def test_which_rung_to_ship(rungs):
    def rung(name, latency, validated, alike=1.0, trained="KD"):
        facts = {"latency_ms": latency, "speedup": 10 / latency, "n": 100, "accuracy": 1 - validated}
        facts |= {"val_accuracy": validated, "like_above": alike, "flips": 3}
        return replace(rungs["Tiny fp32"], name=name, model=trained, **facts)

    made = [rung("Base", 10, 0.90, trained="Base"), rung("KD", 5, 0.92), rung("good", 2, 0.918, 0.97)]
    made += [rung("looks elsewhere", 1, 0.92, 0.9), rung("loses", 1, 0.91, 0.99)]
    chosen, reason = ladder.which_to_ship(made)
    assert chosen.name == "good" and "5 times as fast as Base" in reason and "against KD (92.0%)" in reason
    assert "right on 8.2% of 100 test images" in reason and "changed 3 answers" in reason
    assert ladder.which_to_ship(made, max_loss=0.02)[0].name == "loses"
