"""Inside a timm Vision Transformer: what explaining and counting need of it beyond its output."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from timm.layers import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from .config import SwysError
from .data import to_model_input


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Every layer in eval mode (no dropout, no dropped patches), and each back in its own mode afterwards."""
    in_training = [module for module in model.modules() if module.training]
    graph = torch.is_grad_enabled()
    try:
        # inside torch.inference_mode() nothing can turn autograd on; leaving it turns autograd on by itself
        with torch.inference_mode(False), torch.set_grad_enabled(graph):
            yield model.eval()
    finally:
        torch.clear_autocast_cache()  # casts made without a gradient must not serve a later training step
        for module in in_training:
            module.training = True


@contextmanager
def plain_attention(module: torch.nn.Module) -> Iterator[None]:
    """Attention as separate products inside the block; afterwards each layer is as it was.

    The fused kernel forms no map, has no second derivative, hides its operations from torch's counter, and
    on a CPU its backward pass takes twice as long.
    """
    layers = [layer for layer in module.modules() if hasattr(layer, "fused_attn")]
    before = [layer.fused_attn for layer in layers]
    try:
        for layer in layers:
            layer.fused_attn = False
        yield
    finally:
        for layer, fused in zip(layers, before):
            layer.fused_attn = fused


def input_batches(model: nn.Module, images, batch_size: int) -> Iterator[tuple[slice, Tensor]]:
    """(rows, model input on the model's device) of images as ``heatmaps`` takes them, batch by batch."""
    device = next(model.parameters()).device
    for start in range(0, len(images), batch_size):
        rows = slice(start, start + batch_size)
        x = (
            np.array(images[rows]) if isinstance(images, np.ndarray) else images[rows]
        )  # maps are read-only
        x = torch.as_tensor(x).to(device)
        yield rows, x if x.is_floating_point() else to_model_input(x, model.patch_embed.img_size[0])


def checked_input(model: nn.Module, inputs: Tensor, block: int) -> tuple[Tensor, int]:
    """Refuse what cannot be explained here; return the inputs as the model wants them, and block >= 0."""
    plain = getattr(type(model), "forward_features", None) is VisionTransformer.forward_features
    if not plain or not all(
        type(x) is Block and isinstance(x.attn, Attention) for x in model.blocks
    ):
        kind = type(model.blocks[0] if plain else model).__name__
        raise SwysError(
            f"{kind} is not of a plain timm VisionTransformer; pass one, without a wrapper"
        )
    depth, size, shape = (
        len(model.blocks),
        model.patch_embed.img_size,
        tuple(getattr(inputs, "shape", ())),
    )
    if not -depth <= block < depth:
        raise SwysError(f"block {block} does not exist; choose 0 to {depth - 1}, or -{depth} to -1")
    fits = model.dynamic_img_size or shape[2:] == tuple(size)
    if len(shape) != 4 or not fits or not inputs.is_floating_point():
        raise SwysError(
            f"inputs of shape {shape}; give a float tensor (B, 3, {size[0]}, {size[1]})"
        )
    return inputs.to(next(model.parameters())), block % depth


def embedded_tokens(model: VisionTransformer, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """The tokens that enter the blocks, and which patches PatchDropout (Liu et al. 2023) left (None: all)."""
    tokens, first, kept = model._pos_embed(model.patch_embed(x)), model.num_prefix_tokens, None
    share = getattr(model.patch_drop, "prob", 0.0)
    if (
        model.patch_drop.training and share > 0
    ):  # by the random numbers that timm's layer would draw
        order = torch.randn(*tokens[:, first:, 0].shape, device=x.device).argsort(dim=1)
        kept = order[:, : max(1, int(order.shape[1] * (1 - share)))]
        patches = tokens[:, first:].gather(1, kept[..., None].expand(-1, -1, tokens.shape[-1]))
        tokens = torch.cat([tokens[:, :first], patches], dim=1)
    return model.norm_pre(tokens), kept


def block_with_attention(layer: Block, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens after one block, and its attention map (B, heads, N, N): a leaf, where a backward pass ends."""
    seen = []

    def keep(module, args, output):
        seen.append(output.detach().requires_grad_())
        return seen[0]

    with plain_attention(layer), layer.attn.attn_drop.register_forward_hook(keep):
        return layer(tokens), seen[0]
