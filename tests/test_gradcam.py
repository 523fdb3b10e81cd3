"""Grad-CAM against two other libraries on every kind of ViT, what it leaves as it was, and the overlay."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from small import vit
from timm.models.vision_transformer import ResPostBlock

from swys_utils import gradcam
from swys_utils.config import SwysError
from swys_utils.data import to_model_input
from swys_utils.gradcam import METHODS, grad_cam, heatmaps, logits_and_map, overlay

CLASSES = torch.tensor([0, 1, 2, 3, 0])
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


def make(kind="CLS token", **more):
    """A small model with weights large enough for maps that are not all alike, and inputs of its size."""
    model = vit(4, noise=0.1, **{"img_size": 32, "patch_size": 8, "depth": 3} | MODELS[kind] | more)
    size = (24, 48) if kind == "dynamic size" else model.patch_embed.img_size
    return model, torch.randn(5, 3, *size), (size[0] // 8, size[1] // 8)


@pytest.fixture(params=MODELS)
def case(request):
    return make(request.param)


def close(ours, theirs):
    largest = ours.detach().abs().max().item()
    assert largest > 1e-4, "an empty map would agree with anything"
    return torch.allclose(ours, torch.as_tensor(theirs), atol=1e-5 * largest, rtol=1e-5)


@pytest.mark.parametrize("block", [-1, 0])
def test_agrees_with_grad_cam_and_torchcam(case, block):
    cams, torchcams = (
        pytest.importorskip("pytorch_grad_cam"),
        pytest.importorskip("torchcam.methods"),
    )
    (model, inputs, grid), prefix = case, case[0].num_prefix_tokens
    ours, layer = (
        grad_cam(model, inputs, CLASSES, block=block, signed=True),
        model.blocks[block].norm1,
    )
    assert ours.shape == (5, *grid)
    model.image = torch.nn.Identity()  # the patches as both libraries want them, (B, D, gh, gw)

    def through_image(module, args, tokens):
        patches = tokens[:, prefix:].reshape(5, *grid, -1).permute(0, 3, 1, 2).contiguous()
        return torch.cat(
            [tokens[:, :prefix], model.image(patches).flatten(2).transpose(1, 2)], dim=1
        )

    layer.register_forward_hook(through_image)
    with cams.GradCAM(model, [model.image]) as cam:
        hooks = cam.activations_and_grads
        hooks(inputs).gather(1, CLASSES[:, None]).sum().backward()
        seen = (hooks.activations[0].detach().numpy(), hooks.gradients[0].detach().numpy())
        assert close(ours, cam.get_cam_image(inputs, model.image, None, *seen))  # not yet min-max
    with torchcams.GradCAM(model, model.image) as extractor:
        assert close(ours.relu(), extractor(CLASSES.tolist(), model(inputs), normalized=False)[0])


@pytest.mark.parametrize("method", METHODS)
def test_every_method_keeps_the_call_shape(case, method):
    (model, inputs, grid), run = case, METHODS[method]
    maps = run(model, inputs, CLASSES.numpy(), block=-2)
    assert maps.shape == (5, *grid) and maps.dtype == torch.float32 and not maps.requires_grad
    assert maps.min() >= 0 and close(maps[1:2], run(model, inputs[1:2], 1, block=-2)), (
        "depends on its batch"
    )
    if method != "legrad":  # its ReLU is inside the average
        assert close(maps, run(model, inputs, CLASSES, -2, signed=True).relu())
    assert torch.equal(run(model, inputs), run(model, inputs, model(inputs).argmax(1)))


def test_logits_and_map_are_the_models_own_and_grad_cam(case):
    model, inputs, _ = case
    logits, values, kept = logits_and_map(model, inputs, CLASSES)
    assert kept is None and torch.allclose(logits, model(inputs), atol=1e-5)
    assert close(values, grad_cam(model, inputs, CLASSES, signed=True).flatten(1))
    values.square().mean().backward()
    assert all(block.attn.qkv.weight.grad.abs().max() > 0 for block in model.blocks)


@pytest.mark.parametrize("kind", ["CLS token", "registers, average"])
def test_patch_dropout_by_hand(kind):
    model, inputs, _ = make(kind, patch_drop_rate=0.6, drop_path_rate=0.5)
    prefix, seen = model.num_prefix_tokens, []
    for layer in (model.train().patch_drop, model.blocks[-1].norm1):
        layer.register_forward_hook(lambda module, args, output: seen.extend((args[0], output)))
    torch.manual_seed(1)
    expected, (whole, rest, _, tokens) = model(inputs), seen
    torch.manual_seed(1)
    logits, values, kept = logits_and_map(model, inputs, 2)
    assert torch.allclose(logits, expected, atol=1e-5), "timm's layers draw other random numbers"
    assert kept.shape == values.shape == (5, 6) and kept.dtype == torch.int64  # 40 % of 16
    assert torch.equal(
        rest[:, prefix:], torch.stack([x[prefix + rows] for x, rows in zip(whole, kept)])
    )
    gradient = torch.autograd.grad(expected[:, 2].sum(), tokens)[0][:, prefix:]
    assert close(values, (gradient.mean(1, keepdim=True) * tokens[:, prefix:]).sum(-1))


def test_hires_cam_and_legrad_of_one_block_by_hand_and_rollout_shares_add_up():
    model, inputs, grid = make()
    model.blocks, seen = model.blocks[:1], []
    attention = model.blocks[0].attn
    attention.fused_attn = False
    for layer in (model.blocks[0].norm1, attention.attn_drop):
        layer.register_forward_hook(lambda module, args, output: seen.append(output))
    tokens, weights = torch.autograd.grad(model(inputs)[:, 2].sum(), seen)
    hires, legrad = (tokens * seen[0]).sum(-1)[:, 1:], weights.relu().mean(dim=(1, 2))[:, 1:]
    assert close(METHODS["hires_cam"](model, inputs, 2, signed=True), hires.reshape(5, *grid))
    assert close(METHODS["legrad"](model, inputs, 2), legrad.reshape(5, *grid))
    some, all_ = (
        METHODS["attention_rollout"](*make(kind)[:2]) for kind in ("registers", "average pooling")
    )
    assert (some.sum(dim=(1, 2)) < 0.99).all() and torch.allclose(
        all_.sum(dim=(1, 2)), torch.ones(5)
    )


@pytest.mark.parametrize("method", METHODS)
def test_the_model_is_as_before_without_gradients_in_bf16_and_after_an_error(method, monkeypatch):
    (model, inputs, _), run = make(patch_drop_rate=0.5, pos_drop_rate=0.5), METHODS[method]
    expected = run(model, inputs, 0)
    model.train().blocks[1].eval()  # a mixed mode has to survive
    model.blocks[0].requires_grad_(False)
    model.blocks[2].attn.fused_attn = False

    def state():
        layers = [
            (m.training, vars(m).get("fused_attn"), len(m._forward_hooks)) for m in model.modules()
        ]
        return layers, [(weight.requires_grad, weight.grad) for weight in model.parameters()]

    before, half = state(), deepcopy(model).bfloat16()
    assert torch.equal(run(model, inputs, 0), expected), "dropout was on"
    with torch.no_grad(), gradcam.evaluation_mode(model):
        assert torch.equal(run(model, inputs, 0), expected) and not model(inputs).requires_grad
    with torch.inference_mode():
        assert torch.equal(run(model, inputs.clone(), 0), expected)
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = run(model, inputs, 0)
    for maps in (under_autocast, run(half, inputs, 0)):
        assert maps.dtype == torch.float32
        assert torch.corrcoef(torch.stack([maps.flatten(), expected.flatten()]))[0, 1] > 0.95
    monkeypatch.setattr(model.blocks[2].mlp, "forward", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(model, inputs)
    assert state() == before


def test_a_map_is_taught_under_autocast():
    (model, inputs, _), gradients = make(), []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            with torch.no_grad():
                logits_and_map(model, inputs)  # must leave no cast without a gradient behind
            logits, values, _ = logits_and_map(model, inputs, 1)
            loss = logits.square().mean() + values.square().mean()
            gradient = torch.autograd.grad(loss, tuple(model.parameters()))
        gradients.append(torch.cat([g.flatten() for g in gradient]))
    assert logits.dtype == values.dtype == torch.float32
    assert torch.corrcoef(torch.stack(gradients))[0, 1] > 0.98


def test_heatmaps_equal_one_big_batch_and_what_has_none_is_one_line():
    model, inputs, _ = make()
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    whole = grad_cam(model, to_model_input(images, 32), CLASSES)
    assert close(whole, heatmaps(model, images, targets=CLASSES, batch_size=2))
    assert [len(x) for _, x in gradcam.input_batches(model, images, 2)] == [2, 2, 1]
    assert heatmaps(model, inputs, grad_cam, 1, batch_size=4, signed=True).min() < 0
    for message, change in {
        "Linear is not": {"model": torch.nn.Linear(3, 3)},
        "ResPostBlock is not": {"model": vit(block_fn=ResPostBlock)},
        "choose 0 to 2": {"block": 3},
        "4 for 5 images; give one class from 0 to 3": {"targets": 4},
        "[0, 1] for 5 images": {"targets": [0, 1]},
        "[0, 1, 2, 3, 0, 1] for 5 images": {"targets": [0, 1, 2, 3, 0, 1], "batch_size": 5},
        "for 0 images": {"images": inputs[:0]},
        "1.0 for 5 images": {"targets": 1.0},
        "give a float tensor (B, 3, 32, 32)": {"images": torch.zeros(5, 3, 224, 224)},
        "did you mean 'grad_cam'": {"method": "gradcam"},
    }.items():
        with pytest.raises(SwysError) as error:
            heatmaps(**({"model": model, "images": inputs} | change))
        assert message in str(error.value) and "\n" not in str(error.value)


def test_overlay_scales_empty_maps_and_every_kind_of_image():
    images, maps = np.full((3, 28, 28), 100, np.uint8), torch.zeros(3, 7, 7)
    maps[:2, 3, 3] = torch.tensor([4.0, 1.0])
    own, shared = overlay(images, maps), overlay(images, maps, scale=4.0)
    assert np.array_equal(own[0], own[1]), "scaled by its own maximum every peak looks alike"
    change = np.abs(shared.astype(int) - 100).sum(axis=(1, 2, 3))
    assert change[0] > 3 * change[1] > 0 == change[2], "on a shared scale the weak map stays weak"
    assert (own[2] == 100).all() and (overlay(images, -maps) == 100).all(), (
        "an empty map is not coloured"
    )
    for wrong in ({"alpha": 2}, {"scale": 0}, {"scale": "all"}, {"heatmaps": maps[:1]}):
        with pytest.raises(SwysError):
            overlay(**({"images": images, "heatmaps": maps} | wrong))
    grey, maps = (
        np.arange(512).astype(np.uint8).reshape(2, 16, 16),
        np.eye(4)[None].repeat(2, axis=0),
    )
    colour, drawn = np.repeat(grey[..., None], 3, axis=-1), overlay(grey, maps, size=64)
    assert drawn.shape == (2, 64, 64, 3) and drawn.dtype == np.uint8
    for images in (colour, torch.as_tensor(colour).permute(0, 3, 1, 2) / 127.5 - 1):
        assert np.array_equal(overlay(images, maps, size=64), drawn)
    peak = overlay(
        np.zeros((1, 40, 40), np.uint8), np.eye(4)[None, ::-1] * [0, 0, 0, 1], 1.0, cmap="gray"
    )
    assert peak[0, 0, -1].min() == 255 and peak[0, -1, 0].max() == 0, (
        "the map must not be turned or mirrored"
    )
