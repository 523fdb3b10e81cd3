"""Grad-CAM without autograd, so that an exported model can explain itself wherever it runs."""

from __future__ import annotations

import math

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .config import SwysError


class WithGradCAM(nn.Module):
    """A ViT that classifies from its CLS token, together with its Grad-CAM at ``blocks[-1].norm1``.

    After the last attention the CLS token alone is read, so the gradient is a few products of one vector an
    image, written out here; ``gradcam.grad_cam`` finds the same by autograd.
    """

    def __init__(self, model: VisionTransformer):
        super().__init__()
        block = model.blocks[-1]
        attn, mlp = block.attn, block.mlp
        absent = nn.ModuleList(
            [model.fc_norm, attn.q_norm, attn.k_norm, mlp.norm, block.ls1, block.ls2]
        )
        plain = isinstance(mlp.act, nn.GELU) and isinstance(model.norm, nn.LayerNorm)
        reads_cls = model.global_pool == "token" and model.num_prefix_tokens == 1
        if not plain or not reads_cls or list(absent.parameters()):
            raise SwysError(
                "only a ViT that classifies from its CLS token can be exported; use vit_tiny"
            )
        self.model = model
        # Copies, for the way back: a matrix that is used both ways would be transposed at every call.
        matrices = [layer.weight for layer in (mlp.fc1, mlp.fc2, attn.proj, attn.qkv, model.head)]
        matrices[3] = matrices[3][model.embed_dim :]  # keys and values
        copies = (nn.Parameter(matrix.detach().clone()) for matrix in matrices)
        self.fc1, self.fc2, self.proj, self.qkv, self.head = copies

    def forward(self, pixels: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, C) of model input (B, 3, S, S), and the signed map (B, gh, gw) of a class each.

        ``target``: int64 (B,), -1 for the predicted class.
        """
        model, block = self.model, self.model.blocks[-1]
        attn, mlp, norm2, norm = block.attn, block.mlp, block.norm2, model.norm
        x = model.blocks[:-1](model.norm_pre(model._pos_embed(model.patch_embed(pixels))))
        tokens = block.norm1(x)
        batch, count, width = tokens.shape
        heads = attn.qkv(tokens).reshape(batch, count, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = (
            heads[0][:, :, :1] * attn.scale,
            heads[1],
            heads[2],
        )  # (B, heads, 1 or N, d)
        attention = (query @ key.mT).softmax(dim=-1)  # (B, heads, 1, N)
        read = (attention @ value).transpose(1, 2).reshape(batch, 1, width)
        middle = x[:, :1] + attn.proj(read)
        hidden = mlp.fc1(norm2(middle))
        last = middle + mlp.fc2(mlp.act(hidden))
        logits = model.head(norm(last))[:, 0]

        # Back again, from the logit of the target to the values and keys of the last attention.
        asked = torch.where(target < 0, logits.argmax(dim=1), target)
        chosen = (asked[:, None] == torch.arange(logits.shape[1])).to(logits.dtype)
        d_last = norm_backward(norm, last, (chosen @ self.head)[:, None])
        d_hidden = d_last @ self.fc2 * gelu_slope(hidden)
        d_middle = d_last + norm_backward(norm2, middle, d_hidden @ self.fc1)
        d_read = (d_middle @ self.proj).reshape(batch, 1, attn.num_heads, -1).transpose(1, 2)
        by_value = d_read @ value.mT
        d_scores = attention * (by_value - (attention * by_value).sum(dim=-1, keepdim=True))
        d_value = attention[..., 1:].mean(dim=-1, keepdim=True) * d_read  # means over patch tokens
        d_key = d_scores[..., 1:].mean(dim=-1, keepdim=True) * query
        d_heads = (
            torch.cat([d_key, d_value], dim=2).permute(0, 2, 1, 3).reshape(batch, 1, 2 * width)
        )
        weights = d_heads @ self.qkv  # of each channel
        values = (tokens[:, 1:] * weights).sum(dim=-1)
        return logits, values.reshape(batch, *model.patch_embed.grid_size)


def norm_backward(norm: nn.LayerNorm, x: Tensor, gradient: Tensor) -> Tensor:
    """Gradient by the input ``x`` of a LayerNorm, from that by its output."""
    x = x - x.mean(dim=-1, keepdim=True)
    inverse = (x.square().mean(dim=-1, keepdim=True) + norm.eps).rsqrt()
    x, gradient = x * inverse, gradient * norm.weight
    along = (gradient * x).mean(dim=-1, keepdim=True) * x
    return inverse * (gradient - gradient.mean(dim=-1, keepdim=True) - along)


def gelu_slope(x: Tensor) -> Tensor:
    """Derivative of GELU (Hendrycks & Gimpel 2016), x times the normal distribution function."""
    return (1 + torch.erf(x / math.sqrt(2))) / 2 + x * torch.exp(-x.square() / 2) / math.sqrt(
        2 * math.pi
    )
