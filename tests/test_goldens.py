"""The same numbers as before the package was rebuilt: ``goldens/`` was written by the code at commit b4c9e5a
(but for the mosaics: since then a larger image is made smaller with antialiasing).

Scores, counts and summaries have to be equal; what a network computes, to 1e-5 of the largest value of an
array (the old code itself moves by up to 3e-6 when it runs with SSE or AVX2 instructions).
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.numpy import load_file

from swys_studies.agreement import summary
from swys_studies.faithfulness import deletion_insertion, mosaic_pointing
from swys_utils import training
from swys_utils.benchmark import count_macs
from swys_utils.config import CHECKPOINTS
from swys_utils.data import load_dataset, to_model_input, to_planes
from swys_utils.distillation import ExplanationDistiller, FeatureDistiller, SoftTargets, Teacher
from swys_utils.explain import agreement
from swys_utils.gradcam import METHODS, heatmaps
from swys_utils.metrics import evaluate, mcnemar
from swys_utils.models import count_parameters, create_model, load_checkpoint
from swys_utils.recipe import Augmentation, Recipe, SupervisedObjective, augment
from swys_utils.training import fit, predict

GOLDENS = Path(__file__).parent / "goldens"
NUMBERS, MAPS = json.loads((GOLDENS / "numbers.json").read_text()), load_file(GOLDENS / "maps.safetensors")
TINY, TINY_KD = "vit_tiny_patch16_224", "vit_tiny_patch16_224_kd"
PLAIN = Recipe(10, 16, 1e-3, 0.05, warmup_epochs=2, augmentation=Augmentation(), drop_path=0)


def same(new, golden):
    """Equal but for rounding."""
    np.testing.assert_allclose(new, golden, rtol=0, atol=1e-5 * np.abs(golden).max())


def fill(module, seed):
    """Trainable weights that do not depend on how a library initialises them."""
    rng = np.random.default_rng(seed)
    for name, p in sorted(pair for pair in module.named_parameters() if pair[1].requires_grad):
        values = rng.normal(0, 0.1, p.shape) + (p.ndim == 1 and name.endswith("weight"))
        p.data.copy_(torch.as_tensor(values))
    return module


def small_vit(seed, width=48, img_size=28, patch_size=4):
    shape = {"depth": 2, "embed_dim": width, "num_heads": width // 16}
    return fill(create_model(TINY, 2, img_size=img_size, patch_size=patch_size, **shape), seed).eval()


@pytest.fixture(scope="module")
def real(real_data_dir):
    return load_dataset("pneumoniamnist", root=real_data_dir, download=False)


@pytest.fixture
def twin(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))  # no ~/.medmnist
    return load_dataset("pneumoniamnist", root=tmp_path, download=False)


def test_scores_of_stored_logits(real):
    labels = real.test.labels
    for name, golden in NUMBERS["scores"].items():
        found = evaluate(MAPS[f"test/{name}"], labels, real.info.task, n_resamples=50)
        for score, value in golden.items():
            assert getattr(found, score) == pytest.approx(value, rel=1e-12), (name, score)
    right = [MAPS[f"test/{name}"].argmax(1) == labels for name in (TINY, TINY_KD)]
    assert mcnemar(*right) == NUMBERS["mcnemar"]


@pytest.mark.parametrize("name", [key.split("/")[1] for key in MAPS if key.startswith("logits/")])
def test_logits_and_maps_of_the_shipped_checkpoints(real, name):
    model, card = load_checkpoint(f"pneumoniamnist/{name}")
    inputs = to_model_input(real.test.images[:4], card["img_size"])
    same(predict(model, real.test.images[:4]), MAPS[f"logits/{name}"])
    options = {"": (), "signed": (1, -1, True), "block 6": (0, 6)}
    for key in MAPS:
        method, _, how = key.removesuffix(f"/{name}").partition(" ")
        if method in METHODS and how in options:
            same(METHODS[method](model, inputs, *options[how]), MAPS[key])
    if f"32 images/{name}" in MAPS:
        same(heatmaps(model, real.test.images[:32], "grad_cam", 1, signed=True), MAPS[f"32 images/{name}"])


def test_agreement_of_maps_and_of_the_stored_runs():
    tiny, taught = MAPS[f"32 images/{TINY}"], MAPS[f"32 images/{TINY_KD}"]
    pairs = {"tiny, kd": (tiny, taught), "other grid": (tiny[:4], MAPS["another grid"])}
    for name, golden in NUMBERS["agreement"].items():
        assert {key: value.tolist() for key, value in vars(agreement(*pairs[name])).items()} == golden
    for dataset, golden in NUMBERS["summary"].items():
        renamed = json.loads(json.dumps(golden).replace('"maps', '"soft targets + maps'))
        stored = json.loads((CHECKPOINTS / dataset / "pocket.json").read_text())
        assert [dict(row) for row in summary(stored)] == renamed


def test_maps_and_their_faithfulness_on_the_twin(twin):
    model, images, golden = small_vit(0), twin.test.images[:32], NUMBERS["faithful"]
    same(predict(model, images), MAPS["twin/logits"])
    same(heatmaps(model, images, "grad_cam"), MAPS["twin/grad_cam"])
    same(heatmaps(model, images, "grad_cam", 1, signed=True), MAPS["twin/grad_cam signed"])
    curves = deletion_insertion(model, images, MAPS["twin/grad_cam"], 1, steps=7)
    same([curves.deletion_auc, curves.insertion_auc], [golden["deletion"], golden["insertion"]])
    mosaics = mosaic_pointing(model, twin.test.images, twin.test.labels, count=32)
    same(np.nan_to_num(mosaics.share, nan=-1), golden["mosaic_share"])


@pytest.mark.parametrize("name, golden", NUMBERS["training"].items())
def test_ten_steps_of_training(twin, name, golden, monkeypatch):
    monkeypatch.setattr(training, "fast_bf16", lambda device: False)
    monkeypatch.setattr(AcceleratorState, "_shared_state", {})  # it keeps the precision of the first run
    mostly_normal = np.argsort(twin.val.labels, kind="stable")[:40]  # makes the first epoch the best one
    data = replace(twin, train=twin.train.take(np.arange(24)), val=twin.val.take(mostly_normal))
    patch, side = (7, 56) if "coarser grid" in name else (4, 28)
    student, labels = small_vit(1, 48 if "labels" in name else 32, patch_size=patch), SupervisedObjective()
    teacher = Teacher(small_vit(2, img_size=side, patch_size=patch))
    objectives = {
        "labels": labels,
        "soft targets": SoftTargets(teacher, labels, alpha=0.5, temperature=2.0),
        "features": fill(FeatureDistiller(teacher, labels, student, beta=1.0), 9),
        "explanations": ExplanationDistiller(teacher, labels, alpha=0.5, temperature=2.0, gamma=1.0),
    }
    result = fit(student, data, PLAIN, objectives[name.split(",")[0]], seed=3, device="cpu")
    same([epoch["train_loss"] for epoch in result.history], golden["loss"])
    assert [epoch["val_accuracy"] for epoch in result.history] == golden["val_accuracy"]
    same(predict(result.model, twin.test.images[:4]), golden["logits"])
    same(predict(result.chosen(), twin.test.images[:4]), golden["chosen"])


def test_views_of_chosen_draws(twin):
    rng = np.random.default_rng(4)
    draws = torch.as_tensor(rng.random((4, 9))).float()
    colour = to_planes(rng.integers(0, 256, (2, 28, 28, 3), dtype=np.uint8))
    how = Augmentation(flip=True, rotate=15, scale=0.15, shift=0.1, jitter=0.4)
    same(augment(to_planes(twin.train.images[:4]), 14, how, draws), MAPS["augment/grey"])
    same(augment(colour, 14, replace(how, turns=True, jitter=0.2), draws[:2]), MAPS["augment/colour"])


def test_counts_of_the_ladder():
    for name, golden in NUMBERS["counts"].items():
        size, patch = map(int, name.split()[1].split("/"))
        model = create_model(f"vit_{name.split()[0]}_patch16_224", 2, img_size=size, patch_size=patch)
        found = count_parameters(model), count_macs(model), sum(p.nbytes for p in model.parameters())
        assert dict(zip(("parameters", "macs", "bytes"), found)) == golden
