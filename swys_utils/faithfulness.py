"""Is a heatmap true? Deletion and insertion, the pointing game on mosaics, and two baselines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.integrate import trapezoid
from torch import Tensor, nn

from .config import SwysError
from .data import to_model_input
from .gradcam import MapFunction, Targets, heatmaps
from .occlusion import blurred
from .training import predict
from .vit_internals import evaluation_mode, explained_classes, input_batches

BATCH_SIZE = 32  # images in one forward pass


def random_maps(count: int, grid: tuple[int, int]) -> np.ndarray:
    """The first baseline of every faithfulness score: uniform noise, the same in each call.

    Args:
        count: number of maps N.
        grid: height and width of a map.

    Returns:
        float32 (N, gh, gw) in [0, 1).
    """
    rng = np.random.default_rng(0)
    return rng.random((count, *grid), dtype=np.float32)


def centre_prior_maps(count: int, grid: tuple[int, int]) -> np.ndarray:
    """The second baseline: the same Gaussian bump in the middle for every image.

    Args:
        count: number of maps N.
        grid: height and width of a map.

    Returns:
        float32 (N, gh, gw) in (0, 1].
    """
    height, width = grid
    y = np.linspace(-1, 1, height)
    x = np.linspace(-1, 1, width)
    squared_distance = x**2 + y[:, None] ** 2
    bump = np.exp(-2 * squared_distance, dtype=np.float32)
    return np.repeat(bump[None], count, axis=0)


@dataclass(frozen=True)
class DeletionInsertion:
    """How the probability of the target changes while tokens are taken away or put in.

    Attributes:
        fractions: share of the tokens that are taken away or put in, float (steps + 1,).
        deletion: probability without the hottest of them, float (N, steps + 1).
        insertion: probability with only the hottest of them, float (N, steps + 1).
    """

    fractions: np.ndarray
    deletion: np.ndarray
    insertion: np.ndarray

    @property
    def gap(self) -> np.ndarray:
        """Area between both curves, float (N,); 0 for a random order, and higher is better."""
        difference = self.insertion - self.deletion
        return trapezoid(difference, self.fractions, axis=1)


def deletion_insertion(
    model: nn.Module,
    images: np.ndarray | Tensor,
    maps: np.ndarray,
    targets: Targets = None,
    steps: int = 14,
    multi_label: bool = False,
) -> DeletionInsertion:
    """Take away tokens, the hottest first (deletion), or put them into nothing (insertion).

    Petsiuk et al. 2018 (RISE), in whole patches: half a patch would be a new edge, and a new edge
    is evidence too. What stands in for a missing patch is the blurred image (Gaussian, sigma one
    patch).

    Args:
        model: a timm ViT.
        images: as for ``heatmaps``.
        maps: (N, gh, gw). Equal values, and so all of an empty map, get a random order.
        targets: as for ``heatmaps``; None for the class that is predicted on the whole image.
        steps: number of equal steps from no token to all; each costs two forward passes.
        multi_label: the model's labels are not exclusive, so a probability is a sigmoid of its
            logit, not a softmax.

    Returns:
        Both curves of each image.

    Raises:
        SwysError: no image, another number of maps, or targets that do not fit.
    """
    count = len(images)
    _refuse_other_number(maps, count)
    width = maps.shape[2]
    tokens = maps[0].size
    ranks = _ranks(maps)
    numbers = np.linspace(0, tokens, steps + 1).round()  # of tokens, step by step
    deletion = np.empty((count, steps + 1))
    insertion = np.empty((count, steps + 1))
    classes = _classes(model, images, targets)
    with evaluation_mode(model), torch.no_grad():
        for batch, x in input_batches(model, images, BATCH_SIZE):
            batch_classes = classes[batch].to(x.device)
            patch = x.shape[-1] // width
            blank = blurred(x, sigma=patch)
            for step, number in enumerate(numbers):
                hottest = _pixels(ranks[batch] < number, x)
                without = torch.where(hottest, blank, x)
                alone = torch.where(hottest, x, blank)
                deletion[batch, step] = _probability(model, without, batch_classes, multi_label)
                insertion[batch, step] = _probability(model, alone, batch_classes, multi_label)
    return DeletionInsertion(numbers / tokens, deletion, insertion)


def _refuse_other_number(maps: np.ndarray, count: int) -> None:
    """Raise a SwysError where there is no image, or another number of maps."""
    if not count or len(maps) != count:
        raise SwysError(f"{len(maps)} maps for {count} images; give one each")


def _classes(model: nn.Module, images: np.ndarray, targets: Targets) -> Tensor:
    """The class of each image, int64 (N,): the given ones, or those that are predicted."""
    if targets is None:
        return torch.as_tensor(predict(model, images, BATCH_SIZE)).argmax(dim=1)
    return explained_classes(torch.zeros(len(images), model.num_classes), targets)


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


def _ranks(maps: np.ndarray) -> Tensor:
    """Rank of each value in its map (N, gh, gw): 0 is the hottest, ties are in random order."""
    coldness = -maps.reshape(len(maps), -1)
    tie_breaker = np.random.default_rng(0).random(coldness.shape)
    order = np.lexsort((tie_breaker, coldness), axis=1)
    ranks = order.argsort(axis=1)
    return torch.as_tensor(ranks.reshape(maps.shape))


def _pixels(tokens: Tensor, x: Tensor) -> Tensor:
    """Which pixels of ``x`` lie in the marked tokens: bool (B, gh, gw) as bool (B, 1, H, W)."""
    marked = tokens[:, None].to(x.device)
    pixels = F.interpolate(marked.float(), size=x.shape[-2:])
    return pixels.bool()


def _probability(
    model: nn.Module,
    x: Tensor,
    classes: Tensor,
    multi_label: bool,
) -> np.ndarray:
    """Probability of one class for each image, float (B,)."""
    logits = model(x).float()
    probabilities = logits.sigmoid() if multi_label else logits.softmax(dim=1)
    chosen = probabilities.gather(1, classes[:, None])
    return chosen[:, 0].cpu().numpy()
