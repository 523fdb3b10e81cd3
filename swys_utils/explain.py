"""Measuring explanations: are the maps of two models alike? Does a map depend on its model?

Results keep one value per image, nan where it has none. ``metrics.mean_interval`` averages them.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import rankdata
from timm.models.vision_transformer import VisionTransformer, init_weights_vit_timm
from torch import Tensor, nn

from .config import SwysError
from .gradcam import MapFunction, heatmaps
from .training import predict

# Parts of timm's ViTs after and before the blocks; not every model has all of them.
AFTER_BLOCKS = ("norm", "attn_pool", "fc_norm", "head", "head_dist")
BEFORE_BLOCKS = (
    "patch_embed",
    "norm_pre",
    "pos_embed",
    "cls_token",
    "reg_token",
    "dist_token",
)


def agreement(maps_a: np.ndarray, maps_b: np.ndarray) -> np.ndarray:
    """Spearman correlation of two models' maps, image by image.

    Ranks use every value, so give signed maps: the zeros that ReLU leaves would be one large tie.

    Args:
        maps_a: (N, gh, gw) of one model.
        maps_b: (N, gh, gw) of the other model for the same images. The grids may differ: the finer
            one is averaged down.

    Returns:
        float (N,) in [-1, 1], nan where one of the maps is constant.

    Raises:
        SwysError: not as many maps of one model as of the other.
    """
    if len(maps_a) != len(maps_b):
        counts = f"{len(maps_a)} maps against {len(maps_b)}"
        raise SwysError(f"{counts}; give maps of the same images in the same order")
    coarser_grid = np.minimum(maps_a.shape[1:], maps_b.shape[1:]).tolist()
    return _rank_correlation(coarsened(maps_a, coarser_grid), coarsened(maps_b, coarser_grid))


def agreement_beyond_chance(
    maps_a: np.ndarray, maps_b: np.ndarray, classes: np.ndarray | None = None
) -> float:
    """Mean agreement on a scale where 0 is that with another image's map, and 1 the same order.

    Args:
        maps_a: as for ``agreement``.
        maps_b: as for ``agreement``; each other image's map is one of these.
        classes: as for ``shuffled``.

    Returns:
        At most 1; negative where it is less than by chance, nan where nothing can be compared.
    """
    chance = np.nanmean(agreement(maps_a, shuffled(maps_b, classes)))
    return float((np.nanmean(agreement(maps_a, maps_b)) - chance) / (1 - chance))


def coarsened(maps: np.ndarray, grid: Sequence[int]) -> np.ndarray:
    """The mean of each map over the cells of a coarser grid, by the area that they share.

    Args:
        maps: float (N, gh, gw).
        grid: rows and columns of the result.

    Returns:
        float32 (N, rows, columns), less the map's first value, so that a constant map stays so.
    """
    values = torch.as_tensor(maps).float()
    values = values - values[:, :1, :1]
    if tuple(grid) == values.shape[1:]:
        return values.numpy()
    fine = values.repeat_interleave(grid[0], dim=1).repeat_interleave(grid[1], dim=2)
    return F.avg_pool2d(fine, values.shape[1:]).numpy()


def shuffled(maps: np.ndarray, classes: np.ndarray | None = None) -> np.ndarray:
    """Give each image the map of another image, to see how alike maps are by chance.

    The images are put in a random order, the same in each call. Each then takes the map of the
    image before it, and the first that of the last, so no image keeps its own map. With
    ``classes`` this is done within each class, so that both images have the same one: maps that
    agree then agree about the class, not about the image.

    Args:
        maps: (N, gh, gw).
        classes: int (N,), the class of each image; None makes no difference between images.

    Returns:
        float (N, gh, gw); nan for an image that is the only one of its class.
    """
    if classes is None:
        classes = np.zeros(len(maps))
    classes = np.asarray(classes)
    positions = np.arange(len(maps))
    taken_from = positions.copy()
    rng = np.random.default_rng(0)
    for label in np.unique(classes):
        members = np.flatnonzero(classes == label)
        members = rng.permutation(members)
        taken_from[members] = np.roll(members, 1)
    others = np.array(maps, dtype=float)
    others = others[taken_from]
    others[taken_from == positions] = np.nan
    return others


def randomisation_check(
    model: nn.Module,
    images: np.ndarray,
    method: str | MapFunction = "grad_cam",
    only_last: bool = False,
    multi_label: bool = False,
) -> dict[str, np.ndarray]:
    """Cascading randomisation (Adebayo et al. 2018): does a map depend on what the model learned?

    A copy of the model loses its trained weights from the top down: first its head, then block by
    block from the last to the first, then the embedding. A map that stays the same explains the
    image, not the model. The class to explain stays the one that the trained model predicts. Maps
    are signed, so that their ranks have no tie of zeros.

    Args:
        model: any plain timm VisionTransformer; it is left as it was.
        images: uint8 (N, H, W) or (N, H, W, 3).
        method: as for ``heatmaps``.
        only_last: measure the last stage alone, where nothing trained is left.
        multi_label: as for ``heatmaps``.

    Returns:
        Stage ("head", "block 11", ..., "embedding") -> float (N,), the Spearman correlation of each
        image's map with that of the trained model. Each stage randomises one part more.
    """
    explain = partial(
        heatmaps,
        images=images,
        method=method,
        targets=predict(model, images).argmax(1),
        multi_label=multi_label,
        signed=True,
    )
    original = explain(model)
    copy = deepcopy(model)
    correlations = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for stage, parts in _from_the_top(copy).items():
            for part in parts:
                _reinitialise(part)
            if stage == "embedding" or not only_last:
                correlations[stage] = _rank_correlation(original, explain(copy))
    return correlations


def _from_the_top(model: VisionTransformer) -> dict[str, list]:
    """Stage -> the parts of a ViT that are randomised in it; None for those that it lacks."""
    stages = {}
    stages["head"] = [getattr(model, name, None) for name in AFTER_BLOCKS]
    for index in reversed(range(len(model.blocks))):
        stages[f"block {index}"] = [model.blocks[index]]
    stages["embedding"] = [getattr(model, name, None) for name in BEFORE_BLOCKS]
    return stages


def _reinitialise(part: nn.Module | Tensor | None) -> None:
    """Draw the weights of a part of a ViT as before training: as torch does, then timm.

    Tokens such as CLS are drawn like position embeddings, wider than timm draws them (1e-6).
    """
    if isinstance(part, Tensor):
        nn.init.trunc_normal_(part, std=0.02)
    elif isinstance(part, nn.Module):
        for module in part.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
            init_weights_vit_timm(module)


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman correlation of maps (N, gh, gw), one by one: (N,).

    Ties get their mean rank; a constant map has no correlation, nan.
    """
    deviations_a = _centred_ranks(a)
    deviations_b = _centred_ranks(b)
    covariance = (deviations_a * deviations_b).sum(1)
    variance_a = (deviations_a**2).sum(1)
    variance_b = (deviations_b**2).sum(1)
    scale = np.sqrt(variance_a * variance_b)
    scale[scale == 0] = np.nan
    return covariance / scale


def _centred_ranks(maps: np.ndarray) -> np.ndarray:
    values = maps.reshape(len(maps), -1)
    ranks = rankdata(values, axis=1)
    return ranks - ranks.mean(1, keepdims=True)
