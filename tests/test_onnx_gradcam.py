"""Grad-CAM as it is written out for ONNX finds what autograd finds; here still in torch."""

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from small import vit
from torch import nn

from swys_utils.config import SwysError
from swys_utils.data import to_model_input
from swys_utils.gradcam import grad_cam
from swys_utils.onnx_export import export_onnx
from swys_utils.onnx_gradcam import (
    WithGradCAM,
    back_through_norm,
    gelu_slope,
    refuse_other_kinds,
)

PREDICTED = torch.full((5,), -1)
TARGETS = torch.tensor([2, 0, 1, 1, 0])


@pytest.fixture(scope="module")
def model():
    return vit(3, noise=0.05, img_size=32, patch_size=8)


@pytest.fixture(scope="module")
def pixels():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 28, 28), dtype=np.uint8)
    return to_model_input(images, 32)


@torch.no_grad()
def test_the_logits_are_the_models(model, pixels):
    logits, _ = WithGradCAM(model)(pixels, PREDICTED)
    torch.testing.assert_close(logits, model(pixels))


@torch.no_grad()
def test_the_map_of_a_given_class_is_grad_cams(model, pixels):
    _, maps = WithGradCAM(model)(pixels, TARGETS)
    expected = grad_cam(model, pixels, TARGETS, signed=True)
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_minus_one_is_the_predicted_class(model, pixels):
    _, maps = WithGradCAM(model)(pixels, PREDICTED)
    predicted = model(pixels).argmax(dim=1)
    _, expected = WithGradCAM(model)(pixels, predicted)
    assert torch.equal(maps, expected)


@torch.no_grad()
def test_an_image_does_not_change_the_map_of_another(model, pixels):
    explained = WithGradCAM(model)
    _, together = explained(pixels, TARGETS)
    _, alone = explained(pixels[:1], TARGETS[:1])
    torch.testing.assert_close(together[:1], alone)


def test_the_model_keeps_its_weights_to_itself(model):
    explained = WithGradCAM(model)
    with torch.no_grad():
        explained.head.zero_()
    assert model.head.weight.any()


def test_gelu_slope_is_the_derivative():
    x = torch.linspace(-4, 4, 33, requires_grad=True)
    (expected,) = torch.autograd.grad(F.gelu(x).sum(), x)
    torch.testing.assert_close(gelu_slope(x), expected)


def test_back_through_norm_is_the_gradient_of_layer_norm():
    generator = torch.Generator().manual_seed(0)
    norm = nn.LayerNorm(8)
    nn.init.normal_(norm.weight, generator=generator)
    x = torch.randn(3, 8, generator=generator, requires_grad=True)
    d_output = torch.randn(3, 8, generator=generator)
    (expected,) = torch.autograd.grad(norm(x), x, d_output)
    torch.testing.assert_close(back_through_norm(norm, x, d_output), expected)


@pytest.mark.parametrize(
    "options",
    [
        {"global_pool": "avg", "class_token": False},
        {"reg_tokens": 1},
        {"init_values": 0.5},
        {"qk_norm": True},
        {"act_layer": "relu"},
    ],
    ids=["average pooling", "registers", "LayerScale", "normed queries", "ReLU"],
)
def test_another_kind_of_model_is_refused(options):
    model = vit(**options)
    with pytest.raises(SwysError, match="only a plain ViT can be exported"):
        refuse_other_kinds(model)
    with pytest.raises(SwysError, match="only a plain ViT can be exported"):
        WithGradCAM(model)


@pytest.mark.parametrize(
    "name", ["resnet18", "eva02_tiny_patch14_224"], ids=["a CNN", "another Transformer"]
)
def test_a_model_that_is_no_vit_of_timm_is_refused(name, tmp_path):
    model = timm.create_model(name)
    with pytest.raises(SwysError, match="not of a plain timm VisionTransformer"):
        export_onnx(model, tmp_path / "model.onnx")


def test_a_model_without_a_head_is_refused():
    with pytest.raises(SwysError, match="only a plain ViT can be exported"):
        WithGradCAM(vit(classes=0))


def test_another_gelu_is_refused():
    model = vit()
    model.blocks[-1].mlp.act = torch.nn.GELU("tanh")
    with pytest.raises(SwysError, match="only a plain ViT can be exported"):
        WithGradCAM(model)
