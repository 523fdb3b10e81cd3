"""Each of the twelve 2D sets at each of the four sizes: loaded, trained on, scored, explained, distilled."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from medmnist import INFO

from swys_utils.data import NAMES, SIZES, load_dataset
from swys_utils.distillation import ExplanationDistiller, SoftTargets, Teacher
from swys_utils.gradcam import heatmaps
from swys_utils.metrics import point_scores
from swys_utils.recipe import Recipe, SupervisedObjective
from swys_utils.training import build, fit, predict

SMALL = {"patch_size": 14, "depth": 1, "embed_dim": 48, "num_heads": 3}
RECIPE = Recipe(epochs=1, batch_size=16, warmup_epochs=0)


def draw(name: str, size: int, folder) -> None:
    """16 / 16 / 16 images of noise with MedMNIST's layout; every class or label occurs if there is room."""
    rng, facts = np.random.default_rng(0), INFO[name]
    shape = (16, size, size) if facts["n_channels"] == 1 else (16, size, size, 3)
    classes = len(facts["label"])
    labels = np.arange(16)[:, None] % classes
    if "multi-label" in facts["task"]:
        labels = rng.random((16, classes)) < 0.3
    arrays = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = rng.integers(0, 256, shape, dtype=np.uint8)
        arrays[f"{split}_labels"] = labels.astype(np.uint8)
    np.savez(folder / (f"{name}.npz" if size == 28 else f"{name}_{size}.npz"), **arrays)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_every_set_at_every_size(name, size, tmp_path, faults):
    draw(name, size, tmp_path)
    data = load_dataset(name, size, tmp_path)
    labels, classes = SupervisedObjective(data.info.multi_label), data.info.num_classes
    model = fit(build("vit_tiny", data, RECIPE, 0, **SMALL), data, RECIPE).model
    scores = point_scores(predict(model, data.test.images), data.test.labels, data.info.task)
    assert 0 <= scores["accuracy"] <= 1
    target = torch.tensor([classes - 1] * 16)  # of each label alone, where several can be true
    maps = heatmaps(model, data.test.images, targets=target)
    assert maps.shape == (16, 2, 2) and np.isfinite(maps).all()
    for objective in (SoftTargets(Teacher(model), labels), ExplanationDistiller(Teacher(model), labels)):
        student = build("vit_tiny", data, RECIPE, 1, **SMALL)
        assert np.isfinite(fit(student, data, RECIPE, objective).history[0]["train_loss"])
    faults("one of 12 sets x 4 sizes: train, score, explain, distil twice", 1)
