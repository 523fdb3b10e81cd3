"""Heatmaps for Vision Transformers, unnormalised: how large a value is says how strong the evidence is."""

from __future__ import annotations

import matplotlib
import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .config import SwysError, unknown
from .data import to_planes
from .vit_internals import (
    block_with_attention,
    checked_input,
    embedded_tokens,
    evaluation_mode,
    input_batches,
    plain_attention,
)


def grad_cam(model: nn.Module, inputs: Tensor, targets=None, block=-1, signed=False) -> Tensor:
    """Grad-CAM (Selvaraju et al. 2017) on the output of ``model.blocks[block].norm1``.

    Why norm1: a model that classifies from its CLS token never reads the patch tokens that leave its last
    block, so their gradient is exactly zero there. They last count at the input of that block's attention.

    Args:
        model: any plain timm VisionTransformer; it is left as it was. inputs: float (B, 3, H, W) for it.
        targets: None for the predicted class, one class for all images, or B classes.
        block: the block to look at; those before it run without a gradient: -1 costs about one forward pass.
        signed: leave out the final ReLU, to see evidence against the class too.

    Returns float32 (B, gh, gw) on the device of ``inputs``, detached, unnormalised, >= 0 unless signed.
    Raises SwysError for another kind of model, or inputs, targets or a block that do not fit it.
    """
    with evaluation_mode(model):
        return _as_map(_cam(model, inputs, targets, block)[1], model, inputs, signed)


def hires_cam(model: nn.Module, inputs: Tensor, targets=None, block=-1, signed=False) -> Tensor:
    """HiResCAM (Draelos & Carin 2020): gradient x activation, token by token. Otherwise as ``grad_cam``."""
    with evaluation_mode(model):
        return _as_map(_cam(model, inputs, targets, block, by_token=True)[1], model, inputs, signed)


def attention_rollout(
    model: nn.Module, inputs: Tensor, targets=None, block=-1, signed=False
) -> Tensor:
    """Attention rollout (Abnar & Zuidema 2020): head-averaged attention, multiplied up to ``block``.

    A value is the share of attention that the tokens read by the head pay to a patch; half of each factor is
    the skip connection. There is no class and no sign: ``targets`` and ``signed`` change nothing.
    """
    x, index = checked_input(model, inputs, block)
    first, rollout = model.num_prefix_tokens, None
    readers = (
        slice(first, None)
        if model.global_pool != "token"
        else slice(1 + hasattr(model, "head_dist"))
    )
    with evaluation_mode(model), torch.no_grad():
        tokens, _ = embedded_tokens(model, x)
        for layer in model.blocks[: index + 1]:
            tokens, attention = block_with_attention(layer, tokens)
            attention = attention.float().mean(dim=1)
            mixed = (attention + torch.eye(attention.shape[-1], device=attention.device)) / 2
            rollout = mixed if rollout is None else mixed @ rollout
    return _as_map(rollout[:, readers, first:].mean(dim=1), model, inputs, signed=True)


def legrad(model: nn.Module, inputs: Tensor, targets=None, block=-1, signed=False) -> Tensor:
    """LeGrad (Bousselham et al. 2024): what would more attention to a patch add to the class score?

    After each block up to ``block`` the model's norm and head score the tokens; the gradient of that score by
    this block's attention map, after ReLU, is averaged over heads, queries and blocks. Without the paper's
    final min-max; otherwise as ``grad_cam``.
    """
    (x, index), gradients = checked_input(model, inputs, block), []
    with evaluation_mode(model), torch.no_grad():
        tokens, _ = embedded_tokens(model, x)
        if targets is None:
            targets = model.forward_head(model.norm(model.blocks(tokens))).argmax(dim=1)
        for layer in model.blocks[: index + 1]:
            with torch.enable_grad():  # a block's gradient never reaches the block before it
                tokens, attention = block_with_attention(layer, tokens.detach())
                score = _score(model.forward_head(model.norm(tokens)), targets)
                (gradient,) = torch.autograd.grad(score, attention)
            gradients.append((gradient if signed else gradient.relu()).float().mean(dim=(1, 2)))
    return _as_map(
        torch.stack(gradients).mean(0)[:, model.num_prefix_tokens :], model, inputs, signed
    )


METHODS = {method.__name__: method for method in (grad_cam, hires_cam, legrad, attention_rollout)}


