"""Measuring explanations: is a heatmap faithful, does it depend on the model, do two models look alike?

Results keep one value an image (nan where it has none); ``metrics.mean_interval`` makes means of them. Models
are timm ViTs as in ``gradcam``; scores are softmax probabilities.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.integrate import trapezoid
from scipy.stats import rankdata
from timm.models.vision_transformer import init_weights_vit_timm
from torch import Tensor, nn

from .config import SwysError
from .data import to_model_input
from .gradcam import evaluation_mode, heatmaps, input_batches
from .training import predict


@dataclass(frozen=True)
class Agreement:
    """Per image: Spearman correlation of two maps and overlap (IoU) of their strongest tokens, float (N,)."""

    spearman: np.ndarray
    iou: np.ndarray

    @property
    def undefined(self) -> int:
        """Images on which a map is constant (most often: empty), so that nothing can be compared."""
        return int(np.isnan(self.spearman).sum())


def agreement(maps_a: np.ndarray, maps_b: np.ndarray, top: float = 0.2) -> Agreement:
    """Compare the maps of two models image by image.

    Args:
        maps_a, maps_b: (N, gh, gw) of the same images, or SwysError. Ranks use every value: give signed maps,
            or the zeros that ReLU leaves are one large tie. Of two grids the finer is averaged down.
        top: share of tokens that counts as "where the model looks"; tied lowest values never count.
    """
    a, b = (torch.as_tensor(maps).float() for maps in (maps_a, maps_b))
    if len(a) != len(b):
        raise SwysError(f"{len(a)} maps against {len(b)}; give maps of the same images in the same order")
    grid = tuple(min(sides) for sides in zip(a.shape[1:], b.shape[1:]))
    a, b = (F.adaptive_avg_pool2d(maps, grid).flatten(1).numpy() for maps in (a, b))
    spearman, in_a, in_b = _rank_correlation(a, b), _strongest(a, top), _strongest(b, top)
    iou = (in_a & in_b).sum(1) / np.maximum((in_a | in_b).sum(1), 1)
    return Agreement(spearman, np.where(np.isnan(spearman), np.nan, iou))


def shuffled(maps: np.ndarray, seed: int = 0) -> np.ndarray:
    """The same maps (N, gh, gw), each with another image's: one random cycle, so that none stays."""
    order = np.random.default_rng(seed).permutation(len(maps))
    partner = np.empty(len(maps), int)
    partner[order] = np.roll(order, 1)
    return np.asarray(maps)[partner]


def random_maps(count: int, grid: tuple[int, int], seed: int = 0) -> np.ndarray:
    """The first baseline of every faithfulness score: uniform noise (N, gh, gw)."""
    return np.random.default_rng(seed).random((count, *grid), dtype=np.float32)


def centre_prior_maps(count: int, grid: tuple[int, int]) -> np.ndarray:
    """The second baseline: the same Gaussian bump in the middle for every image (N, gh, gw)."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, side) for side in grid), indexing="ij")
    return np.repeat(np.exp(-2 * (x**2 + y**2), dtype=np.float32)[None], count, axis=0)


@dataclass(frozen=True)
class DeletionInsertion:
    """Curves (N, steps + 1) of the target's probability over ``fractions`` of tokens; their areas (N,)."""

    fractions: np.ndarray
    deletion: np.ndarray
    insertion: np.ndarray
    deletion_auc: np.ndarray
    insertion_auc: np.ndarray

    @property
    def gap(self) -> np.ndarray:
        """Insertion minus deletion: 0 for an order that says nothing, higher is more faithful."""
        return self.insertion_auc - self.deletion_auc


