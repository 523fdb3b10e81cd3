"""Heatmaps for Vision Transformers: Grad-CAM, three comparisons with the same call, and the overlay.

Every method is called as ``method(model, inputs, targets=None, block=-1, signed=False)`` and returns
float32 (B, grid height, grid width), unnormalised: how large a map is says how strong the evidence is, so
nothing stretches it behind the reader's back. ``METHODS`` maps names to functions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from timm.layers import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from .config import SwysError
from .models import plain_attention

Targets = int | Sequence[int] | np.ndarray | Tensor | None


def grad_cam(
    model: nn.Module, inputs: Tensor, targets: Targets = None, block: int = -1, signed: bool = False
) -> Tensor:
    """Grad-CAM (Selvaraju et al. 2017) on the output of ``model.blocks[block].norm1``.

    Why norm1: a model that classifies from its CLS token never reads the patch tokens that leave its last
    block, so their gradient is exactly zero there. They last count at the input of that block's attention.

    Args:
        model: any timm VisionTransformer (CLS, average, register or distillation tokens; any grid). Its
            mode, ``requires_grad`` and hooks are as before when this returns or raises.
        inputs: float (B, 3, H, W), normalised as the model expects.
        targets: None for the predicted class, one class for all images, or B classes.
        block: the block to look at; those before it run without a gradient: -1 costs about one forward pass.
        signed: leave out the final ReLU, to see evidence against the class too.

    Returns:
        float32 (B, gh, gw) on the device of ``inputs``, detached, unnormalised, >= 0 unless signed.

    Raises:
        SwysError: another kind of model, or inputs, targets or a block that do not fit it.
    """
    activation, gradient, grid = _activation_and_gradient(model, inputs, targets, block)
    weights = gradient.mean(
        dim=1, keepdim=True
    )  # one weight per channel: the gradient's mean over patch tokens
    cam = (weights * activation).sum(dim=-1)
    return _finish(cam, grid, inputs, signed)


def hires_cam(
    model: nn.Module, inputs: Tensor, targets: Targets = None, block: int = -1, signed: bool = False
) -> Tensor:
    """HiResCAM (Draelos & Carin 2020): gradient x activation, token by token. Otherwise as ``grad_cam``."""
    activation, gradient, grid = _activation_and_gradient(model, inputs, targets, block)
    return _finish((gradient * activation).sum(dim=-1), grid, inputs, signed)


def attention_rollout(
    model: nn.Module, inputs: Tensor, targets: Targets = None, block: int = -1, signed: bool = False
) -> Tensor:
    """Attention rollout (Abnar & Zuidema 2020): head-averaged attention, multiplied up to ``block``.

    Half of each factor is the skip connection. It knows no class and no sign: ``targets`` and ``signed``
    change nothing. A value is the share of attention that the head's tokens pay to a patch.
    """
    x, last, grid = _check(model, inputs, block)
    with evaluation_mode(model), torch.no_grad(), _attention_maps(model) as maps:
        x, rollout = _embed(model, x), None
        for layer in model.blocks[: last + 1]:
            x = layer(x)
            attention = maps.pop().float().mean(dim=1)
            mixed = (attention + torch.eye(attention.shape[-1], device=attention.device)) / 2
            rollout = mixed if rollout is None else mixed @ rollout
    readers = slice(0, 2 if hasattr(model, "head_dist") else 1)
    if model.global_pool != "token":
        readers = slice(model.num_prefix_tokens, None)
    return _finish(rollout[:, readers, model.num_prefix_tokens :].mean(dim=1), grid, inputs, signed=True)


def legrad(
    model: nn.Module, inputs: Tensor, targets: Targets = None, block: int = -1, signed: bool = False
) -> Tensor:
    """LeGrad (Bousselham et al. 2024): what would more attention to a patch add to the class score?

    After each block up to ``block`` the model's norm and head score the tokens; the gradient of that score
    by this block's attention map, after ReLU, is averaged over heads, queries and blocks. The paper's final
    min-max is left out. targets=None is the class that the whole model predicts. Otherwise as ``grad_cam``.
    """
    x, last, grid = _check(model, inputs, block)
    with evaluation_mode(model):
        with torch.no_grad():
            tokens = _embed(model, x)
            classes = _classes(_head(model, model.blocks(tokens)), targets)
        total = 0
        with _attention_maps(model, leaf=True) as maps:
            for layer in model.blocks[: last + 1]:
                with torch.enable_grad():
                    tokens = layer(tokens.detach())  # a block's gradient never reaches the block before it
                    score = _head(model, tokens).gather(1, classes[:, None]).sum()
                    (gradient,) = torch.autograd.grad(score, maps.pop())
                total = total + (gradient if signed else gradient.relu()).float().mean(dim=(1, 2))
    return _finish(total[:, model.num_prefix_tokens :] / (last + 1), grid, inputs, signed)


METHODS = {
    "grad_cam": grad_cam,
    "hires_cam": hires_cam,
    "legrad": legrad,
    "attention_rollout": attention_rollout,
}


def overlay(
    images: np.ndarray | Tensor,
    heatmaps: np.ndarray | Tensor,
    alpha: float = 0.5,
    scale: str | float = "image",
    cmap: str = "inferno",
    size: int | None = None,
) -> np.ndarray:
    """Draw heatmaps over images.

    Args:
        images: uint8 (N, H, W) or (N, H, W, 3), or model input: float (N, 3, H, W) in [-1, 1].
        heatmaps: (N, gh, gw), resized bilinearly to the image; negative values count as 0.
        alpha: opacity from 0 to 1 where a map is strongest; where it is zero the image shows unchanged.
        scale: what counts as strongest: 'image' for each map's own maximum, or one positive number for all
            maps, which keeps weak maps weak. A map of zeros stays empty under both.
        cmap: a matplotlib colour map; the default reads well for the colour-blind and in grey.
        size: height and width of the result in pixels, to enlarge small images; None keeps the image's own.

    Returns:
        uint8 (N, H, W, 3).

    Raises:
        SwysError: shapes that do not fit, or an alpha or scale out of range.
    """
    if not 0 <= alpha <= 1:
        raise SwysError(f"alpha is {alpha}; give an opacity from 0 to 1")
    pixels = _as_rgb(images)
    maps = torch.as_tensor(heatmaps).detach().float().cpu().clamp(min=0)
    if maps.ndim != 3 or len(maps) != len(pixels):
        raise SwysError(
            f"heatmaps of shape {tuple(maps.shape)} for {len(pixels)} images; give one (gh, gw) map each"
        )
    if size is not None:
        pixels = F.interpolate(pixels, size=(size, size), mode="bilinear", align_corners=False)
    if scale == "image":
        strongest = maps.amax(dim=(1, 2), keepdim=True)
    elif not isinstance(scale, str) and scale > 0:
        strongest = torch.full((len(maps), 1, 1), float(scale))
    else:
        raise SwysError(f"scale is {scale!r}; give 'image' or a positive number")
    heat = torch.where(strongest > 0, maps / strongest.clamp(min=torch.finfo(torch.float32).tiny), 0).clamp(
        max=1
    )
    heat = F.interpolate(heat[:, None], size=pixels.shape[-2:], mode="bilinear", align_corners=False)[
        :, 0
    ].numpy()
    colours = matplotlib.colormaps[cmap](heat)[..., :3] * 255
    opacity = alpha * heat[..., None]
    blended = (1 - opacity) * pixels.permute(0, 2, 3, 1).numpy() + opacity * colours
    return blended.round().astype(np.uint8)


def _as_rgb(images: np.ndarray | Tensor) -> Tensor:
    """Images of any accepted kind as float (N, 3, H, W) in [0, 255]."""
    pixels = torch.as_tensor(images).detach().cpu()
    if pixels.dtype == torch.uint8 and pixels.ndim == 3:
        return pixels[:, None].float().expand(-1, 3, -1, -1)
    if pixels.dtype == torch.uint8 and pixels.ndim == 4 and pixels.shape[-1] == 3:
        return pixels.permute(0, 3, 1, 2).float()
    if pixels.is_floating_point() and pixels.ndim == 4 and pixels.shape[1] == 3:
        return ((pixels.float() + 1) * 127.5).clamp(0, 255)
    shape = tuple(pixels.shape)
    raise SwysError(f"images {shape} {pixels.dtype}; give uint8 (N, H, W[, 3]) or float (N, 3, H, W)")


def _activation_and_gradient(
    model: nn.Module, inputs: Tensor, targets: Targets, block: int
) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Patch tokens after norm1 of ``block`` and the gradient of the chosen logits by them, both (B, N, C)."""
    x, index, grid = _check(model, inputs, block)
    kept = []

    def start_here(module, args, output):
        kept.append(output.detach().requires_grad_())  # a leaf: the backward pass ends here
        return kept[0]

    with evaluation_mode(model):
        with torch.no_grad():
            x = model.blocks[:index](_embed(model, x))
        handle = model.blocks[index].norm1.register_forward_hook(start_here)
        try:
            with torch.enable_grad():
                logits = _head(model, last_blocks(model, model.blocks[index:], x))
                # images do not see each other: one backward pass of the sum gives each its own gradient
                score = logits.gather(1, _classes(logits, targets)[:, None]).sum()
                (gradient,) = torch.autograd.grad(score, kept[0])
        finally:
            handle.remove()
    first = model.num_prefix_tokens
    return kept[0].detach()[:, first:].float(), gradient[:, first:].float(), grid


