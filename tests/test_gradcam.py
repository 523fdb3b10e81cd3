"""Grad-CAM against two other libraries on every kind of ViT, and the other methods."""

from typing import NamedTuple

import pytest
import torch
from small import vit
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from vit_cases import CLASSES, MODELS, Case, close, correlation, make, outputs_of

from swys_utils.config import SwysError
from swys_utils.gradcam import METHODS, attention_rollout, grad_cam, hires_cam, legrad
from swys_utils.vit_internals import evaluation_mode


@pytest.fixture(params=MODELS, scope="module")
def case(request) -> Case:
    """Each kind of model, shared by the tests that leave it as it is."""
    return make(request.param)


@pytest.fixture(params=METHODS)
def function(request):
    """Each way to explain."""
    return METHODS[request.param].function


# Grad-CAM against other libraries


def show_patches_as_image(case: Case, block: int) -> torch.nn.Module:
    """Send the patches through a layer as (B, D, gh, gw), where both libraries can look at them."""
    model, _, grid = case
    prefix = model.num_prefix_tokens
    image_layer = torch.nn.Identity()
    model.image = image_layer

    def through_image(module, args, tokens):
        others = tokens[:, :prefix]
        patches = tokens[:, prefix:]
        image = patches.reshape(5, *grid, -1)
        image = image.permute(0, 3, 1, 2).contiguous()
        image = image_layer(image)
        patches = image.flatten(2).mT
        return torch.cat([others, patches], dim=1)

    model.blocks[block].norm1.register_forward_hook(through_image)
    return image_layer


@pytest.mark.parametrize("block", [-1, 0])
@pytest.mark.parametrize("kind", MODELS)
def test_agrees_with_pytorch_grad_cam(kind, block):
    library = pytest.importorskip("pytorch_grad_cam")
    case = make(kind)
    model, inputs, _ = case
    maps = grad_cam(model, inputs, CLASSES, block, signed=True)
    layer = show_patches_as_image(case, block)
    with library.GradCAM(model, [layer]) as cam:
        hooks = cam.activations_and_grads
        logits = hooks(inputs)
        scores = logits.gather(1, CLASSES[:, None])
        scores.sum().backward()
        activations = hooks.activations[0].detach().numpy()
        gradients = hooks.gradients[0].detach().numpy()
        # its map before the min-max scaling
        expected = cam.get_cam_image(inputs, layer, None, activations, gradients)
    assert close(maps, expected)


@pytest.mark.parametrize("block", [-1, 0])
@pytest.mark.parametrize("kind", MODELS)
def test_agrees_with_torchcam(kind, block):
    library = pytest.importorskip("torchcam.methods")
    case = make(kind)
    model, inputs, _ = case
    maps = grad_cam(model, inputs, CLASSES, block)
    layer = show_patches_as_image(case, block)
    with library.GradCAM(model, layer) as extractor:
        logits = model(inputs)
        classes = CLASSES.tolist()
        (expected,) = extractor(classes, logits, normalized=False)
    assert close(maps, expected)


# Every method on every kind of model


def test_a_map_is_detached_float32_of_the_models_grid(case, function):
    model, inputs, grid = case
    maps = function(model, inputs, CLASSES)
    assert maps.shape == (5, *grid)
    assert maps.dtype == torch.float32
    assert not maps.requires_grad


def test_targets_may_be_numpys(function):
    model, inputs, _ = make()
    expected = function(model, inputs, CLASSES)
    maps = function(model, inputs, CLASSES.numpy())
    assert torch.equal(maps, expected)


def test_a_map_is_not_negative(case, function):
    model, inputs, _ = case
    maps = function(model, inputs, CLASSES, block=-2)
    assert maps.min() >= 0


def test_a_map_does_not_depend_on_the_other_images_of_its_batch(case, function):
    model, inputs, _ = case
    maps = function(model, inputs, CLASSES, block=-2)
    alone = function(model, inputs[1:2], 1, block=-2)
    assert close(maps[1:2], alone)


# LeGrad is not among them: its ReLU is inside its average
@pytest.mark.parametrize("function", [grad_cam, hires_cam, attention_rollout])
def test_a_map_is_the_signed_one_after_relu(case, function):
    model, inputs, _ = case
    maps = function(model, inputs, CLASSES, block=-2)
    signed = function(model, inputs, CLASSES, block=-2, signed=True)
    assert close(maps, signed.relu())


def test_without_targets_the_predicted_class_is_explained(case, function):
    model, inputs, _ = case
    predicted = model(inputs).argmax(1)
    expected = function(model, inputs, predicted)
    assert torch.equal(function(model, inputs), expected)


# Closed forms of the other methods


@pytest.fixture
def one_block() -> Case:
    case = make(depth=1)
    case.model.blocks[0].attn.fused_attn = False
    return case


