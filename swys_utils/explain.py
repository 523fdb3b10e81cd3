"""Measuring explanations: do two models look at the same places, and does a map depend on its model?

Results keep one value an image, nan where it has none; ``metrics.mean_interval`` makes means of them.
"""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import rankdata
from timm.models.vision_transformer import init_weights_vit_timm
from torch import Tensor, nn

from .config import SwysError
from .gradcam import heatmaps
from .training import predict


def agreement(maps_a: np.ndarray, maps_b: np.ndarray) -> np.ndarray:
    """Spearman correlation of two models' maps, image by image: float (N,), nan where a map is constant.

    Args:
        maps_a, maps_b: (N, gh, gw) of the same images, or SwysError. Ranks use every value: give signed maps,
            or the zeros that ReLU leaves are one large tie. Of two grids the finer is averaged down.
    """
    a, b = (torch.as_tensor(maps).float() for maps in (maps_a, maps_b))
    if len(a) != len(b):
        raise SwysError(
            f"{len(a)} maps against {len(b)}; give maps of the same images in the same order"
        )
    grid = tuple(min(sides) for sides in zip(a.shape[1:], b.shape[1:]))
    return _rank_correlation(
        *(F.adaptive_avg_pool2d(maps, grid).flatten(1).numpy() for maps in (a, b))
    )


def shuffled(maps: np.ndarray, classes=None) -> np.ndarray:
    """The same maps (N, gh, gw), each with another image's: one random cycle, so that none stays; or, with
    ``classes`` int (N,), one cycle in each class: what maps share that know the class but not the image. Nan
    where there is no other image."""
    classes = np.zeros(len(maps)) if classes is None else np.asarray(classes)
    taken, rng = np.arange(len(maps)), np.random.default_rng(0)
    for c in np.unique(classes):
        members = rng.permutation(np.flatnonzero(classes == c))
        taken[members] = np.roll(members, 1)
    others = np.asarray(maps, dtype=float)[taken]
    others[taken == np.arange(len(maps))] = np.nan
    return others


def randomisation_check(
    model: nn.Module, images: np.ndarray, method="grad_cam", seed=0, only_last=False
) -> dict[str, np.ndarray]:
    """Cascading randomisation (Adebayo et al. 2018): head, block by block from the top, then the embedding.

    A map that stays the same explains the image, not the model. Works on a copy; the class explained stays
    the one that the trained model predicts. Maps are signed, so that ranks have no tie of zeros.

    Returns stage -> Spearman (N,) of each image's map with its original; each stage randomises one part more.
    ``images`` are uint8 (N, H, W[, 3]); ``only_last`` measures the last stage, where nothing trained is left.
    """
    targets = predict(model, images).argmax(1)
    copy, spearman = deepcopy(model), {}
    original = heatmaps(model, images, method, targets, signed=True).reshape(len(images), -1)
    parts = {"head": ["norm", "attn_pool", "fc_norm", "head", "head_dist"]}
    parts |= {f"block {i}": [f"blocks.{i}"] for i in reversed(range(len(copy.blocks)))}
    parts["embedding"] = [
        "patch_embed",
        "norm_pre",
        "pos_embed",
        "cls_token",
        "reg_token",
        "dist_token",
    ]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for stage, names in parts.items():
            for name in names:
                _reinitialise(copy, name)
            if stage == "embedding" or not only_last:
                maps = heatmaps(copy, images, method, targets, signed=True).reshape(len(images), -1)
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


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Row-wise Spearman correlation of (N, T) arrays; ties get their mean rank, a constant row gives nan."""
    a, b = (rankdata(x, axis=1) for x in (a, b))
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    scale = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return (a * b).sum(1) / np.where(scale > 0, scale, np.nan)
