"""Inside a timm Vision Transformer: what explaining and counting need of it beyond its output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import numpy as np
import torch
from timm.layers import Attention, PatchDropout, patch_dropout_forward
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from .config import SwysError
from .data import to_model_input

# The class to explain: None for the predicted one, one for all images, or one for each image.
Targets: TypeAlias = int | Sequence[int] | np.ndarray | Tensor | None


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put every layer in eval mode (no dropout, no dropped patches); afterwards restore each mode.

    Under ``torch.inference_mode()``, too, the code inside can turn gradients on.

    Args:
        model: any module; layers that were in training mode are so again at the end of the block.
    """
    in_training = [module for module in model.modules() if module.training]
    gradients_enabled = torch.is_grad_enabled()
    try:
        # Inside torch.inference_mode() nothing can turn autograd on, and leaving it turns autograd
        # on by itself: so leave it, and set autograd to what the caller had.
        with torch.inference_mode(False), torch.set_grad_enabled(gradients_enabled):
            model.eval()
            yield
    finally:
        # Casts that autocast made without a gradient must not serve a later training step.
        torch.clear_autocast_cache()
        for module in in_training:
            module.training = True


@contextmanager
def plain_attention(module: nn.Module) -> Iterator[None]:
    """Compute attention as separate products inside the block; afterwards each layer is as it was.

    The fused kernel forms no attention map, has no second derivative and hides its operations from
    torch's counter. On CPUs that are fast in bfloat16 its backward pass takes twice as long; in
    float32 it is as fast or faster.

    Args:
        module: a model or a part of it; each layer in it with timm's ``fused_attn`` is switched.
    """
    layers = [layer for layer in module.modules() if hasattr(layer, "fused_attn")]
    settings = [layer.fused_attn for layer in layers]
    try:
        for layer in layers:
            layer.fused_attn = False
        yield
    finally:
        for layer, fused in zip(layers, settings):
            layer.fused_attn = fused


def input_batches(
    model: nn.Module, images: np.ndarray | Tensor, batch_size: int
) -> Iterator[tuple[slice, Tensor]]:
    """Go through many images batch by batch, as the model reads them.

    Args:
        model: a timm ViT; it sets the side of the pictures and the device.
        images: uint8 (N, H, W) or (N, H, W, 3), or model input, float (N, 3, S, S).
        batch_size: number of images in a batch; the last one may be smaller.

    Yields:
        The slice of ``images`` that is in the batch, and their model input, float (B, 3, S, S).
    """
    parameter = next(model.parameters())
    for start in range(0, len(images), batch_size):
        selection = slice(start, start + batch_size)
        inputs = images[selection]
        if isinstance(inputs, np.ndarray):
            inputs = np.array(inputs)  # a copy: torch warns of the read-only pages of a mapped file
        inputs = torch.as_tensor(inputs).to(parameter.device)
        if not inputs.is_floating_point():
            inputs = to_model_input(inputs, model.patch_embed.img_size[0])
        yield selection, inputs.to(parameter.dtype)


def checked_input(model: nn.Module, inputs: Tensor, block: int) -> tuple[Tensor, int]:
    """Check that a model can be explained at a block on these inputs.

    Args:
        model: a plain timm VisionTransformer.
        inputs: float (B, 3, H, W) of the size that the model reads.
        block: number of a block from 0; a negative one counts from the end.

    Returns:
        The inputs with the device and dtype of the model, and the number of the block from 0.

    Raises:
        SwysError: another kind of model, a block that does not exist, inputs of another shape.
    """
    check_kind(model)
    depth = len(model.blocks)
    if not -depth <= block < depth:
        raise SwysError(f"block {block} does not exist; choose 0 to {depth - 1}, or -{depth} to -1")
    size = tuple(model.patch_embed.img_size)
    shape = tuple(getattr(inputs, "shape", ()))
    has_channels = shape[1:2] == (model.patch_embed.proj.in_channels,)
    fits = has_channels and (model.dynamic_img_size or shape[2:] == size)
    if len(shape) != 4 or not fits or not inputs.is_floating_point():
        wanted = f"(B, 3, {size[0]}, {size[1]})"
        raise SwysError(f"inputs of shape {shape}; give a float tensor {wanted}")
    return inputs.to(next(model.parameters())), block % depth