def _check(model: nn.Module, inputs: Tensor, block: int) -> tuple[Tensor, int, tuple[int, int]]:
    """Refuse what cannot be explained here; return inputs as the model wants them, block >= 0, patch grid."""
    kind = type(model)
    plain = isinstance(model, VisionTransformer) and kind.forward_features is VisionTransformer.forward_features
    if not plain:
        raise SwysError(f"{kind.__name__} is not a plain timm VisionTransformer; pass a ViT without a wrapper")
    if not all(isinstance(layer, Block) for layer in model.blocks):
        name = type(model.blocks[0]).__name__
        raise SwysError(f"{name} has no norm right before its attention; use a model built from timm's Block")
    if not isinstance(inputs, Tensor) or inputs.ndim != 4 or not inputs.is_floating_point():
        shape = tuple(getattr(inputs, "shape", ()))
        raise SwysError(f"inputs of shape {shape}; give a float tensor (B, 3, H, W), as to_model_input makes")
    depth = len(model.blocks)
    if not -depth <= block < depth:
        raise SwysError(f"block {block} does not exist; choose 0 to {depth - 1}, or -{depth} to -1")
    grid = model.patch_embed.grid_size
    if model.dynamic_img_size:
        grid = model.patch_embed.dynamic_feat_size(tuple(inputs.shape[-2:]))
    elif tuple(inputs.shape[-2:]) != tuple(model.patch_embed.img_size):
        height, width = model.patch_embed.img_size
        raise SwysError(f"inputs of {tuple(inputs.shape[-2:])} pixels; this model takes {height} x {width}")
    weight = next(model.patch_embed.parameters())
    return inputs.to(device=weight.device, dtype=weight.dtype), block % depth, grid