def test_hires_cam_is_gradient_times_activation(one_block):
    model, inputs, _ = one_block
    outputs = outputs_of(model.blocks[0].norm1)
    score = model(inputs)[:, 2].sum()
    (activation,) = outputs
    (gradient,) = torch.autograd.grad(score, activation)
    values = (gradient * activation).sum(dim=-1)
    expected = values[:, 1:].reshape(5, 4, 4)
    maps = hires_cam(model, inputs, 2, signed=True)
    assert close(maps, expected)


def test_legrad_is_the_mean_gradient_of_the_attention_map(one_block):
    model, inputs, _ = one_block
    outputs = outputs_of(model.blocks[0].attn.attn_drop)
    score = model(inputs)[:, 2].sum()
    (gradient,) = torch.autograd.grad(score, outputs)
    values = gradient.relu().mean(dim=(1, 2))
    expected = values[:, 1:].reshape(5, 4, 4)
    maps = legrad(model, inputs, 2)
    assert close(maps, expected)


def test_attention_rollout_adds_up_to_one_where_all_tokens_are_patches():
    model, inputs, _ = make("average pooling")
    maps = attention_rollout(model, inputs)
    totals = maps.sum(dim=(1, 2))
    torch.testing.assert_close(totals, torch.ones(5))


def test_attention_rollout_leaves_a_share_to_other_tokens():
    model, inputs, _ = make("registers")
    maps = attention_rollout(model, inputs)
    totals = maps.sum(dim=(1, 2))
    assert (totals < 0.99).all()


# The model is left as it was


class Used(NamedTuple):
    """A model as a training run leaves it, and the map of a method when nothing was dropped."""

    model: VisionTransformer
    inputs: Tensor
    expected: Tensor


@pytest.fixture
def used(function) -> Used:
    model, inputs, _ = make(patch_drop_rate=0.5, pos_drop_rate=0.5)
    expected = function(model, inputs, 0)
    model.train()
    model.blocks[1].eval()  # a mixed mode has to survive
    model.blocks[0].requires_grad_(False)
    model.blocks[2].attn.fused_attn = False
    return Used(model, inputs, expected)


def state(model):
    """What a method could leave changed."""
    state = []
    for module in model.modules():
        fused = vars(module).get("fused_attn")
        hooks = len(module._forward_hooks)
        state.append((module.training, fused, hooks))
    for weight in model.parameters():
        state.append((weight.requires_grad, weight.grad))
    return state


def test_nothing_is_dropped_while_a_map_is_made(function, used):
    model, inputs, expected = used
    maps = function(model, inputs, 0)
    assert close(maps, expected)


def test_the_model_is_as_before(function, used):
    model, inputs, _ = used
    before = state(model)
    function(model, inputs, 0)
    assert state(model) == before


def test_the_model_is_as_before_after_an_error(function, used, monkeypatch):
    model, inputs, _ = used
    before = state(model)
    last_mlp = model.blocks[2].mlp
    monkeypatch.setattr(last_mlp, "forward", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        function(model, inputs)
    assert state(model) == before


def test_a_map_needs_no_gradients_to_be_enabled(function, used):
    model, inputs, expected = used
    with torch.no_grad():
        maps = function(model, inputs, 0)
    assert close(maps, expected)


def test_gradients_stay_disabled(function, used):
    model, inputs, _ = used
    with torch.no_grad():
        function(model, inputs, 0)
        assert not model(inputs).requires_grad


def test_a_map_is_made_inside_evaluation_mode(function, used):
    model, inputs, expected = used
    with torch.no_grad(), evaluation_mode(model):
        maps = function(model, inputs, 0)
    assert close(maps, expected)


def test_a_map_is_made_in_inference_mode(function, used):
    model, inputs, expected = used
    with torch.inference_mode():
        copy = inputs.clone()  # an inference tensor
        maps = function(model, copy, 0)
        assert close(maps, expected)


def test_a_map_under_autocast_is_float32(function, used):
    model, inputs, expected = used
    with torch.autocast("cpu", torch.bfloat16):
        maps = function(model, inputs, 0)
    assert maps.dtype == torch.float32
    assert correlation(maps, expected) > 0.95


def test_a_map_of_a_bfloat16_model_is_float32(function, used):
    model, inputs, expected = used
    maps = function(model.bfloat16(), inputs, 0)
    assert maps.dtype == torch.float32
    assert correlation(maps, expected) > 0.95


def test_one_channel_is_refused_in_a_line():
    with pytest.raises(SwysError, match="give a float tensor"):
        grad_cam(vit(), torch.zeros(1, 1, 28, 28))


def test_a_map_is_made_for_targets_of_inference_mode(function, used):
    model, inputs, expected = used
    with torch.inference_mode():
        targets = torch.zeros(len(inputs), dtype=torch.int64)
    maps = function(model, inputs, targets)
    assert close(maps, expected)
