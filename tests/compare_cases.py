"""Small models and images for the tests of ``swys compare``."""

from __future__ import annotations

import numpy as np
import torch
from small import vit
from torch import nn

from swys.comparison import Effort
from swys.opened_models import OpenedModel, opened_vit

SIDE = 28
CLASSES = 3
NAMES = ("left", "middle", "right")
QUICK = Effort(maps=128, occlusions=64, shown=6, seconds=0)
FEW = Effort(maps=4, occlusions=2, shown=4, seconds=0)


def images_of(labels: np.ndarray, side: int = SIDE, seed: int = 0) -> np.ndarray:
    """Noise, with a bright stripe where the class is; uint8 (N, side, side)."""
    rng = np.random.default_rng(seed)
    images = rng.integers(40, 120, (len(labels), side, side))
    width = side // CLASSES
    for image, label in zip(images, labels):
        image[:, label * width : (label + 1) * width] += 100
    return images.astype(np.uint8)


def labels_of(count: int) -> np.ndarray:
    return np.arange(count) % CLASSES


def brightest(images: np.ndarray) -> np.ndarray:
    """A function that answers right: how bright each third of an image is, (N, 3)."""
    grey = images if images.ndim == 3 else images.mean(axis=3)
    width = images.shape[2] // CLASSES
    thirds = [grey[:, :, k * width : (k + 1) * width].mean(axis=(1, 2)) for k in range(CLASSES)]
    return np.stack(thirds, axis=1) / 10


def in_another_order(images: np.ndarray) -> np.ndarray:
    """The same answers, with the classes in another order."""
    return brightest(images)[:, [1, 2, 0]]


def random_vit(seed: int = 0, name: str = "A") -> OpenedModel:
    """A two-block ViT with spread weights, whose 49 patches are 4 px wide."""
    model = vit(classes=CLASSES, seed=seed, noise=0.1, patch_size=4)
    return opened_vit(model, name, num_classes=CLASSES)


def shuffled_vit(seed: int = 0) -> OpenedModel:
    """The model of ``random_vit`` with the values of each weight in another order."""
    model = vit(classes=CLASSES, seed=seed, noise=0.1, patch_size=4)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            order = torch.randperm(weight.numel(), generator=generator)
            weight.copy_(weight.flatten()[order].reshape(weight.shape))
    return opened_vit(model, "B", num_classes=CLASSES)


def mostly_right(model: OpenedModel, images: np.ndarray) -> np.ndarray:
    """Labels for which a model is right on nine images of ten."""
    labels = model.scores(images).argmax(axis=1)
    labels[::10] = (labels[::10] + 1) % CLASSES
    return labels


class SmallCNN(nn.Module):
    """Two convolutions, a mean, a linear layer."""

    def __init__(self, classes: int = CLASSES, channels: int = 3):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(channels, 4, 3, stride=2, padding=1)
        self.last = nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.fc = nn.Linear(8, classes)

    def forward(self, pixels):
        features = self.last(self.first(pixels).relu()).relu()
        return self.fc(features.mean(dim=(2, 3)))
