"""Occlusion: what does the score of a class lose when a patch of the image is hidden?

A heatmap of gradients or attention shows what a model *marks*. What its answer *rests on* can be
asked directly: hide a patch, ask the model again, and write down by how much the score fell.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torchvision.transforms.v2.functional import center_crop, gaussian_blur, pad
from tqdm.auto import tqdm

from .config import SwysError, no_bar, unknown
from .data import to_planes
from .vit_internals import (
    Targets,
    as_map,
    checked_input,
    embedded_tokens,
    evaluation_mode,
    explained_classes,
    input_batches,
    logits_of,
    targets_of,
)

FILLS = ("mean", "blur", "token")
VARIANTS = 64  # of an image in one forward pass
GRIDS = (7, 8, 6, 9, 5, 10, 4, 12, 3)  # patches a side where no ViT cuts them, the best first

# A model, or any function of model input, float (B, 3, S, S), that returns scores (B, C).
Scorer: TypeAlias = nn.Module | Callable[[Tensor], Any]


def occlusion(
    model: Scorer,
    images: np.ndarray | Tensor,
    targets: Targets = None,
    patch: int | None = None,
    fill: str = "mean",
    multi_label: bool = False,
) -> np.ndarray:
    """Hide one patch at a time (Zeiler & Fergus 2014), and see what the score of a class loses.

    The score is the log-odds of the class, log(p / (1 - p)): where a model is certain, its
    probability hardly moves.

    Args:
        model: a timm ViT, or any function of model input, float32 (B, 3, S, S) in [-1, 1], that
            returns logits (B, C), such as one that runs an ONNX session.
        images: uint8 (N, H, W) or (N, H, W, 3), or model input, float (N, 3, S, S).
        targets: None for the predicted class, one class for all images, or N classes.
        patch: side of what is hidden, px; None: as a ViT cuts; of any other model 3 to 12 patches
            a side, seven where that is possible.
        fill: what stands in for a patch: the "mean" colour of the image; "blur", the image blurred
            (Gaussian, sigma one patch); or nothing, "token", which leaves a ViT's token out.
        multi_label: several labels can be true, so that a logit is the log-odds of its label.

    Returns:
        float32 (N, gh, gw); positive where the class needs the patch, negative where it does better
        without.

    Raises:
        SwysError: an unknown fill or one that the model has not, a patch that does not fit, no
            images, or targets that do not fit.
    """
    if not len(images):
        raise SwysError("occlusion of 0 images; give at least one")
    maps = []
    for index in tqdm(range(len(images)), "hiding", leave=False, delay=5, disable=no_bar()):
        selection = slice(index, index + 1)
        image = one_input(model, images[selection])
        target = targets_of(targets, selection, len(images))
        maps.append(_map_of_one(model, image, target, patch, fill, multi_label))
    return torch.stack(maps).cpu().numpy()


def _map_of_one(
    model: Scorer,
    image: Tensor,
    target: Targets,
    patch: int | None = None,
    fill: str = "mean",
    multi_label: bool = False,
) -> Tensor:
    """``occlusion`` of one image, model input (1, 3, H, W): float32 (gh, gw)."""
    height, width = grid_of(model, image, patch)
    one_patch_each = torch.eye(height * width, dtype=torch.bool)
    hidden = one_patch_each.reshape(-1, height, width)
    lost = lost_without(model, image, hidden, target, fill, multi_label)
    return lost.reshape(height, width)


def occlusion_map(
    model: nn.Module,
    inputs: Tensor,
    targets: Targets = None,
    block: int = -1,
    signed: bool = False,
    multi_label: bool = False,
) -> Tensor:
    """``occlusion`` of a ViT, called as ``gradcam.grad_cam`` is.

    Args:
        model: any plain timm VisionTransformer; it is left as it was.
        inputs: model input, float (B, 3, H, W).
        targets: None for the predicted class, one class for all images, or B classes.
        block: changes nothing, because the whole model is asked.
        signed: keep negative values: without such a patch the class does better.
        multi_label: as for ``occlusion``.

    Returns:
        float32 (B, gh, gw) on the device of ``inputs``, log-odds; >= 0 unless signed.

    Raises:
        SwysError: as ``gradcam.grad_cam`` does.
    """
    if not len(inputs):
        raise SwysError("occlusion of 0 images; give at least one")
    x, _ = checked_input(model, inputs, block)
    maps = []
    for index, image in enumerate(x.detach()):
        target = targets_of(targets, slice(index, index + 1), len(x))
        maps.append(_map_of_one(model, image[None], target, multi_label=multi_label))
    return as_map(torch.stack(maps).flatten(1), model, inputs, signed)


@torch.no_grad()
def lost_without(
    model: Scorer,
    image: Tensor,
    hidden: Tensor,
    target: Targets,
    fill: str = "mean",
    multi_label: bool = False,
) -> Tensor:
    """What the log-odds of a class lose in variants of an image, each without some patches.

    Args:
        model: as for ``occlusion``.
        image: model input, float (1, 3, H, W).
        hidden: which patches each variant lacks, bool (V, gh, gw); for "token" as many in each.
        target: the class; None for the predicted one.
        fill: as for ``occlusion``.
        multi_label: as for ``occlusion``.

    Returns:
        float32 (V,).

    Raises:
        SwysError: as ``occlusion`` does.
    """
    if fill not in FILLS:
        raise SwysError(unknown("fill", fill, FILLS))
    is_module = isinstance(model, nn.Module)
    with evaluation_mode(model) if is_module else nullcontext():
        answers = [model(image)]
        for some in hidden.to(image.device).split(VARIANTS):
            if fill == "token":
                answers.append(_without_tokens(model, image, some))
            else:
                answers.append(model(without_patches(image, some, fill)))
    logits = torch.cat([torch.as_tensor(answer).float() for answer in answers])
    chosen = explained_classes(logits[:1], target).expand(len(logits))
    odds = log_odds(logits, chosen, multi_label)
    return odds[0] - odds[1:]


def log_odds(logits: Tensor, classes: Tensor, multi_label: bool = False) -> Tensor:
    """log(p / (1 - p)) of one class for each image.

    Args:
        logits: float (B, C).
        classes: int64 (B,).
        multi_label: as for ``occlusion``; a single logit is always the log-odds of its class.

    Returns:
        (B,), of the type of ``logits``.
    """
    chosen = classes[:, None]
    odds = logits.gather(1, chosen)[:, 0]
    if multi_label or logits.shape[1] == 1:
        return odds
    others = logits.scatter(1, chosen, -torch.inf)
    return odds - others.logsumexp(dim=1)


def one_input(model: Scorer, image: np.ndarray | Tensor) -> Tensor:
    """Model input of an image: a function gets it at the size that is stored.

    Args:
        model: as for ``occlusion``.
        image: as for ``occlusion``, of one image.

    Returns:
        float (1, 3, H, W).
    """
    if isinstance(model, VisionTransformer):
        _, inputs = next(input_batches(model, image, 1))
        return inputs
    inputs = torch.as_tensor(image)
    if not inputs.is_floating_point():
        inputs = to_planes(inputs).expand(-1, 3, -1, -1)
    if isinstance(model, nn.Module):
        return inputs.to(next(model.parameters(), inputs))  # its device and dtype
    return inputs.float()


def grid_of(model: Scorer, image: Tensor, patch: int | None = None) -> tuple[int, int]:
    """How many patches there are below and beside each other.

    Args:
        model: as for ``occlusion``.
        image: model input, float (1, 3, H, W).
        patch: as for ``occlusion``.

    Returns:
        Rows and columns of patches.

    Raises:
        SwysError: patches of that side do not fill the image.
    """
    height, width = image.shape[-2:]
    if patch is None:
        if isinstance(model, VisionTransformer):
            return model.patch_embed.dynamic_feat_size((height, width))
        return _grid_of_any(height, width)
    if patch < 1 or height % patch or width % patch:
        size = f"{height} x {width} px"
        raise SwysError(f"patches of {patch} px do not fill {size}; choose a divisor of its sides")
    return height // patch, width // patch


def _grid_of_any(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of square patches that fill an image; else seven of each, a little uneven.

    An image of less than seven pixels has a patch for each.
    """
    for rows in GRIDS:
        patch = height // rows
        fills = patch > 1 and height % rows == 0 and width % patch == 0
        if fills and width // patch in GRIDS:
            return rows, width // patch
    return min(height, 7), min(width, 7)


