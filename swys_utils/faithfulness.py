"""Is a heatmap true? Deletion and insertion, and two baselines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.integrate import trapezoid
from torch import Tensor, nn

from .config import SwysError
from .gradcam import Targets
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
