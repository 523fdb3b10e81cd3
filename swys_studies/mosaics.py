"""The pointing game on mosaics: does a map for a class point at the image of that class?"""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from swys_utils.config import SwysError
from swys_utils.data import to_model_input
from swys_utils.gradcam import MapFunction, heatmaps


def make_mosaics(
    model: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    count: int = 100,
) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Put four images together, 2 x 2: one of the target class and three of other classes.

    Args:
        model: a timm ViT, which sets the side S of a mosaic; an image in it has half of it.
        images: uint8 (N, H, W) or (N, H, W, 3).
        labels: int (N,), the class of each image.
        count: number of mosaics.

    Returns:
        Model input, float32 (count, 3, S, S); the target classes, int (count,), each class in turn;
        and the cell that holds the target, int (count,), numbered 0 1 over 2 3.

    Raises:
        SwysError: several labels per image, or all images of one class.
    """
    labels = np.asarray(labels)
    classes = np.unique(labels)
    if labels.ndim != 1 or len(classes) < 2:
        shown = f"labels of shape {labels.shape}"
        raise SwysError(f"{shown}; give one label an image, and two classes or more")
    targets = np.resize(classes, count)
    rng = np.random.default_rng(0)
    cells = rng.integers(0, 4, count)
    indices = np.empty((count, 4), dtype=np.int64)
    for mosaic, target in enumerate(targets):
        others = np.flatnonzero(labels != target)
        indices[mosaic] = rng.choice(others, 4)
    for mosaic, target in enumerate(targets):
        cell = cells[mosaic]
        members = np.flatnonzero(labels == target)
        indices[mosaic, cell] = rng.choice(members)

    side = model.patch_embed.img_size[0]
    half = (side + 1) // 2
    images = np.asarray(images)
    chosen = images[indices.ravel()]
    tiles = to_model_input(chosen, half)
    tiles = tiles.reshape(count, 2, 2, 3, half, half)  # mosaic, row, column, channel, y, x
    tiles = tiles.permute(0, 3, 1, 4, 2, 5)  # mosaic, channel, row, y, column, x
    mosaics = tiles.reshape(count, 3, 2 * half, 2 * half)
    return mosaics[:, :, :side, :side], targets, cells


def mosaic_pointing(
    model: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    method: str | MapFunction = "grad_cam",
    count: int = 100,
) -> np.ndarray:
    """The grid pointing game of Boehle et al. 2021: does a map point at the image of its class?

    Args:
        model: any plain timm VisionTransformer.
        images: uint8 (N, H, W) or (N, H, W, 3), of which ``make_mosaics`` makes mosaics.
        labels: int (N,), the class of each image.
        method: as for ``heatmaps``.
        count: number of mosaics.

    Returns:
        Share of the positive map for a class that lies on the image of that class, float (count,):
        0.25 by chance, nan for an empty map.

    Raises:
        SwysError: as ``make_mosaics`` does.
    """
    inputs, targets, cells = make_mosaics(model, images, labels, count)
    maps = heatmaps(model, inputs, method, targets)
    maps = np.maximum(maps, 0)
    height, width = maps.shape[1:]
    # Each value twice, because a grid with an odd side has no line in the middle to cut it at.
    maps = maps.repeat(2, axis=1)
    maps = maps.repeat(2, axis=2)
    quarters = maps.reshape(count, 2, height, 2, width)
    sums = quarters.sum(axis=(2, 4))
    sums = sums.reshape(count, 4)
    mosaics = np.arange(count)
    of_target = sums[mosaics, cells]
    whole = sums.sum(axis=1)
    whole[whole == 0] = np.nan
    return of_target / whole
