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
    """The same map by torchcam, whose hooks expect (B, C, H, W): it is shown norm1's output in that shape."""
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


def test_the_paths_agree_on_the_logits(case):
    """What runs without a gradient and what runs with one must together be the model's own forward pass."""
    model, inputs, _ = case
    with torch.no_grad():
        expected = model(inputs)
        assert torch.allclose(
            gradcam._head(model, model.blocks(gradcam._embed(model, inputs))), expected, atol=1e-6
        )
    assert torch.equal(grad_cam(model, inputs), grad_cam(model, inputs, expected.argmax(1)))
    assert torch.equal(grad_cam(model, inputs, 2), grad_cam(model, inputs, [2] * 5))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_keeps_the_call_shape(case, method):
    model, inputs, grid = case
    maps = METHODS[method](model, inputs, targets=np.array([0, 1, 2, 3, 0]), block=-2)
    assert maps.shape == (5, *grid) and maps.dtype == torch.float32 and not maps.requires_grad
    assert (maps >= 0).all() and maps.amax() > 0
    one = torch.cat([METHODS[method](model, inputs[i : i + 1], i % 4, block=-2) for i in range(4)])
    assert torch.allclose(maps[:4], one, atol=1e-5 * float(maps.max())), "an image's map depends on its batch"
    assert torch.allclose(METHODS[method](model, inputs, [0, 1, 2, 3, 0], -2, signed=True).relu(), maps) or (
        method == "legrad"  # its ReLU is inside the average
    )


def test_hires_cam_is_gradient_times_activation():
    model, inputs, grid = make("CLS token")
    tokens = {}
    handle = model.blocks[1].norm1.register_forward_hook(lambda m, a, out: tokens.update(out=out))
    score = model(inputs)[:, 1].sum()
    handle.remove()
    (gradient,) = torch.autograd.grad(score, tokens["out"])
    expected = (gradient * tokens["out"]).sum(-1)[:, 1:].reshape(5, *grid)
    ours = METHODS["hires_cam"](model, inputs, 1, block=1, signed=True)
    assert torch.allclose(ours, expected, atol=1e-5 * float(ours.abs().max()))


def test_rollout_shares_add_up():
    """Attention to all tokens sums to 1, so to patches alone it is between 0 and 1; no class counts."""
    model, inputs, _ = make("registers")
    maps = METHODS["attention_rollout"](model, inputs, 0)
    share = maps.sum(dim=(1, 2))
    assert (share > 0).all() and (share < 1).all()
    assert torch.equal(maps, METHODS["attention_rollout"](model, inputs, 3))
    model, inputs, _ = make("average pooling")  # without prefix tokens the patches get everything
    assert torch.allclose(
        METHODS["attention_rollout"](model, inputs).sum(dim=(1, 2)), torch.ones(5), atol=1e-5
    )


def test_legrad_of_the_last_block_by_hand():
    model, inputs, grid = make("CLS token")
    model.blocks = model.blocks[:1]
    attention = model.blocks[0].attn
    attention.fused_attn, kept = False, {}
    handle = attention.attn_drop.register_forward_hook(lambda m, a, out: kept.update(map=out))
    (gradient,) = torch.autograd.grad(model(inputs)[:, 2].sum(), kept["map"])
    handle.remove()
    expected = gradient.relu().mean(dim=(1, 2))[:, 1:].reshape(5, *grid)
    assert torch.allclose(METHODS["legrad"](model, inputs, 2), expected, atol=1e-7)


def state(model):
    return (
        [m.training for m in model.modules()],
        [p.requires_grad for p in model.parameters()],
        [p.grad for p in model.parameters()],
        [b.attn.fused_attn for b in model.blocks],
        sum(len(m._forward_hooks) + len(m._backward_hooks) for m in model.modules()),
    )


@pytest.mark.parametrize("method", METHODS)
def test_the_model_is_as_before_also_after_an_error(method, monkeypatch):
    model, inputs, _ = make("CLS token")
    model.train()
    model.blocks[1].eval()  # a mixed mode has to survive
    model.blocks[0].requires_grad_(False)
    model.blocks[2].attn.fused_attn = False
    before = state(model)
    METHODS[method](model, inputs)
    assert state(model) == before
    with pytest.raises(SwysError):
        METHODS[method](model, inputs[:, :, :16])
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="on purpose"):

        def fail(*args):
            raise RuntimeError("on purpose")

        patch.setattr(model.blocks[2].mlp, "forward", fail)
        METHODS[method](model, inputs)
    assert state(model) == before


