"""Every kind of ViT that can be explained, small, and how its maps are compared."""

from typing import NamedTuple

import numpy as np
import torch
from small import vit
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

CLASSES = torch.tensor([0, 1, 2, 3, 0])
GEOMETRY = {"img_size": 32, "patch_size": 8, "depth": 3}
MODELS = {  # what is special about it
    "CLS token": {},
    "distilled": {"name": "deit_tiny_distilled_patch16_224"},
    "average pooling": {"class_token": False, "global_pool": "avg"},
    "registers": {"reg_tokens": 3},
    "registers, average": {"reg_tokens": 2, "global_pool": "avg"},
    "attention pooling": {"class_token": False, "global_pool": "map"},
    "oblong grid": {"img_size": (24, 40), "pre_norm": True, "init_values": 0.5},
    "dynamic size": {"dynamic_img_size": True},
}


class Case(NamedTuple):
    model: VisionTransformer
    inputs: Tensor  # five images of the size that the model reads
    grid: tuple[int, int]


def make(kind="CLS token", **more) -> Case:
    """A small model with weights large enough for maps that are not all alike, and its inputs."""
    geometry = GEOMETRY | MODELS[kind] | more
    model = vit(4, noise=0.1, **geometry)
    size = (24, 48) if kind == "dynamic size" else model.patch_embed.img_size
    height, width = size
    inputs = torch.randn(5, 3, height, width)
    grid = (height // 8, width // 8)
    return Case(model, inputs, grid)


def close(maps, expected) -> bool:
    """Equal within rounding errors, as measured by the largest value of a map."""
    maps = torch.as_tensor(maps).detach()
    expected = torch.as_tensor(expected)
    largest = maps.abs().max().item()
    assert largest > 1e-4, "an empty map would agree with anything"
    tolerance = 1e-5 * largest
    return torch.allclose(maps, expected, atol=tolerance, rtol=1e-5)


def correlation(a: Tensor, b: Tensor) -> float:
    a = a.flatten().numpy()
    b = b.flatten().numpy()
    return np.corrcoef(a, b)[0, 1]


def outputs_of(layer: torch.nn.Module) -> list[Tensor]:
    """A list that gets the output of a layer whenever it runs."""
    outputs = []

    def keep(module, args, output):
        outputs.append(output)

    layer.register_forward_hook(keep)
    return outputs
