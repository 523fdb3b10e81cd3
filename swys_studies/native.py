"""A model of enlarged images, rewritten so that it reads the images at their own size."""

from __future__ import annotations

from copy import deepcopy

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer

from swys_utils.config import SwysError


def at_native_resolution(model: VisionTransformer, size: int = 28) -> VisionTransformer:
    """A copy that reads images of ``size`` px and gives the same logits: an exact rewrite, without training.

    ``to_model_input`` enlarges small images bilinearly, and the patch embedding is linear, too. Their product
    is one convolution on the small image: from 28 to 224 px with patches of 16 px, a kernel of 4 px (a patch
    of 2 px and one more on each side) at stride 2, with the edge repeated. Tokens, grid and heatmaps stay.

    Raises:
        SwysError: the input is no whole multiple (2 or more) of ``size``, or the patch no multiple of that.
    """
    embed = model.patch_embed
    (side, width), (patch, height) = embed.img_size, embed.patch_size
    scale = side // size if size > 0 else 0
    if side != width or patch != height or scale < 2 or side != size * scale or patch % scale:
        raise SwysError(
            f"patches of {patch} px on {side} px cannot be rewritten for {size} px;"
            " the enlargement has to be a whole number that divides the patch"
        )
    native = deepcopy(model)
    new, stride = native.patch_embed, patch // scale
    new.patch_size = (stride, stride)
    new.img_size, new.grid_size, new.num_patches = new._init_img_size(size)
    weight = native_kernel(embed.proj.weight.detach().cpu().double(), scale)
    new.proj = torch.nn.Conv2d(
        embed.proj.in_channels,
        embed.proj.out_channels,
        weight.shape[-1],
        stride,
        padding=1,
        padding_mode="replicate",
        bias=embed.proj.bias is not None,
    ).to(embed.proj.weight)
    new.proj.load_state_dict({**embed.proj.state_dict(), "weight": weight})
    return native


def native_kernel(weight: torch.Tensor, scale: int) -> torch.Tensor:
    """The patch kernel (d, C, P, P) times the bilinear enlargement: (d, C, K, K) with K = P / scale + 2.

    Computed on the CPU in float64, which Apple's MPS does not have.
    """
    kernel = weight.shape[-1] // scale + 2
    pixels = torch.eye(kernel, dtype=torch.float64)[None]
    enlarged = F.interpolate(pixels, scale_factor=scale, mode="linear", align_corners=False)
    rows = enlarged[0, :, scale:-scale].T  # (P, K): what each pixel of the patch takes from the small image
    return torch.einsum("ocuv,ui,vj->ocij", weight, rows, rows)
