"""Heatmaps that read a Vision Transformer's attention: rollout and LeGrad."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .vit_internals import (
    Targets,
    as_map,
    block_with_attention,
    checked_input,
    embedded_tokens,
    evaluation_mode,
    explained_score,
    logits_of,
    read_by_head,
)


def attention_rollout(
    model: nn.Module,
    inputs: Tensor,
    targets: Targets = None,
    block: int = -1,
    signed: bool = False,
) -> Tensor:
    """Attention rollout (Abnar & Zuidema 2020): head-averaged attention, multiplied up to a block.

    A value is the share of attention that a patch gets from the tokens that are classified: from
    CLS, or from all patches where their mean is classified. Half of each factor is the skip
    connection, which lets a token attend to itself.

    Args:
        model: any plain timm VisionTransformer; it is left as it was.
        inputs: model input, float (B, 3, H, W).
        targets: changes nothing, because attention knows no class.
        block: the last block whose attention counts.
        signed: changes nothing, because attention is never negative.

    Returns:
        float32 (B, gh, gw) in [0, 1].

    Raises:
        SwysError: as ``gradcam.grad_cam`` does.
    """
    x, last = checked_input(model, inputs, block)
    with evaluation_mode(model), torch.no_grad():
        tokens, _ = embedded_tokens(model, x)
        skip = torch.eye(tokens.shape[1], device=tokens.device)
        factors = []
        for layer in model.blocks[: last + 1]:
            tokens, attention = block_with_attention(layer, tokens)
            attention = attention.float().mean(dim=1)
            factors.append((attention + skip) / 2)
        rollout = factors[0]
        for factor in factors[1:]:
            rollout = factor @ rollout
    to_patches = rollout[:, read_by_head(model), model.num_prefix_tokens :]
    return as_map(to_patches.mean(dim=1), model, inputs, signed=True)


def legrad(
    model: nn.Module,
    inputs: Tensor,
    targets: Targets = None,
    block: int = -1,
    signed: bool = False,
) -> Tensor:
    """LeGrad (Bousselham et al. 2024): what would more attention to a patch add to the class score?

    After each block up to ``block``, the model's norm and head score the tokens. The gradient of
    that score by this block's attention map, after ReLU, is averaged over heads, queries and
    blocks. The paper's final min-max scaling is left out.

    Args:
        model: any plain timm VisionTransformer; it is left as it was.
        inputs: model input, float (B, 3, H, W).
        targets: None for the predicted class, one class for all images, or B classes.
        block: the last block that counts.
        signed: leave out the ReLU, to see evidence against the class too.

    Returns:
        float32 (B, gh, gw) on the device of ``inputs``, detached, unnormalised; >= 0 unless signed.

    Raises:
        SwysError: as ``gradcam.grad_cam`` does.
    """
    x, last = checked_input(model, inputs, block)
    block_values = []
    with evaluation_mode(model), torch.no_grad():
        tokens, _ = embedded_tokens(model, x)
        if targets is None:
            targets = logits_of(model, model.blocks(tokens)).argmax(dim=1)
        for layer in model.blocks[: last + 1]:
            with torch.enable_grad():  # a block's gradient never reaches the block before it
                tokens, attention = block_with_attention(layer, tokens.detach())
                score = explained_score(logits_of(model, tokens), targets)
                (gradient,) = torch.autograd.grad(score, attention)
            if not signed:
                gradient = gradient.relu()
            block_values.append(gradient.float().mean(dim=(1, 2)))
    values = torch.stack(block_values).mean(dim=0)
    return as_map(values[:, model.num_prefix_tokens :], model, inputs, signed)
