"""Grad-CAM against two other libraries, on every kind of ViT, and its promises about the model."""

import numpy as np
import pytest
import timm
import torch

from swys_utils import gradcam
from swys_utils.config import SwysError
from swys_utils.gradcam import METHODS, grad_cam, overlay

SMALL = {"patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3, "num_classes": 4}
MODELS = {  # timm name and what is special
    "CLS token": ("vit_tiny_patch16_224", {}),
    "distilled": ("deit_tiny_distilled_patch16_224", {}),
    "average pooling": ("vit_tiny_patch16_224", {"class_token": False, "global_pool": "avg"}),
    "registers": ("vit_tiny_patch16_224", {"reg_tokens": 3}),
    "registers, average": ("vit_tiny_patch16_224", {"reg_tokens": 2, "global_pool": "avg"}),
    "attention pooling": ("vit_tiny_patch16_224", {"class_token": False, "global_pool": "map"}),
    "oblong grid": ("vit_tiny_patch16_224", {"img_size": (24, 40), "pre_norm": True, "init_values": 0.5}),
    "dynamic size": ("vit_tiny_patch16_224", {"dynamic_img_size": True}),
}


def make(kind):
    """A small model with weights large enough for maps that are not all alike, and inputs of its size."""
    torch.manual_seed(0)
    name, options = MODELS[kind]
    model = timm.create_model(name, **({"img_size": 32} | SMALL | options)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    size = (24, 48) if kind == "dynamic size" else model.patch_embed.img_size
    return model, torch.randn(5, 3, *size), (size[0] // 8, size[1] // 8)


@pytest.fixture(params=MODELS)
def case(request):
    return make(request.param)


def peer_grad_cam(model, inputs, classes, grid, block=-1):
    """The same map by the package grad-cam, before its min-max scaling."""
    base = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    def to_image(tokens):
        patches = tokens[:, model.num_prefix_tokens :]
        return patches.reshape(len(patches), *grid, -1).permute(0, 3, 1, 2)

    with base.GradCAM(model, [model.blocks[block].norm1], reshape_transform=to_image) as cam:
        logits = cam.activations_and_grads(inputs)
        model.zero_grad()
        sum(ClassifierOutputTarget(int(c))(row) for c, row in zip(classes, logits)).backward()
        activations = cam.activations_and_grads.activations[0].detach().numpy()
        gradients = cam.activations_and_grads.gradients[0].detach().numpy()
        return cam.get_cam_image(inputs, model.blocks[block].norm1, None, activations, gradients)


def peer_torchcam(model, inputs, classes, grid, block=-1):
    """The same map by torchcam, whose hooks expect (B, C, H, W): norm1's output is shown to it in that shape."""
    methods = pytest.importorskip("torchcam.methods")

    class ToImage(torch.nn.Module):
        def forward(self, tokens):
            patches = tokens[:, model.num_prefix_tokens :]
            return patches.reshape(len(patches), *grid, -1).permute(0, 3, 1, 2).contiguous()

    class Split(torch.nn.Module):
        """norm1 with its patch tokens passed through an image-shaped layer that torchcam can hook."""

        def __init__(self, norm):
            super().__init__()
            self.norm, self.image = norm, ToImage()

        def forward(self, x):
            tokens = self.norm(x)
            patches = self.image(tokens).flatten(2).transpose(1, 2)
            return torch.cat([tokens[:, : model.num_prefix_tokens], patches], dim=1)

    layer = model.blocks[block]
    norm = layer.norm1
    layer.norm1 = Split(norm)
    try:
        with methods.GradCAM(model, layer.norm1.image) as extractor:
            scores = model(inputs)
            return extractor([int(c) for c in classes], scores, normalized=False)[0].numpy()
    finally:
        layer.norm1 = norm


def close(ours, theirs):
    assert ours.max() > 1e-4, "an empty map would agree with anything"
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-5 * float(ours.max()), rtol=1e-5)


@pytest.mark.parametrize("block", [-1, 1])
def test_agrees_with_grad_cam_package(case, block):
    model, inputs, grid = case
    classes = torch.tensor([0, 1, 2, 3, 0])
    ours = grad_cam(model, inputs, classes, block=block, signed=True)
    assert ours.shape == (5, *grid)
    close(ours, peer_grad_cam(model, inputs, classes, grid, block))
    assert torch.equal(grad_cam(model, inputs, classes, block=block), ours.relu())


@pytest.mark.parametrize("block", [-1, 0])
def test_agrees_with_torchcam(case, block):
    model, inputs, grid = case
    classes = [3, 2, 1, 0, 3]
    close(grad_cam(model, inputs, classes, block=block), peer_torchcam(model, inputs, classes, grid, block))