def embedded_tokens(model: VisionTransformer, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """The tokens that enter the first block.

    Args:
        model: a timm ViT. In training mode its PatchDropout (Liu et al. 2023) takes patches away.
        x: model input, float (B, 3, H, W).

    Returns:
        Tokens, float (B, N, D); and the positions in the grid of the patches that PatchDropout
        kept, int64 (B, n), or None where all patches are there.
    """
    tokens = model._pos_embed(model.patch_embed(x))
    dropout = model.patch_drop
    kept = None
    if isinstance(dropout, PatchDropout):
        # as the layer itself does it, which would not say which patches it kept
        tokens, kept = patch_dropout_forward(
            tokens, dropout.prob, dropout.num_prefix_tokens, dropout.ordered, dropout.training
        )
    return model.norm_pre(tokens), kept


def block_with_attention(block: Block, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Run one block and look at its attention map.

    Args:
        block: a block of a timm ViT.
        tokens: what enters it, float (B, N, D).

    Returns:
        The tokens after the block, float (B, N, D), and the attention map, float (B, heads, N, N).
        The map is a leaf of the graph, so a backward pass from the tokens ends there.
    """
    maps = []

    def detach_map(module, args, output):
        maps.append(output.detach().requires_grad_())
        return maps[0]

    # attn_drop is the layer that the attention map passes through
    with plain_attention(block), block.attn.attn_drop.register_forward_hook(detach_map):
        tokens = block(tokens)
    return tokens, maps[0]


def read_by_head(model: VisionTransformer) -> slice:
    """The tokens that a model classifies from.

    Args:
        model: a timm ViT.

    Returns:
        Their positions: CLS tokens, of which a distilled DeiT has two, or all patch tokens.
    """
    if model.global_pool != "token":
        return slice(model.num_prefix_tokens, None)
    is_distilled = hasattr(model, "head_dist")
    return slice(2 if is_distilled else 1)


def logits_of(model: VisionTransformer, tokens: Tensor) -> Tensor:
    """What a model's last norm and its head make of tokens, whichever block they come from.

    Args:
        model: a timm ViT.
        tokens: float (B, N, D).

    Returns:
        Logits, float (B, C).
    """
    return model.forward_head(model.norm(tokens))


def check_kind(model: nn.Module) -> None:
    """Refuse a model that does not compute what ``gradcam`` computes step by step.

    Args:
        model: any model.

    Raises:
        SwysError: it is no plain timm VisionTransformer.
    """
    forward_features = getattr(type(model), "forward_features", None)
    unsupported = [model]
    if forward_features is VisionTransformer.forward_features:
        unsupported = [
            block
            for block in model.blocks
            if type(block) is not Block or not isinstance(block.attn, Attention)
        ]
    if unsupported:
        kind = type(unsupported[0]).__name__
        raise SwysError(
            f"{kind} is not of a plain timm VisionTransformer; pass one, without a wrapper"
        )


def explained_score(logits: Tensor, targets: Targets) -> Tensor:
    """Sum of the logits to explain, one of each image.

    No image changes another one's logits, so the gradient of the sum at an image is the gradient
    of this image's logit.

    Args:
        logits: float (B, C).
        targets: as for ``explained_classes``.

    Returns:
        A scalar.

    Raises:
        SwysError: as ``explained_classes`` does.
    """
    classes = explained_classes(logits, targets)
    return logits.gather(1, classes[:, None]).sum()


def explained_classes(logits: Tensor, targets: Targets) -> Tensor:
    """The class to explain in each image.

    Args:
        logits: float (B, C).
        targets: None for the highest logit, one class for all images, or B classes.

    Returns:
        int64 (B,).

    Raises:
        SwysError: classes that do not exist, or another number of them.
    """
    if targets is None:
        targets = logits.argmax(dim=1)
    count, num_classes = logits.shape
    # a clone, because autograd keeps no tensor of inference mode
    classes = torch.as_tensor(targets, device=logits.device).clone()
    whole = not classes.is_floating_point() and classes.dtype != torch.bool
    one_or_each = classes.shape in ((), (count,))
    exist = ((classes >= 0) & (classes < num_classes)).all()
    if not whole or not one_or_each or not exist:
        shown = f"targets {classes.tolist()!s:.40} for {count} images"
        choice = f"give one class from 0 to {num_classes - 1}, or one for each image"
        raise SwysError(f"{shown}; {choice}")
    return classes.long().expand(count)


def targets_of(targets: Targets, selection: slice, count: int) -> Targets:
    """The classes to explain in some of many images.

    Args:
        targets: None for the predicted class, one class for all images, or N classes.
        selection: which images.
        count: number of all images N.

    Returns:
        As many of N classes; else the targets as they are.

    Raises:
        SwysError: another number of targets than images.
    """
    if targets is None or np.ndim(torch.as_tensor(targets)) == 0:
        return targets
    classes = torch.as_tensor(targets)
    if len(classes) != count:
        shown = f"targets {targets!s:.40} for {count} images"
        raise SwysError(f"{shown}; give one class for all, or one for each image")
    return classes[selection]


def as_map(values: Tensor, model: VisionTransformer, inputs: Tensor, signed: bool) -> Tensor:
    """Values of the patch tokens as a map on the grid of the patches.

    Args:
        values: float (B, N), in the order of the patch tokens.
        model: the ViT that they are of.
        inputs: the model input, whose device the map is on.
        signed: keep negative values; else they become 0.

    Returns:
        float32 (B, gh, gw).
    """
    grid = model.patch_embed.dynamic_feat_size(tuple(inputs.shape[-2:]))
    maps = values.float().reshape(len(values), *grid).to(inputs.device)
    return maps if signed else maps.relu()