def _classes(logits: Tensor, targets: Targets) -> Tensor:
    """The class to explain for each image, int64 (B,)."""
    if logits.ndim != 2 or logits.shape[1] == 0:
        raise SwysError(f"the model puts out {tuple(logits.shape)}; a heatmap needs one row of logits per image")
    if targets is None:
        return logits.argmax(dim=1)
    classes = torch.as_tensor(targets, device=logits.device)
    if classes.is_floating_point() or classes.dtype == torch.bool or classes.ndim > 1:
        raise SwysError(f"targets of {classes.dtype}, {tuple(classes.shape)}; give whole numbers, one an image")
    if classes.ndim == 1 and len(classes) != len(logits):
        raise SwysError(f"{len(classes)} targets for {len(logits)} images; give one class, or one per image")
    if classes.numel() and (classes.min() < 0 or classes.max() >= logits.shape[1]):
        raise SwysError(f"targets {classes.min()} to {classes.max()}; classes are 0 to {logits.shape[1] - 1}")
    return classes.long().expand(len(logits))


def _embed(model: VisionTransformer, x: Tensor) -> Tensor:
    """Image to tokens: the steps of timm's forward_features before the blocks."""
    return model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(x))))


def last_blocks(model: VisionTransformer, blocks: Sequence[Block], x: Tensor) -> Tensor:
    """Tokens (B, N, C) through the model's last blocks, without what its head never reads.

    A head that reads the prefix tokens (CLS) alone needs only those from the last block, so patch tokens skip its
    MLP: two thirds of a block less forward, and backward a stretch whose gradient is zero anyway.
    """
    *before, last = blocks
    for block in before:
        x = block(x)
    if model.global_pool != "token" or type(last) is not Block:
        return last(x)
    prefix = slice(model.num_prefix_tokens)
    x = x[:, prefix] + last.drop_path1(last.ls1(last.attn(last.norm1(x))[:, prefix]))
    return x + last.drop_path2(last.ls2(last.mlp(last.norm2(x))))


def _head(model: VisionTransformer, tokens: Tensor) -> Tensor:
    """Tokens to logits: the steps after the blocks."""
    return model.forward_head(model.norm(tokens))


def _finish(values: Tensor, grid: tuple[int, int], inputs: Tensor, signed: bool) -> Tensor:
    """Token values (B, N) as a map (B, gh, gw) on the device of the inputs."""
    values = values.detach().float().reshape(len(values), *grid).to(inputs.device)
    return values if signed else values.relu()


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Every layer in eval mode (no dropout, no dropped patches), and each back in its own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with torch.inference_mode(False):  # inside torch.inference_mode() nothing can turn autograd on
            yield
    finally:
        torch.clear_autocast_cache()  # casts made without a gradient must not serve a later training step
        for module, mode in modes:
            module.training = mode


@contextmanager
def _attention_maps(model: VisionTransformer, leaf: bool = False) -> Iterator[list[Tensor]]:
    """Collect attention maps (B, heads, N, N) as blocks run, without the fused kernel, which forms none."""
    attentions = [layer.attn for layer in model.blocks]
    if not all(isinstance(attention, Attention) for attention in attentions):
        raise SwysError(f"{type(attentions[0]).__name__} shows no attention map; use grad_cam or hires_cam")
    maps: list[Tensor] = []

    def keep(module, args, output):
        maps.append(output.detach().requires_grad_() if leaf else output)
        return maps[-1]

    handles = [attention.attn_drop.register_forward_hook(keep) for attention in attentions]
    try:
        with plain_attention(model):
            yield maps
    finally:
        for handle in handles:
            handle.remove()