def test_dropout_and_patch_dropout_are_off():
    model, inputs, _ = make("CLS token")
    model.patch_drop = timm.layers.PatchDropout(0.5)
    model.pos_drop.p = 0.5
    assert torch.equal(grad_cam(model.train(), inputs, 0), grad_cam(model, inputs, 0))


@pytest.mark.parametrize("method", METHODS)
def test_inside_no_grad_inference_mode_and_bf16(method):
    model, inputs, _ = make("CLS token")
    run = METHODS[method]
    expected = run(model, inputs, 1)
    with torch.no_grad():
        assert torch.equal(run(model, inputs, 1), expected)
    with torch.inference_mode():
        assert torch.equal(run(model, inputs.clone(), 1), expected)
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = run(model, inputs, 1)
        model(inputs).sum().backward()  # training goes on in the same region
    assert all(p.grad is not None for p in model.parameters())
    in_bf16 = run(model.bfloat16(), inputs, 1)
    for maps in (under_autocast, in_bf16):
        assert maps.dtype == torch.float32
        assert torch.corrcoef(torch.stack([maps.flatten(), expected.flatten()]))[0, 1] > 0.95


@pytest.mark.parametrize(
    "change, message",
    [
        ({"model": torch.nn.Linear(3, 3)}, "Linear is not a plain timm"),
        ({"model": timm.create_model("eva02_tiny_patch14_224", img_size=28)}, "Eva is not a plain timm"),
        ({"model": timm.create_model("vit_tiny_patch16_224", **SMALL, img_size=32,
                                     block_fn=timm.models.vision_transformer.ResPostBlock)}, "ResPostBlock"),
        ({"block": 3}, "choose 0 to 2"),
        ({"targets": 4}, "classes are 0 to 3"),
        ({"targets": [0, 1]}, "2 targets for 5 images"),
        ({"targets": 1.0}, "whole numbers"),
        ({"inputs": torch.zeros(5, 3, 224, 224)}, "takes 32 x 32"),
        ({"inputs": torch.zeros(5, 32, 32, dtype=torch.uint8)}, "give a float tensor"),
    ],
)  # fmt: skip
def test_refusals_are_one_line(change, message):
    model, inputs, _ = make("CLS token")
    with pytest.raises(SwysError, match=message) as error:
        grad_cam(**({"model": model, "inputs": inputs} | change))
    assert "\n" not in str(error.value)


def test_overlay_scales_and_empty_maps():
    images = np.full((3, 28, 28), 100, np.uint8)
    maps = torch.zeros(3, 7, 7)
    maps[0, 3, 3], maps[1, 3, 3] = 4.0, 1.0
    own, shared = overlay(images, maps), overlay(images, maps, scale=4.0)
    assert own.shape == (3, 28, 28, 3) and own.dtype == np.uint8
    assert np.array_equal(own[0], own[1]), "scaled by its own maximum every peak looks alike"
    change = np.abs(shared.astype(int) - 100).sum(axis=(1, 2, 3))
    assert change[0] > 3 * change[1] > 0, "on a shared scale the weak map stays weak"
    for drawn in (own, shared, overlay(images, maps, alpha=1.0)):
        assert (drawn[2] == 100).all(), "an empty map must not be coloured"
    assert (overlay(images, maps, alpha=0) == 100).all()
    assert np.array_equal(overlay(images, -maps.abs()), overlay(images, 0 * maps))


def test_overlay_takes_every_kind_of_image():
    grey = np.random.default_rng(0).integers(0, 256, (2, 16, 16), dtype=np.uint8)
    maps = np.random.default_rng(1).random((2, 4, 4))
    colour = np.repeat(grey[..., None], 3, axis=-1)
    floats = torch.as_tensor(colour).permute(0, 3, 1, 2) / 127.5 - 1
    assert np.array_equal(overlay(grey, maps), overlay(colour, maps))
    assert np.abs(overlay(floats, maps).astype(int) - overlay(grey, maps)).max() <= 1
    assert overlay(grey, maps, size=64).shape == (2, 64, 64, 3)
    peak = overlay(np.zeros((1, 40, 40), np.uint8), np.eye(4)[None, ::-1] * [0, 0, 0, 1], 1.0, cmap="gray")
    assert peak[0, 0, -1].min() == 255 and peak[0, -1, 0].max() == 0, "the map must not be turned or mirrored"


@pytest.mark.parametrize(
    "wrong", [{"alpha": 2}, {"scale": 0}, {"scale": "all"}, {"heatmaps": np.zeros((1, 4, 4))}]
)
def test_overlay_refuses(wrong):
    arguments = {"images": np.zeros((2, 8, 8), np.uint8), "heatmaps": np.zeros((2, 4, 4))}
    with pytest.raises(SwysError):
        overlay(**(arguments | wrong))
