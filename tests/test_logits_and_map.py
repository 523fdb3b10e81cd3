"""Logits and a map that a loss can read: the model's own, Grad-CAM's, and with patches dropped."""

import pytest
import torch
from torch import Tensor
from vit_cases import CLASSES, MODELS, Case, close, correlation, make, outputs_of

from swys_utils.gradcam import LogitsAndMap, grad_cam, logits_and_map


@pytest.fixture(params=MODELS, scope="module")
def case(request) -> Case:
    """Each kind of model, shared by the tests that leave it as it is."""
    return make(request.param)


def test_logits_are_the_models_own(case):
    model, inputs, _ = case
    logits = logits_and_map(model, inputs, CLASSES).logits
    assert torch.allclose(logits, model(inputs), atol=1e-5)


def test_values_are_signed_grad_cam(case):
    model, inputs, _ = case
    values = logits_and_map(model, inputs, CLASSES).values
    maps = grad_cam(model, inputs, CLASSES, signed=True)
    assert close(values, maps.flatten(1))


def test_without_patch_dropout_all_patches_are_there(case):
    model, inputs, _ = case
    kept = logits_and_map(model, inputs, CLASSES).kept
    assert kept is None


def test_a_loss_of_the_map_reaches_every_block(case):
    model, inputs, _ = case
    values = logits_and_map(model, inputs, CLASSES).values
    values.square().mean().backward()
    for block in model.blocks:
        gradient = block.attn.qkv.weight.grad
        assert gradient.abs().max() > 0
    model.zero_grad()


@pytest.fixture(params=["CLS token", "registers, average"])
def dropping(request) -> Case:
    """A model in training that keeps 6 of its 16 patches and skips half of its layers."""
    case = make(request.param, patch_drop_rate=0.6, drop_path_rate=0.5)
    case.model.train()
    return case


def test_logits_in_training_draw_timms_random_numbers(dropping):
    model, inputs, _ = dropping
    torch.manual_seed(1)
    expected = model(inputs)
    torch.manual_seed(1)
    logits = logits_and_map(model, inputs, 2).logits
    assert torch.allclose(logits, expected, atol=1e-5)


def test_values_in_training_are_of_the_patches_that_are_left(dropping):
    model, inputs, _ = dropping
    outputs = outputs_of(model.blocks[-1].norm1)
    torch.manual_seed(1)
    score = model(inputs)[:, 2].sum()
    (tokens,) = outputs
    (gradient,) = torch.autograd.grad(score, tokens)
    patches = tokens[:, model.num_prefix_tokens :]
    gradient = gradient[:, model.num_prefix_tokens :]
    weights = gradient.mean(dim=1, keepdim=True)
    expected = (weights * patches).sum(dim=-1)
    torch.manual_seed(1)
    values = logits_and_map(model, inputs, 2).values
    assert close(values, expected)


def test_positions_in_training_are_one_for_each_value(dropping):
    model, inputs, _ = dropping
    result = logits_and_map(model, inputs, 2)
    assert isinstance(result, LogitsAndMap)
    assert result.values.shape == (5, 6)
    assert result.kept.shape == (5, 6)
    assert result.kept.dtype == torch.int64


def gradient_of_a_lesson(model, inputs) -> Tensor:
    """Gradient of a loss that reads the logits and the map."""
    logits, values, _ = logits_and_map(model, inputs, 1)
    loss = logits.square().mean()
    loss = loss + values.square().mean()
    weights = list(model.parameters())
    gradients = torch.autograd.grad(loss, weights)
    return torch.cat([gradient.flatten() for gradient in gradients])


def test_a_map_is_taught_under_autocast():
    model, inputs, _ = make()
    expected = gradient_of_a_lesson(model, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            logits_and_map(model, inputs)  # must leave no cast without a gradient behind
        gradient = gradient_of_a_lesson(model, inputs)
    assert correlation(gradient, expected) > 0.98


def test_logits_and_map_are_float32_under_autocast():
    model, inputs, _ = make()
    with torch.autocast("cpu", torch.bfloat16):
        logits, values, _ = logits_and_map(model, inputs, 1)
    assert logits.dtype == torch.float32
    assert values.dtype == torch.float32
