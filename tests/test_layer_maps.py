"""Grad-CAM of models of other kinds: as pytorch-grad-cam draws it, or a line that says why not."""

import numpy as np
import pytest
import timm
import torch
from compare_cases import CLASSES, SmallCNN
from torch import nn

from swys.layer_maps import as_positions, find_layer, grad_cam_at_layer
from swys.opened_models import opened_module
from swys.preprocessing import Preprocessing
from swys_utils.config import SwysError

TARGETS = np.array([0, 2])


def patch_tokens(prefix: int):
    """Tokens (B, N, C) as pytorch-grad-cam takes them, (B, C, h, w)."""

    def as_image(tokens):
        patches = tokens[:, prefix:]
        side = int(patches.shape[1] ** 0.5)
        return patches.reshape(len(patches), side, side, -1).permute(0, 3, 1, 2)

    return as_image


def channels_first(values):
    return values.permute(0, 3, 1, 2)


# timm's name, side, the layer for pytorch-grad-cam, how its output becomes (B, C, h, w)
ARCHITECTURES = [
    ("resnet10t", 64, "layer4", None),
    ("convnext_atto", 64, "norm_pre", None),
    ("efficientnet_b0", 64, "bn2", None),
    ("mobilenetv3_small_050", 64, "blocks", None),
    ("regnetx_002", 64, "final_conv", None),
    ("pvt_v2_b0", 64, "stages.3", None),
    ("vit_tiny_patch16_224", 224, "blocks.11.norm1", patch_tokens(1)),
    ("deit_tiny_distilled_patch16_224", 224, "blocks.11.norm1", patch_tokens(2)),
    ("vit_tiny_patch16_224:avg", 224, "blocks.11.norm1", patch_tokens(1)),
    ("eva02_tiny_patch14_224", 224, "norm", patch_tokens(1)),
    ("swin_tiny_patch4_window7_224", 224, "norm", channels_first),
]


def made(architecture: str) -> nn.Module:
    """A timm model with random weights; heads that start as zeros are drawn, too."""
    name, _, pooling = architecture.partition(":")
    options = {"global_pool": pooling} if pooling else {}
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=CLASSES, **options).eval()
    for name, parameter in model.named_parameters():
        if name.startswith(("head", "classifier", "fc.")):
            nn.init.normal_(parameter, std=0.05)
    return model


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "side", "layer", "transform"), ARCHITECTURES)
def test_agrees_with_pytorch_grad_cam(architecture, side, layer, transform):
    library = pytest.importorskip("pytorch_grad_cam")
    model = made(architecture)
    opened = opened_module(model, architecture, Preprocessing(size=side))
    pixels = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    maps = opened.draw(pixels, TARGETS)
    module = model.get_submodule(layer)
    with library.GradCAM(model, [module], reshape_transform=transform) as cam:
        hooks = cam.activations_and_grads
        logits = hooks(pixels)
        logits.gather(1, torch.as_tensor(TARGETS)[:, None]).sum().backward()
        activations = hooks.activations[0].detach().numpy()
        gradients = hooks.gradients[0].detach().numpy()
        expected = cam.get_cam_image(pixels, module, None, activations, gradients)
    assert np.abs(maps.numpy() - expected).max() <= 1e-4 * np.abs(expected).max()


def test_a_named_layer_is_used():
    opened = opened_module(SmallCNN(), "A", Preprocessing(size=28), layer="first")
    assert opened.map_layer == "first"
    assert opened.draw(torch.randn(1, 3, 28, 28), TARGETS[:1]).shape == (1, 14, 14)


def test_the_last_layer_with_positions_is_found():
    model = SmallCNN()
    assert find_layer(model, model, torch.randn(1, 3, 28, 28)) == "last"


def test_a_map_of_two_images_is_that_of_each():
    model = SmallCNN()
    pixels = torch.randn(2, 3, 28, 28)
    both = grad_cam_at_layer(model, model, "last", pixels, TARGETS)
    second = grad_cam_at_layer(model, model, "last", pixels[1:], TARGETS[1:])
    assert torch.allclose(both[1], second[0], atol=1e-6)


def test_the_model_is_left_as_it_was():
    model = SmallCNN().train()
    before = [weight.requires_grad for weight in model.parameters()]
    opened_module(model, "A", Preprocessing(size=28)).draw(torch.randn(1, 3, 28, 28), TARGETS[:1])
    assert model.training
    assert [weight.requires_grad for weight in model.parameters()] == before
    assert all(weight.grad is None for weight in model.parameters())


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 28 * 28, CLASSES))


@pytest.mark.parametrize(
    ("model", "layer", "told"),
    [
        (linear(), "", "no layer has positions"),
        (SmallCNN(), "fc", "no positions"),
    ],
    ids=["no positions at all", "a layer without"],
)
def test_what_cannot_be_explained_says_why(model, layer, told):
    opened = opened_module(model, "A", Preprocessing(size=28), layer=layer)
    assert opened.draw is None
    assert told in opened.map_layer


def test_a_layer_that_is_not_there_is_an_error():
    with pytest.raises(SwysError, match="unknown layer 'secnd'.*give --layer"):
        opened_module(SmallCNN(), "A", Preprocessing(size=28), layer="secnd")


def test_one_position_is_no_map():
    with pytest.raises(SwysError, match="1 x 1"):
        as_positions(torch.zeros(1, 8, 1, 1), "layer4")


def test_a_layer_that_works_in_place_may_follow():
    torch.manual_seed(0)
    first = nn.Conv2d(3, 4, 3, padding=1)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, CLASSES))
    inputs = torch.randn(2, 3, 28, 28)
    maps = []
    for in_place in (True, False):
        model = nn.Sequential(first, nn.ReLU(inplace=in_place), head)
        maps.append(grad_cam_at_layer(model, model, "0", inputs, [0, 1]))
    torch.testing.assert_close(maps[0], maps[1])


class OneHead(nn.Module):
    """Attention between sixteen tokens, whose matrix leaves a layer."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 7, stride=7)
        self.to_tokens = nn.Flatten(2)
        self.softmax = nn.Softmax(dim=-1)
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, pixels):
        tokens = self.to_tokens(self.embed(pixels)).transpose(1, 2)
        tokens = nn.functional.layer_norm(tokens, (8,))
        tokens = self.norm(tokens) if hasattr(self, "norm") else tokens
        attention = self.softmax((tokens @ tokens.transpose(1, 2))[:, None])
        return self.fc((attention[:, 0] @ tokens).mean(dim=1))


def test_a_matrix_of_attention_is_no_picture():
    model = OneHead()
    model.norm = nn.Identity()  # what leaves it has a row for each token
    inputs = torch.randn(1, 3, 28, 28)
    assert find_layer(model, model, inputs) == "embed"
