"""Heatmaps for Vision Transformers, unnormalised: a large value means strong evidence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from .attention_maps import attention_rollout, legrad
from .config import SwysError, no_bar, unknown
from .data import to_planes
from .occlusion import occlusion_map
from .vit_internals import (
    Targets,
    as_map,
    checked_input,
    embedded_tokens,
    evaluation_mode,
    explained_score,
    input_batches,
    logits_of,
    plain_attention,
    targets_of,
)

# What computes maps: called as ``grad_cam`` is.
MapFunction: TypeAlias = Callable[..., Tensor]


def grad_cam(
    model: nn.Module,
    inputs: Tensor,
    targets: Targets = None,
    block: int = -1,
    signed: bool = False,
) -> Tensor:
    """Grad-CAM (Selvaraju et al. 2017) on the output of ``model.blocks[block].norm1``.

    Why norm1: a model that classifies from its CLS token never reads the patch tokens that leave
    its last block, so their gradient is exactly zero there. The last layer at which a patch token
    can still change the logits is the input of that block's attention.

    Args:
        model: any plain timm VisionTransformer; it is left as it was.
        inputs: model input, float (B, 3, H, W).
        targets: None for the predicted class, one class for all images, or B classes.
        block: the block to look at; the last one, -1, costs about one forward pass.
        signed: leave out the final ReLU, to see evidence against the class too.

    Returns:
        float32 (B, gh, gw) on the device of ``inputs``, detached, unnormalised; >= 0 unless signed.

    Raises:
        SwysError: another kind of model, or inputs, targets or a block that do not fit it.
    """
    with evaluation_mode(model):
        values = _cam(model, inputs, targets, block).values
    return as_map(values, model, inputs, signed)


def hires_cam(
    model: nn.Module,
    inputs: Tensor,
    targets: Targets = None,
    block: int = -1,
    signed: bool = False,
) -> Tensor:
    """HiResCAM (Draelos & Carin 2020): gradient times activation, token by token.

    Args:
        model: any plain timm VisionTransformer; it is left as it was.
        inputs: model input, float (B, 3, H, W).
        targets: None for the predicted class, one class for all images, or B classes.
        block: the block to look at.
        signed: leave out the final ReLU.

    Returns:
        float32 (B, gh, gw), as ``grad_cam`` does.

    Raises:
        SwysError: as ``grad_cam`` does.
    """
    with evaluation_mode(model):
        values = _cam(model, inputs, targets, block, by_token=True).values
    return as_map(values, model, inputs, signed)


@dataclass(frozen=True)
class Method:
    """A way to explain, as the command line, the figures and the studies list it.

    Attributes:
        id: its name in commands, tables and stored results.
        title: its name in figures.
        colour: its colour in figures; no model of the series has it.
        function: called as ``grad_cam`` is, with the same result.
    """

    id: str
    title: str
    colour: str
    function: MapFunction


# To add a way to explain, add it here: the command, the slider and the studies read this list.
_METHODS = (
    Method("grad_cam", "Grad-CAM", "#5E3C99", grad_cam),
    Method("hires_cam", "HiResCAM", "#999999", hires_cam),
    Method("legrad", "LeGrad", "#808080", legrad),
    Method("attention_rollout", "attention rollout", "#595959", attention_rollout),
    Method("occlusion", "occlusion", "#000000", occlusion_map),
)
METHODS: dict[str, Method] = {method.id: method for method in _METHODS}


class LogitsAndMap(NamedTuple):
    """What ``logits_and_map`` returns."""

    logits: Tensor
    values: Tensor
    kept: Tensor | None


def logits_and_map(model: nn.Module, inputs: Tensor, targets: Targets = None) -> LogitsAndMap:
    """Logits and signed Grad-CAM at the last block, to train a model by its map.

    The model runs once, in the mode that it is in, so with PatchDropout in training. The map is
    differentiable (second order, through the last block only). Under ``torch.no_grad()``, or when
    no weight requires a gradient, both results are detached and cost about one forward pass.

    Args:
        model: any plain timm VisionTransformer.
        inputs: model input, float (B, 3, H, W).
        targets: None for the predicted class, one class for all images, or B classes.

    Returns:
        ``logits``, float32 (B, C); ``values`` of the map at the n patch tokens, float32 (B, n);
        ``kept``, int64 (B, n), the positions in the grid of these patches, counted row by row,
        when PatchDropout took some away, else None.

    Raises:
        SwysError: as ``grad_cam`` does.
    """
    trainable = any(weight.requires_grad for weight in model.parameters())
    differentiable = trainable and torch.is_grad_enabled()
    return _cam(model, inputs, targets, -1, differentiable)


def heatmaps(
    model: nn.Module,
    images: np.ndarray | Tensor,
    method: str | MapFunction = "grad_cam",
    targets: Targets = None,
    batch_size: int = 32,
    multi_label: bool = False,
    **options,
) -> np.ndarray:
    """Maps of many images, batch by batch.

    Args:
        model: any plain timm VisionTransformer.
        images: uint8 (N, H, W) or (N, H, W, 3), or model input, float (N, 3, S, S).
        method: an id of METHODS, or a function that is called as ``grad_cam`` is.
        targets: None for the predicted class, one class for all images, or N classes.
        batch_size: number of images that are explained at once; occlusion takes one after another.
        multi_label: several labels of an image can be true. Only occlusion has to know: the others
            explain a logit, and it a share of the classes.
        **options: ``block`` and ``signed``, as for ``grad_cam``.

    Returns:
        float32 (N, gh, gw).

    Raises:
        SwysError: an unknown method, no images, or another number of targets; else as ``grad_cam``.
    """
    if callable(method):
        function = method
    elif method in METHODS:
        function = METHODS[method].function
    else:
        raise SwysError(unknown("method", method, METHODS))
    if not len(images):
        raise SwysError("heatmaps for 0 images; give at least one")
    if multi_label and function is occlusion_map:
        options["multi_label"] = True
    if function is occlusion_map:
        batch_size = 1  # it asks image by image anyway, so the bar can move with each
    maps = []
    with tqdm(total=len(images), desc="maps", leave=False, delay=5, disable=no_bar()) as bar:
        for selection, inputs in input_batches(model, images, batch_size):
            batch_targets = targets_of(targets, selection, len(images))
            maps.append(function(model, inputs, batch_targets, **options).cpu())
            bar.update(len(inputs))
    return torch.cat(maps).numpy()


def overlay(
    images: np.ndarray | Tensor,
    heatmaps: np.ndarray | Tensor,
    alpha: float = 0.5,
    scale: float | str = "image",
    cmap: str = "inferno",
    size: int | None = None,
) -> np.ndarray:
    """Draw heatmaps over images; negative values count as 0.

    Args:
        images: uint8 (N, H, W) or (N, H, W, 3), or model input, float (N, 3, H, W) in [-1, 1].
        heatmaps: (N, gh, gw).
        alpha: opacity from 0 to 1 where a map is strongest; where it is zero, nothing is drawn.
        scale: what counts as strongest: "image" for each map's own maximum, or one positive number
            for all maps, which keeps weak maps weak. A map of zeros stays empty under both.
        cmap: name of a matplotlib colour map.
        size: height and width of the result in px; None keeps those of the images.

    Returns:
        uint8 (N, H, W, 3).

    Raises:
        SwysError: alpha or scale out of range, or another number of maps than images.
    """
    positive_number = not isinstance(scale, str) and scale > 0
    if not 0 <= alpha <= 1 or not (scale == "image" or positive_number):
        shown = f"alpha={alpha}, scale={scale}"
        raise SwysError(f"{shown}; alpha is 0 to 1, scale 'image' or a positive number")
    pixels = torch.as_tensor(images).detach().cpu()
    pixels = pixels.float() if pixels.is_floating_point() else to_planes(pixels)
    maps = torch.as_tensor(heatmaps).detach().cpu()
    if maps.ndim != 3 or len(maps) != len(pixels):
        shown = f"heatmaps {tuple(maps.shape)} for {len(pixels)} images"
        raise SwysError(f"{shown}; give one (gh, gw) map each")

    heat = _relative_to_strongest(maps.float().clamp(min=0), scale)
    shape = pixels.shape[-2:] if size is None else (size, size)
    heat = F.interpolate(heat[:, None], shape, mode="bilinear")
    pixels = F.interpolate(pixels, shape, mode="bilinear")
    heat = heat.movedim(1, 3).numpy()  # channels last
    pixels = pixels.movedim(1, 3).numpy()
    colours = matplotlib.colormaps[cmap](heat[..., 0])
    colours = colours[..., :3] * 255  # without matplotlib's own opacity
    opacity = alpha * heat
    blended = (1 - opacity) * (pixels + 1) * 127.5 + opacity * colours
    return blended.round().clip(0, 255).astype(np.uint8)


def _relative_to_strongest(maps: Tensor, scale: float | str) -> Tensor:
    """Maps (N, gh, gw) >= 0 in [0, 1], where 1 is what ``scale`` of ``overlay`` says."""
    if scale == "image":
        strongest = maps.amax(dim=(1, 2), keepdim=True)
    else:
        strongest = torch.tensor(float(scale))
    smallest = torch.finfo(torch.float32).tiny  # zeros divided by it stay zeros
    return (maps / strongest.clamp(min=smallest)).clamp(max=1)


def _cam(model, inputs, targets, block, differentiable=False, by_token=False) -> LogitsAndMap:
    """The one Grad-CAM: logits, signed values of the patch tokens, and their positions."""
    x, index = checked_input(model, inputs, block)
    with torch.set_grad_enabled(differentiable):
        tokens, kept = embedded_tokens(model, x)
        tokens = model.blocks[:index](tokens)
    layer = model.blocks[index]
    prefix = model.num_prefix_tokens
    still_read = slice(None)
    if layer is model.blocks[-1] and model.global_pool == "token":
        # the head reads the prefix tokens alone: patch tokens skip the last MLP
        still_read = slice(prefix)
    # without the fused kernel: it has no second derivative and, on CPUs, a slow backward pass
    with torch.enable_grad(), plain_attention(model):
        activation = layer.norm1(tokens)
        if not (differentiable and activation.requires_grad):
            activation = activation.detach().requires_grad_()
        attended = layer.attn(activation)[:, still_read]
        tokens = tokens[:, still_read] + layer.drop_path1(layer.ls1(attended))
        tokens = tokens + layer.drop_path2(layer.ls2(layer.mlp(layer.norm2(tokens))))
        logits = logits_of(model, model.blocks[index + 1 :](tokens)).float()
        score = explained_score(logits, targets)
        (gradient,) = torch.autograd.grad(score, activation, create_graph=differentiable)
    gradient = gradient[:, prefix:].float()
    activation = activation[:, prefix:].float()
    weights = gradient if by_token else gradient.mean(dim=1, keepdim=True)  # of each channel
    values = (weights * activation).sum(dim=-1)
    if differentiable:
        return LogitsAndMap(logits, values, kept)
    torch.clear_autocast_cache()
    return LogitsAndMap(logits.detach(), values.detach(), kept)
