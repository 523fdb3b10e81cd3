"""What decides a training run: random views of the images, their order, learning rate, loss on labels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .data import Dataset, to_planes


@dataclass(frozen=True)
class Augmentation:
    """How far a random view may differ from its image; the default is no difference.

    Attributes:
        flip: mirror left-right with probability 1/2. turns: also by multiples of 90 degrees.
        rotate: degrees, scale: relative, shift: share of the side; each uniform in +- the value.
        jitter: +- brightness, contrast and (colour images) saturation, relative.
    """

    flip: bool = False
    turns: bool = False
    rotate: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    jitter: float = 0.0

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """The random numbers behind ``n`` views, float32 (n, 9) in [0, 1), on the CPU."""
        return torch.rand(n, 9, generator=generator)


def augment(planes: Tensor, img_size: int, how: Augmentation, draws: Tensor) -> Tensor:
    """One view of each image; mirroring, turning, scaling, shifting and resizing are one affine map.

    Args:
        planes: float (B, C, H, W) in [-1, 1]. img_size: side S of the views, px.
        draws: (B, 9) in [0, 1), from ``how.draw``; the same numbers give the same views.

    Returns float (B, C, S, S) in [-1, 1], computed on the device of ``planes``.
    """
    if planes.shape[-1] > img_size:  # as in to_model_input
        planes = F.interpolate(planes, size=(img_size, img_size), mode="bilinear", antialias=True)
    u = draws.to(planes.device).T
    even = u * 2 - 1  # uniform in [-1, 1)
    angle = even[0] * math.radians(how.rotate)
    if how.turns:
        angle = angle + (u[1] * 4).floor() * (math.pi / 2)
    size = 1 + even[2] * how.scale
    mirror = torch.where(u[3] < 0.5, -1.0, 1.0) if how.flip else torch.ones_like(u[3])
    cos, sin = torch.cos(angle) * size, torch.sin(angle) * size
    row_x = torch.stack([cos * mirror, -sin, even[4] * 2 * how.shift], dim=1)
    row_y = torch.stack([sin * mirror, cos, even[5] * 2 * how.shift], dim=1)
    theta = torch.stack([row_x, row_y], dim=1)  # (B, 2, 3)
    grid = F.affine_grid(theta, [*planes.shape[:2], img_size, img_size], align_corners=False)
    views = F.grid_sample(planes, grid, mode="bilinear", padding_mode="border", align_corners=False)
    if not how.jitter:
        return views
    brightness, contrast, saturation = (1 + even[6:] * how.jitter)[..., None, None, None]
    views = (views + 1) * brightness - 1  # black stays black
    mean = views.mean(dim=(1, 2, 3), keepdim=True)
    views = (views - mean) * contrast + mean
    if views.shape[1] == 3:
        grey = views.mean(dim=1, keepdim=True)
        views = (views - grey) * saturation + grey
    return views.clamp(-1, 1)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run, apart from the seed.

    Attributes:
        epochs, batch_size, lr, weight_decay: of AdamW (Loshchilov & Hutter 2019); lr is the peak.
        warmup_epochs: linear rise of the learning rate; then half a cosine down to 0.
        augmentation: the random views. views: so many different ones of each image, shown in turn and the
            same in every run, so that a teacher can look at them beforehand; 0 draws new ones each epoch.
        drop_path: stochastic depth of the last block, rising linearly from 0 (Huang et al. 2016).
        patch_drop: share of the patch tokens left out at random (PatchDropout, Liu et al. 2023), which saves
            as much of the time, but for the last ``full_tokens`` of the epochs.
        seconds: squeeze the schedule into so many seconds of training, whatever ``epochs`` says; 0 is off.
    """

    epochs: int = 60
    batch_size: int = 128
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup_epochs: float = 5
    augmentation: Augmentation = Augmentation(
        flip=True, rotate=15, scale=0.15, shift=0.1, jitter=0.2
    )
    views: int = 0
    drop_path: float = 0.05
    patch_drop: float = 0.0
    full_tokens: float = 0.2
    seconds: float = 0.0


TURNED = (
    "bloodmnist",
    "pathmnist",
    "dermamnist",
    "tissuemnist",
)  # cells and tissue have no up or down


def reference_recipe(model_name: str, dataset_name: str = "pneumoniamnist") -> Recipe:
    """The recipe of the shipped runs; images without an up and down are also turned."""
    recipe = Recipe(epochs=30, batch_size=64, patch_drop=0.5, views=8)
    if "base" in model_name:
        recipe = replace(recipe, epochs=12, lr=3e-4, full_tokens=0.1)
    if dataset_name in TURNED:
        recipe = replace(recipe, augmentation=replace(recipe.augmentation, turns=True))
    return recipe


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int, seconds: float = 0.0) -> float:
    """The rate of the next step, after ``step`` steps and ``seconds`` of training."""
    total = recipe.epochs * steps_per_epoch
    done = min(1.0, seconds / recipe.seconds) if recipe.seconds else step / total
    warmup = min(recipe.warmup_epochs / recipe.epochs, 0.2)
    if done < warmup:
        return recipe.lr * (done + 1 / total) / (warmup + 1 / total)
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))


class Batch(NamedTuple):
    """What an objective sees: inputs float (B, 3, S, S), targets float (B, C) (a row of zeros: no label),
    and which images (rows of the training split, int64 (B,)) in which of the recipe's views these are."""

    inputs: Tensor
    targets: Tensor
    indices: Tensor
    view: int


def batches(
    data: Dataset, epoch: int, recipe: Recipe, img_size=28, seed=0, device="cpu"
) -> Iterator[Batch]:
    """The training split once; its order follows from (seed, epoch), and so do views that are not fixed.

    Memory-mapped images stay on disk, others lie on the device. A last batch that is not full is left out.
    """
    labels, on_disk = torch.as_tensor(data.train.labels), isinstance(data.train.images, np.memmap)
    images = data.train.images if on_disk else torch.as_tensor(data.train.images).to(device)
    order = torch.as_tensor(np.random.default_rng([seed, epoch]).permutation(len(labels)))
    how, size = recipe.augmentation, min(recipe.batch_size, len(labels))
    view = epoch % recipe.views if recipe.views else epoch
    generator = torch.Generator().manual_seed(view if recipe.views else 1_000_003 * seed + epoch)
    draws = how.draw(len(labels), generator)
    for rows in order[: len(order) // size * size].split(size):
        pixels = images[rows.numpy()] if on_disk else images[rows.to(device)]
        inputs = augment(to_planes(pixels, device), img_size, how, draws[rows]).expand(
            -1, 3, -1, -1
        )
        yield Batch(inputs, one_hot(labels[rows], data.info.num_classes).to(device), rows, view)


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """int64 (B,) to float (B, C), where -1 (no label) is a row of zeros; multi-label (B, L) stays."""
    if labels.ndim == 2:
        return labels.float()
    return (labels[:, None] == torch.arange(num_classes, device=labels.device)).float()


class SupervisedObjective(nn.Module):
    """Cross-entropy with the labels; binary cross-entropy for each label where several can be true. An
    objective is called as ``objective(model, batch)`` and returns a scalar loss."""

    def __init__(self, multi_label: bool = False):
        super().__init__()
        self.multi_label = multi_label

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Of logits and targets, both (B, C), in float32: bfloat16 rounds small differences away."""
        kind = F.binary_cross_entropy_with_logits if self.multi_label else F.cross_entropy
        return kind(logits.float(), targets)

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        """The loss of ``model`` on ``batch``."""
        return self.loss(model(batch.inputs), batch.targets)
