"""What draws the Grad-CAM maps of a reader's torch model, whatever its kind."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from swys_utils.config import SwysError, reason_of
from swys_utils.gradcam import grad_cam

from .layer_maps import cut_timm, find_layer, grad_cam_at_layer, grad_cam_of_features
from .preprocessing import Preprocessing

ToLogits = Callable[[Tensor], Tensor]
ToMaps = Callable[[Tensor, np.ndarray], Tensor]


def map_maker(
    model: nn.Module, forward: ToLogits, layer: str, preprocessing: Preprocessing
) -> tuple[ToMaps | None, str]:
    """What draws the Grad-CAM maps of a torch model, tried once.

    Args:
        model: any module.
        forward: model input -> logits.
        layer: where Grad-CAM is taken; "" is the usual place.
        preprocessing: says the size and the channels of the input.

    Returns:
        What draws the maps, and the layer; or None, and why there are no maps.

    Raises:
        SwysError: the model has no such layer.
    """
    try:
        return _tried(model, forward, layer, preprocessing)
    except SwysError as error:
        if layer and layer not in dict(model.named_modules()):
            raise SwysError(f"{error}; give --layer, or --layer_b for B") from None
        return None, str(error)


def _tried(
    model: nn.Module, forward: ToLogits, layer: str, preprocessing: Preprocessing
) -> tuple[ToMaps, str]:
    """What draws the maps of a model, tried once, and the layer where it does.

    A SwysError where it cannot be done.
    """
    channels = len(preprocessing.mean)
    size = preprocessing.size
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(1, channels, size, size, generator=generator)
    pixels = pixels.to(**kind_of_input(model))
    draw: ToMaps

    def at_norm1(inputs: Tensor, targets: np.ndarray) -> Tensor:
        return grad_cam(model, inputs, targets, signed=True)

    def at_layer(inputs: Tensor, targets: np.ndarray) -> Tensor:
        return grad_cam_at_layer(model, forward, layer, inputs, targets)

    if layer:
        draw = at_layer
    elif isinstance(model, VisionTransformer) and _works(at_norm1, pixels):
        draw = at_norm1
        layer = f"blocks.{len(model.blocks) - 1}.norm1"
    else:
        draw, layer = _cut_or_found(model, forward, pixels)
    _try(draw, pixels)
    return draw, layer


def _cut_or_found(model: nn.Module, forward: ToLogits, pixels: Tensor) -> tuple[ToMaps, str]:
    """What draws the maps of a model of any kind, and the layer.

    The cut serves where the head reads the positions themselves: of a Transformer with a class
    token their gradient is zero there, so the layer is looked for.
    """
    if hasattr(model, "forward_features") and hasattr(model, "forward_head"):
        cut = cut_timm(model)

        def at_cut(inputs: Tensor, targets: np.ndarray) -> Tensor:
            return grad_cam_of_features(model, cut, inputs, targets)

        if _works(at_cut, pixels):
            return at_cut, cut.layer
    layer = find_layer(model, forward, pixels)

    def at_found(inputs: Tensor, targets: np.ndarray) -> Tensor:
        return grad_cam_at_layer(model, forward, layer, inputs, targets)

    return at_found, layer


def _works(draw: ToMaps, pixels: Tensor) -> bool:
    try:
        _try(draw, pixels)
    except SwysError:
        return False
    return True


def _try(draw: ToMaps, pixels: Tensor) -> None:
    """Draw one map; a SwysError where that cannot be done."""
    try:
        maps = draw(pixels, np.zeros(len(pixels), dtype=np.int64))
    except SwysError:
        raise
    except Exception as error:  # a model of a reader may raise anything
        reason = reason_of(error, with_kind=True)
        raise SwysError(f"it cannot be explained ({reason}); name a layer with --layer") from None
    if maps.ndim != 3 or not math.isfinite(float(maps.sum())):
        raise SwysError("its map is not finite; name another layer with --layer")


def kind_of_input(model: nn.Module) -> dict[str, Any]:
    """Where a model computes and with which numbers, as keywords of ``Tensor.to``.

    Args:
        model: any module.

    Returns:
        ``device`` and ``dtype`` of its first weight that is no whole number; the CPU and float32
        where it has none.
    """
    for weight in model.parameters():
        if weight.is_floating_point():
            return {"device": weight.device, "dtype": weight.dtype}
    return {"device": torch.device("cpu"), "dtype": torch.float32}
