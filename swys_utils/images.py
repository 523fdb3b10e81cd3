"""From stored images to batches of random views, drawn and computed on the training device."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .data import Dataset, to_model_input, to_planes


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

    Returns:
        float (B, C, S, S) in [-1, 1], computed on the device of ``planes``.
    """
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


class Batch(NamedTuple):
    """What an objective sees: inputs float (B, 3, S, S), targets float (B, C) (a row of zeros: no label), and which
    images (rows of the training split, int64 (B,)) in which of the recipe's views these are."""

    inputs: Tensor
    targets: Tensor
    rows: Tensor
    view: int


def batches(
    data: Dataset,
    epoch: int,
    how: Augmentation,
    views: int = 0,
    batch_size: int = 128,
    img_size: int = 28,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Iterator[Batch]:
    """The training split once, in an order and in views that follow from (seed, epoch).

    Small sets lie on the device as uint8 while this runs; memory-mapped ones stay on disk and travel by batch.

    Args:
        views: 0 draws new views each epoch; V shows view ``epoch % V``, which is the same for every seed.
        batch_size: images a batch; what is left over at the end of the epoch is not shown.
    """
    labels, on_disk = torch.as_tensor(data.train.labels), isinstance(data.train.images, np.memmap)
    images = data.train.images if on_disk else torch.as_tensor(data.train.images).to(device)
    order = torch.as_tensor(np.random.default_rng([seed, epoch]).permutation(len(labels)))
    view = epoch % views if views else epoch
    generator = torch.Generator().manual_seed(view if views else 1_000_003 * seed + epoch)
    draws = how.draw(len(labels), generator)
    for rows in order[: len(order) // batch_size * batch_size].split(batch_size):
        pixels = images[rows.numpy()] if on_disk else images[rows.to(device)]
        if how == Augmentation():
            inputs = to_model_input(pixels, img_size, device)
        else:
            inputs = augment(to_planes(pixels, device), img_size, how, draws[rows]).expand(-1, 3, -1, -1)
        yield Batch(inputs, one_hot(labels[rows], data.info.num_classes).to(device), rows, view)


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """int64 (B,) to float (B, C), where -1 (no label) is a row of zeros; multi-label (B, L) stays as it is."""
    if labels.ndim == 2:
        return labels.float()
    return (labels[:, None] == torch.arange(num_classes, device=labels.device)).float()
