"""Is a heatmap true? Deletion and insertion, the pointing game on mosaics, and two baselines for both."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from scipy.integrate import trapezoid
from torch import Tensor, nn

from .config import SwysError
from .data import to_model_input
from .gradcam import heatmaps
from .vit_internals import evaluation_mode, input_batches


def random_maps(count: int, grid: tuple[int, int]) -> np.ndarray:
    """The first baseline of every faithfulness score: uniform noise (N, gh, gw)."""
    return np.random.default_rng(0).random((count, *grid), dtype=np.float32)


def centre_prior_maps(count: int, grid: tuple[int, int]) -> np.ndarray:
    """The second baseline: the same Gaussian bump in the middle for every image (N, gh, gw)."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, side) for side in grid), indexing="ij")
    return np.repeat(np.exp(-2 * (x**2 + y**2), dtype=np.float32)[None], count, axis=0)


@dataclass(frozen=True)
class DeletionInsertion:
    """Curves (N, steps + 1) of the target's probability over ``fractions`` of tokens."""

    fractions: np.ndarray
    deletion: np.ndarray
    insertion: np.ndarray

    @property
    def gap(self) -> np.ndarray:
        """Area between both (N,): 0 for an order that says nothing, higher is more faithful."""
        return trapezoid(self.insertion - self.deletion, self.fractions, axis=1)


def deletion_insertion(
    model: nn.Module,
    images,
    maps: np.ndarray,
    targets=None,
    steps=14,
    multi_label=False,
) -> DeletionInsertion:
    """Take away the hottest tokens first (deletion), or start from nothing and put them in first (insertion).

    Petsiuk et al. 2018 (RISE), in whole patches: half a patch would be a new edge, and a new edge is evidence
    too. What stands in for a missing patch is the blurred image (Gaussian, sigma one patch).

    Args:
        images, targets: as in ``heatmaps``; targets=None is the class predicted on the whole image.
        maps: (N, gh, gw). Ties, so also a whole empty map, are put in random order.
        steps: so many equal steps from no token to all. Each costs two forward passes.
        multi_label: the model's labels are not exclusive, so a probability is a sigmoid, not a softmax.
    """
    rng = np.random.default_rng(0)
    order = np.stack([np.lexsort((rng.random(m.size), -m.ravel())) for m in maps])
    ranks = torch.as_tensor(order.argsort(axis=1).reshape(maps.shape))[
        :, None
    ]  # 0 is the hottest token
    targets = None if targets is None else torch.as_tensor(targets).long().expand(len(maps))
    fractions = np.linspace(0, 1, steps + 1)
    curves = np.empty((2, len(maps), steps + 1))
    chances = torch.sigmoid if multi_label else partial(torch.softmax, dim=1)
    with evaluation_mode(model), torch.no_grad():
        for rows, x in input_batches(model, images, 32):
            blank = blurred(x, x.shape[-1] // maps.shape[-1])
            classes = model(x).argmax(dim=1) if targets is None else targets[rows].to(x.device)
            for i, fraction in enumerate(fractions):
                hot = (ranks[rows] < round(fraction * order.shape[1])).float().to(x.device)
                hot = F.interpolate(hot, size=x.shape[-2:]).bool()  # whole patches
                for curve, picture in zip(
                    curves, (torch.where(hot, blank, x), torch.where(hot, x, blank))
                ):
                    curve[rows, i] = (
                        chances(model(picture).float()).gather(1, classes[:, None])[:, 0].cpu()
                    )
    return DeletionInsertion(fractions, *curves)


def make_mosaics(model: nn.Module, images: np.ndarray, labels: np.ndarray, count: int = 100):
    """2 x 2 mosaics of uint8 images: one of the target class, three of others, at half the model's side S.

    Returns inputs float32 (count, 3, S, S); target classes (count,), each class in turn; the cell (count,)
    that holds it: 0 1 over 2 3. Raises SwysError for several labels an image, or labels of one class only.
    """
    labels, half = np.asarray(labels), model.patch_embed.img_size[0] // 2
    if labels.ndim != 1 or len(np.unique(labels)) < 2:
        raise SwysError(
            f"labels of shape {labels.shape}; give one label an image, and two classes or more"
        )
    targets, rng = np.resize(np.unique(labels), count), np.random.default_rng(0)
    cells = rng.integers(0, 4, count)
    picks = np.stack([rng.choice(np.flatnonzero(labels != t), 4) for t in targets])
    picks[np.arange(count), cells] = [rng.choice(np.flatnonzero(labels == t)) for t in targets]
    tiles = to_model_input(np.asarray(images)[picks.ravel()], half)
    tiles = tiles.reshape(count, 2, 2, 3, half, half).permute(0, 3, 1, 4, 2, 5)
    return tiles.reshape(count, 3, 2 * half, 2 * half), targets, cells


def mosaic_pointing(
    model: nn.Module, images: np.ndarray, labels: np.ndarray, method="grad_cam", count=100
) -> np.ndarray:
    """Share of the positive map for a class that lies on the image of that class in a mosaic, float (count,).

    Chance is 0.25; an empty map has nan. The grid pointing game of Boehle et al. 2021.
    """
    inputs, targets, cells = make_mosaics(model, images, labels, count)
    maps = np.maximum(heatmaps(model, inputs, method, targets), 0)
    maps = maps.repeat(2, axis=1).repeat(
        2, axis=2
    )  # an odd grid has no middle line; doubled, it has one
    quarters = maps.reshape(count, 2, maps.shape[1] // 2, 2, maps.shape[2] // 2)
    sums = quarters.sum((2, 4)).reshape(count, 4)
    return sums[np.arange(count), cells] / np.where(sums.any(1), sums.sum(1), np.nan)


def blurred(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (B, 3, H, W), one axis at a time, edges repeated; ``sigma`` in px."""
    reach = int(2 * sigma)
    offsets = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, 1, -1)
    for _ in range(2):
        x = F.pad(x, (reach, reach, 0, 0), mode="replicate")
        x = F.conv2d(x, kernel, groups=x.shape[1]).transpose(2, 3)
    return x
