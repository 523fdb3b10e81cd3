"""Grad-CAM without autograd, so that an exported model can explain itself wherever it runs.

A runtime such as ONNX Runtime only computes forward. But after the last attention of a ViT the CLS
token alone is read, so the gradient is a few products of one vector an image, written out here.
"""

from __future__ import annotations

import math

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .config import SwysError
from .vit_internals import check_kind


class WithGradCAM(nn.Module):
    """A ViT that classifies from its CLS token, together with its Grad-CAM at ``blocks[-1].norm1``.

    The map is that of ``gradcam.grad_cam``, which finds it by autograd. In the comments N is the
    number of tokens, D is their width, and d the width of one of the attention's heads.

    Args:
        model: it is used, not copied.

    Raises:
        SwysError: another kind of model.
    """

    def __init__(self, model: VisionTransformer):
        super().__init__()
        refuse_other_kinds(model)
        self.model = model
        attn = model.blocks[-1].attn
        mlp = model.blocks[-1].mlp
        # The matrices of the way back. They are copies: a matrix that is used both ways would be
        # transposed at every call.
        self.fc1 = _copy_of(mlp.fc1.weight)
        self.fc2 = _copy_of(mlp.fc2.weight)
        self.proj = _copy_of(attn.proj.weight)
        key_value = attn.qkv.weight[model.embed_dim :]  # without the rows of the queries
        self.key_value = _copy_of(key_value)
        self.head = _copy_of(model.head.weight)

    def forward(self, pixels: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and the signed map of one class of each image.

        Args:
            pixels: model input, float (B, 3, S, S).
            target: the classes to explain, int64 (B,); -1 is the predicted class.

        Returns:
            Logits (B, C) and maps (B, gh, gw).
        """
        model = self.model
        block = model.blocks[-1]
        attn = block.attn
        mlp = block.mlp
        heads = attn.num_heads
        patches = model.patch_embed(pixels)
        embedded = model.norm_pre(model._pos_embed(patches))
        x = model.blocks[:-1](embedded)

        # Through the last block for the CLS token alone. All other tokens are only attended to.
        tokens = block.norm1(x)  # (B, N, D), what Grad-CAM looks at
        batch, count, width = tokens.shape
        qkv = attn.qkv(tokens)
        qkv = qkv.reshape(batch, count, 3, heads, -1)
        qkv = qkv.permute(2, 0, 3, 1, 4)
        query = qkv[0][:, :, :1]  # (B, heads, 1, d)
        query = query * attn.scale
        key = qkv[1]  # (B, heads, N, d)
        value = qkv[2]
        scores = query @ key.mT  # (B, heads, 1, N)
        attention = scores.softmax(dim=-1)
        read = attention @ value  # (B, heads, 1, d)
        read = read.transpose(1, 2)
        read = read.reshape(batch, 1, width)
        middle = x[:, :1] + attn.proj(read)  # (B, 1, D), between attention and MLP
        hidden = mlp.fc1(block.norm2(middle))
        activated = mlp.act(hidden)
        last = middle + mlp.fc2(activated)
        normed = model.norm(last)
        logits = model.head(normed)[:, 0]

        # And back. d_x is the gradient of the target's logit by x.
        d_last = self.back_through_head(last, logits, target)
        d_middle = d_last + self.back_through_mlp(middle, hidden, d_last)
        weights = self.back_through_attention(query, value, attention, d_middle)
        patch_tokens = tokens[:, 1:]
        values = (patch_tokens * weights).sum(dim=-1)
        return logits, values.reshape(batch, *model.patch_embed.grid_size)

    def back_through_head(self, last: Tensor, logits: Tensor, target: Tensor) -> Tensor:
        """Gradient of the target's logit by the CLS token that leaves the last block, (B, 1, D)."""
        predicted = logits.argmax(dim=1)
        chosen = torch.where(target < 0, predicted, target)
        classes = torch.arange(logits.shape[1], device=logits.device)
        is_chosen = chosen[:, None] == classes  # (B, C)
        d_normed = is_chosen.to(logits.dtype) @ self.head
        return back_through_norm(self.model.norm, last, d_normed[:, None])

    def back_through_mlp(self, middle: Tensor, hidden: Tensor, d_last: Tensor) -> Tensor:
        """Gradient by the CLS token that enters norm2, (B, 1, D): the part through the MLP."""
        norm = self.model.blocks[-1].norm2
        d_activated = d_last @ self.fc2
        d_hidden = d_activated * gelu_slope(hidden)
        d_normed = d_hidden @ self.fc1
        return back_through_norm(norm, middle, d_normed)

    def back_through_attention(
        self,
        query: Tensor,
        value: Tensor,
        attention: Tensor,
        d_middle: Tensor,
    ) -> Tensor:
        """Gradient by the patch tokens, their mean: Grad-CAM's weight of each channel.

        Grad-CAM needs only the mean of the gradient over the patch tokens. Keys and values are
        linear in the tokens, so the mean can be taken first, of the gradients by keys and values,
        and is then led back to the tokens by one product.

        Args:
            query: of the CLS token, (B, heads, 1, d).
            value: of all tokens, (B, heads, N, d).
            attention: that the CLS token pays to each token, (B, heads, 1, N).
            d_middle: gradient by the CLS token after attention, (B, 1, D).

        Returns:
            (B, 1, D).
        """
        batch, heads, _, _ = query.shape
        d_read = d_middle @ self.proj
        d_read = d_read.reshape(batch, 1, heads, -1)
        d_read = d_read.transpose(1, 2)  # (B, heads, 1, d)
        d_attention = d_read @ value.mT
        average = (attention * d_attention).sum(dim=-1, keepdim=True)
        d_scores = attention * (d_attention - average)  # through the softmax
        d_value = _mean(attention[..., 1:]) * d_read
        d_key = _mean(d_scores[..., 1:]) * query
        d_key_value = torch.cat([d_key, d_value], dim=2)
        d_key_value = d_key_value.permute(0, 2, 1, 3)  # (B, 2, heads, d)
        return d_key_value.reshape(batch, 1, -1) @ self.key_value


def refuse_other_kinds(model: nn.Module) -> None:
    """Refuse a model with a layer whose way back is not written here.

    Args:
        model: to be exported.

    Raises:
        SwysError: it does not classify from its CLS token alone, or has layers that a plain ViT
            does not have.
    """
    check_kind(model)
    block = model.blocks[-1]
    attn = block.attn
    mlp = block.mlp
    reads_cls = model.global_pool == "token" and model.num_prefix_tokens == 1
    has_gelu = isinstance(mlp.act, nn.GELU) and mlp.act.approximate == "none"
    has_layer_norm = isinstance(model.norm, nn.LayerNorm) and model.norm.elementwise_affine
    has_head = isinstance(model.head, nn.Linear)
    # In a plain ViT these layers do nothing and have no weights.
    idle = nn.ModuleList(
        [
            model.fc_norm,
            attn.q_norm,
            attn.k_norm,
            attn.norm,
            mlp.norm,
            block.ls1,
            block.ls2,
        ]
    )
    idle_weights = list(idle.parameters())
    if idle_weights or not (reads_cls and has_gelu and has_layer_norm and has_head):
        raise SwysError(
            "only a plain ViT can be exported, which classifies from its CLS token and has GELU,"
            " LayerNorm, and no registers, LayerScale or other norms; use vit_tiny"
        )


def _copy_of(weight: Tensor) -> nn.Parameter:
    """A parameter of its own with the same values."""
    return nn.Parameter(weight.detach().clone())


def back_through_norm(norm: nn.LayerNorm, x: Tensor, d_output: Tensor) -> Tensor:
    """Gradient by the input of a LayerNorm.

    Args:
        norm: the layer.
        x: its input, (..., D).
        d_output: gradient by its output, (..., D).
    """
    centred = x - _mean(x)
    variance = _mean(centred.square())
    inverse = (variance + norm.eps).rsqrt()
    normed = centred * inverse
    d_normed = d_output * norm.weight
    # The output stays as it is when x is shifted or scaled as a whole: no gradient that way.
    along = _mean(d_normed * normed) * normed
    return inverse * (d_normed - _mean(d_normed) - along)


def _mean(x: Tensor) -> Tensor:
    """The mean along the last axis, which stays, with length 1."""
    return x.mean(dim=-1, keepdim=True)


def gelu_slope(x: Tensor) -> Tensor:
    """Derivative of GELU (Hendrycks & Gimpel 2016), x times the normal distribution function."""
    error = torch.erf(x / math.sqrt(2))
    distribution = (1 + error) / 2
    bell = torch.exp(-x.square() / 2)
    return distribution + x * bell / math.sqrt(2 * math.pi)