def logits_and_map(
    model: nn.Module, inputs: Tensor, targets=None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Logits and signed Grad-CAM at the last block from one forward pass, to train a model by its map.

    The model runs in the mode that it is in, so with PatchDropout in training. The map is differentiable
    (second order, through the last block only). Under ``torch.no_grad()``, or when no weight requires a
    gradient, both results are detached and cost about one forward pass. Raises as ``grad_cam``.

    Returns logits float32 (B, C); map float32 (B, n) of the n patch tokens; kept: int64 (B, n), their
    positions in the grid, row by row, when PatchDropout took some patches away, else None.
    """
    graph = torch.is_grad_enabled() and any(weight.requires_grad for weight in model.parameters())
    return _cam(model, inputs, targets, -1, graph)


def heatmaps(
    model, images, method="grad_cam", targets=None, batch_size=32, **options
) -> np.ndarray:
    """Maps of many images, float32 (N, gh, gw); ``targets``, ``options`` (block, signed) as in ``grad_cam``.

    ``images``: uint8 (N, H, W[, 3]) or model input, float (N, 3, S, S). ``method``: its name or itself.
    """
    run = method if callable(method) else METHODS.get(method)
    if run is None:
        raise SwysError(unknown("method", method, METHODS))
    each = targets is not None and np.ndim(targets) > 0
    if not len(images) or (each and len(targets) != len(images)):
        raise SwysError(
            f"targets {targets!s:.40} for {len(images)} images; give an image, a target for each"
        )
    batches = input_batches(model, images, batch_size)
    maps = [
        run(model, x, targets[rows] if each else targets, **options).cpu() for rows, x in batches
    ]
    return torch.cat(maps).numpy()


def overlay(images, heatmaps, alpha=0.5, scale="image", cmap="inferno", size=None) -> np.ndarray:
    """Draw heatmaps (N, gh, gw) over images: uint8 (N, H, W, 3). Negative values count as 0.

    Args:
        images: uint8 (N, H, W[, 3]), or model input: float (N, 3, H, W) in [-1, 1].
        alpha: opacity from 0 to 1 where a map is strongest; where it is zero the image shows unchanged.
        scale: what counts as strongest: 'image' for each map's own maximum, or one positive number for all
            maps, which keeps weak maps weak. A map of zeros stays empty under both.
        cmap: a matplotlib colour map. size: height and width of the result in px; None keeps the image's.
    """
    if not 0 <= alpha <= 1 or (scale != "image" and (isinstance(scale, str) or not scale > 0)):
        raise SwysError(
            f"alpha={alpha}, scale={scale}; alpha is 0 to 1, scale 'image' or a positive number"
        )
    pixels = torch.as_tensor(images).detach().cpu()
    pixels = pixels.float() if pixels.is_floating_point() else to_planes(pixels)
    maps = torch.as_tensor(heatmaps).detach().float().cpu().clamp(min=0)
    if maps.ndim != 3 or len(maps) != len(pixels):
        raise SwysError(
            f"heatmaps {tuple(maps.shape)} for {len(pixels)} images; give one (gh, gw) map each"
        )
    strongest = (
        maps.amax(dim=(1, 2), keepdim=True) if scale == "image" else torch.tensor(float(scale))
    )
    heat = (maps / strongest.clamp(min=torch.finfo(torch.float32).tiny)).clamp(max=1)[:, None]
    shape = pixels.shape[-2:] if size is None else (size, size)
    resized = (nn.functional.interpolate(x, shape, mode="bilinear") for x in (heat, pixels))
    heat, pixels = (x.movedim(1, 3).numpy() for x in resized)
    colours = matplotlib.colormaps[cmap](heat[..., 0])[..., :3] * 255
    blended = (1 - alpha * heat) * (pixels + 1) * 127.5 + alpha * heat * colours
    return blended.round().clip(0, 255).astype(np.uint8)


def _cam(model, inputs, targets, block: int, graph=False, by_token=False):
    """The one Grad-CAM: logits (B, C), signed values (B, n) of the patch tokens, and their positions."""
    x, index = checked_input(model, inputs, block)
    with torch.set_grad_enabled(graph):
        tokens, kept = embedded_tokens(model, x)
        tokens = model.blocks[:index](tokens)
    layer, first, read = model.blocks[index], model.num_prefix_tokens, slice(None)
    if layer is model.blocks[-1] and model.global_pool == "token":
        read = slice(
            first
        )  # the head reads the prefix tokens alone: patch tokens skip the last MLP
    # without the fused attention kernel: it has no second derivative and, on CPUs, a slow backward pass
    with torch.enable_grad(), plain_attention(model):
        activation = layer.norm1(tokens)
        if not (graph and activation.requires_grad):
            activation = activation.detach().requires_grad_()
        tokens = tokens[:, read] + layer.drop_path1(layer.ls1(layer.attn(activation)[:, read]))
        tokens = tokens + layer.drop_path2(layer.ls2(layer.mlp(layer.norm2(tokens))))
        logits = model.forward_head(model.norm(model.blocks[index + 1 :](tokens))).float()
        (gradient,) = torch.autograd.grad(_score(logits, targets), activation, create_graph=graph)
    gradient, activation = gradient[:, first:].float(), activation[:, first:].float()
    weights = gradient if by_token else gradient.mean(dim=1, keepdim=True)  # of each channel
    values = (weights * activation).sum(dim=-1)
    if graph:
        return logits, values, kept
    torch.clear_autocast_cache()
    return logits.detach(), values.detach(), kept


def _score(logits: Tensor, targets) -> Tensor:
    """Sum of the logits to explain: images do not see each other, so its gradient is that of each of them."""
    targets = logits.argmax(dim=1) if targets is None else targets
    classes, (count, known) = torch.as_tensor(targets, device=logits.device), logits.shape
    whole = not classes.is_floating_point() and classes.dtype != torch.bool
    if (
        not whole
        or classes.shape not in ((), (count,))
        or not ((classes >= 0) & (classes < known)).all()
    ):
        shown = f"targets {classes.tolist()!s:.40} for {count} images"
        raise SwysError(f"{shown}; give one class from 0 to {known - 1}, or one for each image")
    return logits.gather(1, classes.long().expand(count)[:, None]).sum()


def _as_map(values: Tensor, model: VisionTransformer, inputs: Tensor, signed: bool) -> Tensor:
    """Token values (B, N) as a map (B, gh, gw) on the device of the inputs."""
    grid = model.patch_embed.dynamic_feat_size(tuple(inputs.shape[-2:]))
    values = values.float().reshape(len(values), *grid).to(inputs.device)
    return values if signed else values.relu()