def without_patches(images: Tensor, hidden: Tensor, fill: str = "mean") -> Tensor:
    """Images in which something else stands in the place of the hidden patches.

    Args:
        images: float (B, 3, H, W), or (1, 3, H, W): the same image for all.
        hidden: which patches each of them lacks, bool (B, gh, gw).
        fill: "mean" or "blur", as for ``occlusion``.

    Returns:
        float (B, 3, H, W).
    """
    pixels = F.interpolate(hidden[:, None].float(), size=images.shape[-2:]).bool()
    blank = images.mean(dim=(2, 3), keepdim=True)
    if fill == "blur":
        patch = images.shape[-1] // hidden.shape[-1]
        blank = blurred(images, sigma=patch)
    return torch.where(pixels, blank, images)


def _without_tokens(model: Scorer, image: Tensor, hidden: Tensor) -> Tensor:
    """Logits of a ViT that does not read the tokens of hidden patches."""
    if not isinstance(model, VisionTransformer):
        raise SwysError("fill 'token' needs a timm ViT; choose mean or blur")
    tokens, _ = embedded_tokens(model, image)
    prefix = model.num_prefix_tokens
    read = F.pad(~hidden.flatten(1), (prefix, 0), value=True)
    if read.shape[1] != tokens.shape[1]:
        raise SwysError("fill 'token' hides whole tokens; leave out patch")
    counts = read.sum(dim=1)
    if (counts != counts[0]).any():
        raise SwysError("fill 'token' needs as many hidden patches in each variant")
    kept = tokens.expand(len(read), -1, -1)[read]
    kept = kept.reshape(len(read), -1, tokens.shape[2])
    return logits_of(model, model.blocks(kept))


def blurred(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur, cut off at two sigma, with the edges of the image repeated outside of it.

    Args:
        x: images, float (B, 3, H, W).
        sigma: of the Gaussian, px.

    Returns:
        float (B, 3, H, W).
    """
    reach = int(2 * sigma)
    # torchvision reflects the image at its edges; with this margin, only what is cut off again
    with_margin = pad(x, [reach], padding_mode="edge")
    kernel_size = 2 * reach + 1
    smooth = gaussian_blur(with_margin, kernel_size, float(sigma))
    return center_crop(smooth, x.shape[-2:])