def deletion_insertion(
    model: nn.Module, images, maps: np.ndarray, targets=None, steps=14, batch_size=32, seed=0
) -> DeletionInsertion:
    """Take away the hottest tokens first (deletion), or start from nothing and put them in first (insertion).

    Petsiuk et al. 2018 (RISE), in whole patches: half a patch would be a new edge, and a new edge is evidence
    too. What stands in for a missing patch is the blurred image (Gaussian, sigma one patch).

    Args:
        images, targets: as in ``heatmaps``; targets=None is the class predicted on the whole image.
        maps: (N, gh, gw). Ties, so also a whole empty map, are put in random order.
        steps: so many equal steps from no token to all. Each costs two forward passes.
    """
    rng = np.random.default_rng(seed)
    order = np.stack([np.lexsort((rng.random(m.size), -m.ravel())) for m in maps])
    ranks = torch.as_tensor(order.argsort(axis=1).reshape(maps.shape))[:, None]  # 0 is the hottest token
    targets = None if targets is None else torch.as_tensor(targets).long().expand(len(maps))
    fractions = np.linspace(0, 1, steps + 1)
    curves = np.empty((2, len(maps), steps + 1))
    with evaluation_mode(model), torch.no_grad():
        for rows, x in input_batches(model, images, batch_size):
            blank = blurred(x, x.shape[-1] // maps.shape[-1])
            classes = model(x).argmax(dim=1) if targets is None else targets[rows].to(x.device)
            for i, fraction in enumerate(fractions):
                hot = (ranks[rows] < round(fraction * order.shape[1])).float().to(x.device)
                hot = F.interpolate(hot, size=x.shape[-2:]).bool()  # whole patches
                for curve, picture in zip(curves, (torch.where(hot, blank, x), torch.where(hot, x, blank))):
                    curve[rows, i] = model(picture).float().softmax(1).gather(1, classes[:, None])[:, 0].cpu()
    return DeletionInsertion(fractions, *curves, *trapezoid(curves, fractions, axis=2))


@dataclass(frozen=True)
class Mosaics:
    """Per mosaic: share of the positive map in the target's cell (chance 0.25); bool: is its peak there?"""

    share: np.ndarray
    hit: np.ndarray


def make_mosaics(model: nn.Module, images: np.ndarray, labels: np.ndarray, count: int = 100, seed: int = 0):
    """2 x 2 mosaics of uint8 images: one of the target class, three of others, at half the model's side S.

    Returns inputs float32 (count, 3, S, S); target classes (count,), each class in turn; the cell (count,)
    that holds it: 0 1 over 2 3. Raises SwysError for several labels an image, or labels of one class only.
    """
    labels, half = np.asarray(labels), model.patch_embed.img_size[0] // 2
    if labels.ndim != 1 or len(np.unique(labels)) < 2:
        raise SwysError(f"labels of shape {labels.shape}; give one label an image, and two classes or more")
    targets, rng = np.resize(np.unique(labels), count), np.random.default_rng(seed)
    cells = rng.integers(0, 4, count)
    picks = np.stack([rng.choice(np.flatnonzero(labels != t), 4) for t in targets])
    picks[np.arange(count), cells] = [rng.choice(np.flatnonzero(labels == t)) for t in targets]
    tiles = to_model_input(np.asarray(images)[picks.ravel()], half)
    tiles = tiles.reshape(count, 2, 2, 3, half, half).permute(0, 3, 1, 4, 2, 5)
    return tiles.reshape(count, 3, 2 * half, 2 * half), targets, cells


def mosaic_pointing(
    model: nn.Module, images: np.ndarray, labels: np.ndarray, method="grad_cam", count=100, seed=0, **options
) -> Mosaics:
    """Does the map for a class lie on the image of that class? Grid pointing game (Boehle et al. 2021)."""
    inputs, targets, cells = make_mosaics(model, images, labels, count, seed)
    maps = np.maximum(heatmaps(model, inputs, method, targets, **options), 0)
    maps = maps.repeat(2, axis=1).repeat(2, axis=2)  # an odd grid has no middle line; doubled, it has one
    quarters = maps.reshape(count, 2, maps.shape[1] // 2, 2, maps.shape[2] // 2)
    sums, peaks = quarters.sum((2, 4)).reshape(count, 4), quarters.max((2, 4)).reshape(count, 4)
    total = np.where(sums.any(1), sums.sum(1), np.nan)
    return Mosaics(sums[np.arange(count), cells] / total, peaks.argmax(1) == cells)


def randomisation_check(
    model: nn.Module, images: np.ndarray, method="grad_cam", seed=0, only_last=False, **options
) -> dict[str, np.ndarray]:
    """Cascading randomisation (Adebayo et al. 2018): head, block by block from the top, then the embedding.

    A map that stays the same explains the image, not the model. Works on a copy; the class explained stays
    the one that the trained model predicts. Maps are signed, so that ranks have no tie of zeros.

    Returns stage -> Spearman (N,) of each image's map with its original; each stage randomises one part more.
    ``images`` are uint8 (N, H, W[, 3]); ``only_last`` measures the last stage, where nothing trained is left.
    """
    targets = predict(model, images).argmax(1)
    options, copy, spearman = {"signed": True} | options, deepcopy(model), {}
    original = heatmaps(model, images, method, targets, **options).reshape(len(images), -1)
    parts = {"head": ["norm", "attn_pool", "fc_norm", "head", "head_dist"]}
    parts |= {f"block {i}": [f"blocks.{i}"] for i in reversed(range(len(copy.blocks)))}
    parts["embedding"] = ["patch_embed", "norm_pre", "pos_embed", "cls_token", "reg_token", "dist_token"]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for stage, names in parts.items():
            for name in names:
                _reinitialise(copy, name)
            if stage == "embedding" or not only_last:
                maps = heatmaps(copy, images, method, targets, **options).reshape(len(images), -1)
                spearman[stage] = _rank_correlation(original, maps)
    return spearman


def _reinitialise(model: nn.Module, name: str) -> None:
    """A part of a ViT, if it has it, as before training: torch's own reset, then timm's for linear layers."""
    part = model
    for step in name.split("."):
        part = getattr(part, step, None)
    if isinstance(part, Tensor):
        nn.init.trunc_normal_(part, std=0.02)
    for module in part.modules() if isinstance(part, nn.Module) else ():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
        init_weights_vit_timm(module)


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


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Row-wise Spearman correlation of (N, T) arrays; ties get their mean rank, a constant row gives nan."""
    a, b = (rankdata(x, axis=1) for x in (a, b))
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    scale = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return (a * b).sum(1) / np.where(scale > 0, scale, np.nan)


def _strongest(values: np.ndarray, top: float) -> np.ndarray:
    """Which tokens are among the ``top`` share of their row? bool (N, T); the tied lowest value never is."""
    kept = max(1, round(top * values.shape[1]))
    threshold = np.partition(values, -kept, axis=1)[:, -kept, None]
    return (values >= threshold) & (values > values.min(1, keepdims=True))
