"""Grad-CAM at a layer of any torch model: CNNs, Swin, and Transformers that timm's is not.

A plain timm Vision Transformer is explained by ``swys_utils.gradcam``. For any other model there
are two ways to its last layer with positions: timm's models are cut in two there
(``forward_features`` and ``forward_head``), and of other models one layer's output is watched.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from swys_utils.config import SwysError, unknown
from swys_utils.vit_internals import Targets, evaluation_mode, explained_score

MOST_PREFIX_TOKENS = 8  # CLS, a distillation token, registers
SMALLEST_GRID = 2
# the last layer of a Transformer's block at which a patch token can still change the answer
NORMS_BEFORE_ATTENTION = ("norm1", "layernorm_before", "ln_1", "layer_norm1", "norm_before")
WAY_OUT = "name an earlier layer with --layer"

Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class CutModel:
    """A model in two parts, with a map of features between them.

    Attributes:
        features: model input (B, C, H, W) -> features with positions.
        head: these features -> logits (B, classes).
        layer: what the place is called.
        channels_last: whether four-dimensional features are (B, h, w, C).
    """

    features: Forward
    head: Forward
    layer: str
    channels_last: bool = False


def grad_cam_of_features(model: nn.Module, cut: CutModel, inputs: Tensor, targets: Targets):
    """Signed Grad-CAM (Selvaraju et al. 2017) where a model is cut in two.

    Args:
        model: the model that is cut; it is left as it was.
        cut: its two parts.
        inputs: model input, float (B, C, H, W).
        targets: None for the predicted class, one class for all images, or B classes.

    Returns:
        float32 (B, gh, gw), detached.

    Raises:
        SwysError: the features have no positions, or too few, or do not change the answer.
    """
    with evaluation_mode(model), torch.no_grad():
        activation = cut.features(inputs).detach()
        with torch.enable_grad():
            activation.requires_grad_()
            score = explained_score(cut.head(activation).float(), targets)
            (gradient,) = torch.autograd.grad(score, activation)
    return weighted_sum(activation.detach(), gradient, cut.layer, cut.channels_last)


def grad_cam_at_layer(
    model: nn.Module, forward: Forward, layer: str, inputs: Tensor, targets: Targets
) -> Tensor:
    """Signed Grad-CAM at the output of a named layer.

    Args:
        model: any module; it is left as it was.
        forward: model input -> logits, by this model.
        layer: its name in ``model.named_modules()``.
        inputs: model input, float (B, C, H, W).
        targets: None for the predicted class, one class for all images, or B classes.

    Returns:
        float32 (B, gh, gw), detached.

    Raises:
        SwysError: no such layer, or as ``grad_cam_of_features``.
    """
    outputs: list[Tensor] = []

    def keep(module, args, output):
        outputs.append(output.detach().requires_grad_())
        return outputs[-1].clone()  # which a layer that works in place may change

    module = named_layer(model, layer)
    with evaluation_mode(model), torch.enable_grad(), module.register_forward_hook(keep):
        score = explained_score(forward(inputs).float(), targets)
        if not outputs:
            raise SwysError(f"layer '{layer}' is not used; {WAY_OUT}")
        (gradient,) = torch.autograd.grad(score, outputs[-1], allow_unused=True)
    if gradient is None:
        raise SwysError(f"layer '{layer}' does not change the answer; {WAY_OUT}")
    return weighted_sum(outputs[-1].detach(), gradient, layer)


def weighted_sum(
    activation: Tensor, gradient: Tensor, layer: str, channels_last: bool | None = None
) -> Tensor:
    """Grad-CAM's sum over channels, each with its mean gradient as weight.

    Args:
        activation: (B, C, h, w), (B, h, w, C) or tokens (B, N, C).
        gradient: of the explained score, in the same shape.
        layer: for messages.
        channels_last: which of the first two it is; None finds out by the square.

    Returns:
        float32 (B, h, w).

    Raises:
        SwysError: no positions, too few of them, or a gradient of zeros.
    """
    positions = as_positions(activation, layer, channels_last)
    slopes = as_positions(gradient, layer, channels_last)
    if not slopes.any():
        raise SwysError(f"layer '{layer}' has a gradient of zero; {WAY_OUT}")
    weights = slopes.mean(dim=(1, 2), keepdim=True)
    return (weights * positions).sum(dim=-1)


def as_positions(values: Tensor, layer: str, channels_last: bool | None = None) -> Tensor:
    """Features as a grid of positions.

    Args:
        values: (B, C, h, w), (B, h, w, C), or tokens (B, N, C), of which the first may be no
            patches.
        layer: for messages.
        channels_last: as in ``weighted_sum``.

    Returns:
        float32 (B, h, w, C).

    Raises:
        SwysError: another shape, or fewer than ``SMALLEST_GRID`` positions a side.
    """
    shape = tuple(values.shape)
    if values.ndim == 4:
        if channels_last is None:
            channels_last = shape[1] == shape[2] != shape[3]
        grid = values if channels_last else values.movedim(1, 3)
    elif values.ndim == 3 and _grid_side(shape[1]):
        side = _grid_side(shape[1])
        patches = values[:, shape[1] - side**2 :]
        grid = patches.reshape(shape[0], side, side, shape[2])
    else:
        raise SwysError(f"layer '{layer}' has no positions, its output is {shape}; {WAY_OUT}")
    if min(grid.shape[1:3]) < SMALLEST_GRID:
        height, width = grid.shape[1:3]
        raise SwysError(f"layer '{layer}' has {height} x {width} positions; {WAY_OUT}")
    return grid.float()


def _grid_side(tokens: int) -> int:
    """Side of the square of patches among the tokens; 0 where they are none."""
    side = math.isqrt(tokens)
    if side >= SMALLEST_GRID and tokens - side**2 <= MOST_PREFIX_TOKENS:
        return side
    return 0


def named_layer(model: nn.Module, layer: str) -> nn.Module:
    """A part of a model by its name.

    Args:
        model: any module.
        layer: such as ``layer3`` or ``blocks.10.norm1``.

    Returns:
        The part.

    Raises:
        SwysError: no such layer.
    """
    layers = dict(model.named_modules())
    if not layer or layer not in layers:
        raise SwysError(unknown("layer", layer, [name for name in layers if name]))
    return layers[layer]


def cut_timm(model: nn.Module) -> CutModel:
    """A timm model, cut where its head begins.

    Args:
        model: with ``forward_features`` and ``forward_head``.
    """
    channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC"
    return CutModel(model.forward_features, model.forward_head, "forward_features", channels_last)


def find_layer(model: nn.Module, forward: Forward, inputs: Tensor) -> str:
    """The layer at which Grad-CAM is usually taken.

    Args:
        model: any module.
        forward: model input -> logits, by this model.
        inputs: one image, float (1, C, H, W).

    Returns:
        Of a Transformer, the norm before the last attention; else the last layer whose output has
        positions.

    Raises:
        SwysError: there is none.
    """
    outputs = _outputs(model, forward, inputs)
    tokens = {shape[1] for _, _, shape in outputs if len(shape) == 3}
    norms = []
    grids = []
    for name, module, shape in outputs:
        if not _has_positions(shape):
            continue
        if isinstance(module, nn.LayerNorm) and _is_before_attention(name):
            norms.append(name)
        elif len(shape) == 4 and not _is_attention(shape, tokens):
            grids.append(name)
    if not norms and not grids:
        raise SwysError("no layer has positions, so there is nothing to draw; see occlusion")
    return (norms or grids)[-1]


def _outputs(
    model: nn.Module, forward: Forward, inputs: Tensor
) -> list[tuple[str, nn.Module, tuple[int, ...]]]:
    """Name, module and shape of each tensor that leaves a layer, in the order of the answer."""
    found = []

    def watch(name: str) -> Callable:
        def keep(module, args, output):
            if isinstance(output, Tensor):
                found.append((name, module, tuple(output.shape)))

        return keep

    handles = []
    for name, module in model.named_modules():
        if name:
            handles.append(module.register_forward_hook(watch(name)))
    try:
        with evaluation_mode(model), torch.no_grad():
            forward(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _is_attention(shape: tuple[int, ...], tokens: set[int]) -> bool:
    """Whether an output (B, heads, N, N) is a matrix of attention between N tokens."""
    return shape[2] == shape[3] and shape[2] in tokens


def _is_before_attention(name: str) -> bool:
    return name.rpartition(".")[2] in NORMS_BEFORE_ATTENTION


def _has_positions(shape: tuple[int, ...]) -> bool:
    """Whether an output of this shape has a grid that can be drawn."""
    if len(shape) == 4:
        sides = sorted(shape[1:])[:2]
        return min(sides) >= SMALLEST_GRID
    return len(shape) == 3 and _grid_side(shape[1]) > 0
