"""The doctor of blank heatmaps: for each cause a model that has it, and one that has not."""

import numpy as np
import pytest
import torch
from PIL import Image
from small import vit
from torch import Tensor

from swys import cli
from swys.doctor import CHECKS, LIKELY_FIRST, diagnose, read_image, report, verdict
from swys_utils.config import SwysError
from swys_utils.models import save_checkpoint


@pytest.fixture
def image() -> Tensor:
    return torch.rand(1, 3, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1


def found(model, image) -> set[str]:
    """The causes that the doctor finds."""
    return {finding.cause for finding in diagnose(model, image) if finding.found}


def with_head(model, scale: float):
    """The model with other logits: all of them times a number."""
    with torch.no_grad():
        model.head.weight.mul_(scale)
        model.head.bias.mul_(scale)
    return model


def one_sided(sign: float):
    """A model whose signed map has the same value everywhere, with this sign."""
    model = vit(noise=0.2)
    norm = model.blocks[-1].norm1
    with torch.no_grad():
        norm.weight.zero_()
        model.head.weight[1] = -model.head.weight[0]
        model.head.bias.copy_(torch.tensor([1000.0, 0.0]))  # class 0 is predicted
    zeros = torch.zeros(1, 3, 28, 28)
    relu = [finding for finding in diagnose(model, zeros) if finding.cause == "relu"]
    if relu[0].found == (sign > 0):
        with torch.no_grad():
            model.head.weight.neg_()
    return model


def test_pooling_of_the_cls_token(image):
    assert "cls_pooling" in found(vit(noise=0.2), image)


def test_a_mean_over_patches_has_a_gradient_there(image):
    assert "cls_pooling" not in found(vit(noise=0.2, global_pool="avg"), image)


def test_relu_of_an_all_negative_map(image):
    assert "relu" in found(one_sided(-1), image)


def test_relu_leaves_a_positive_map(image):
    assert "relu" not in found(one_sided(1), image)


@pytest.mark.parametrize("without_gradients", [torch.no_grad, torch.inference_mode])
def test_gradients_that_are_switched_off(image, without_gradients):
    model = vit()
    with without_gradients():
        assert "no_grad" in found(model, image)


def test_frozen_weights(image):
    assert "no_grad" in found(vit().requires_grad_(False), image)


def test_gradients_that_are_on(image):
    assert "no_grad" not in found(vit(), image)


@pytest.mark.parametrize("fused", [True, False])
def test_fused_attention(image, fused):
    model = vit()
    for block in model.blocks:
        block.attn.fused_attn = fused
    assert ("fused_attention" in found(model, image)) == fused


@pytest.mark.parametrize(("scale", "vanishes"), [(1, False), (10_000, True)])
def test_softmax_of_a_certain_answer(image, scale, vanishes):
    model = with_head(vit(noise=0.2), scale)
    assert ("softmax" in found(model, image)) == vanishes


@pytest.mark.parametrize(("patch_size", "other"), [(2, False), (4, True)])
def test_another_grid_than_14_x_14(image, patch_size, other):
    assert ("grid" in found(vit(patch_size=patch_size), image)) == other


@pytest.mark.parametrize(("registers", "other"), [(0, False), (4, True)])
def test_more_prefix_tokens_than_one(image, registers, other):
    assert ("prefix_tokens" in found(vit(reg_tokens=registers), image)) == other


@pytest.mark.parametrize(("bias", "saturated"), [(0.0, False), (50.0, True)])
def test_a_saturated_answer(image, bias, saturated):
    model = vit()
    with torch.no_grad():
        model.head.bias[0] = bias
    assert ("saturated" in found(model, image)) == saturated


def test_an_empty_map_is_named_before_a_mistake_of_the_code(image):
    likely = verdict(diagnose(one_sided(-1), image))
    assert likely.cause == "relu"


def test_every_cause_can_be_the_likely_one():
    assert sorted(LIKELY_FIRST) == sorted(CHECKS)


def test_the_report_has_a_line_for_each_cause(image):
    findings = diagnose(vit(), image)
    text = report(findings)
    assert all(finding.measured in text for finding in findings)


def test_the_model_stays_as_it_was(image):
    model = vit().train()
    diagnose(model, image)
    assert model.training
    assert all(block.attn.fused_attn for block in model.blocks)


def test_a_class_that_does_not_exist(image):
    with pytest.raises(SwysError, match="no class 2"):
        diagnose(vit(), image, target=2)


def test_several_images(image):
    with pytest.raises(SwysError, match="give one"):
        diagnose(vit(), image.expand(2, -1, -1, -1))


def test_another_kind_of_model(image):
    with pytest.raises(SwysError, match="plain timm"):
        diagnose(torch.nn.Linear(2, 2), image)


def test_an_oblong_picture_is_cut_to_its_central_square(tmp_path):
    pixels = np.zeros((28, 56), np.uint8)
    pixels[:, 14:42] = 255
    path = tmp_path / "oblong.png"
    Image.fromarray(pixels).save(path)
    assert (read_image(path, 28) == 1).all()


@pytest.fixture
def stored(tmp_path) -> str:
    folder = tmp_path / "model"
    save_checkpoint(vit(), folder, {"model": "vit_tiny_patch16_224"})
    return str(folder)


def test_the_command_names_a_cause(stored, tmp_path, capsys):
    picture = tmp_path / "image.png"
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(picture)
    assert cli.main(["doctor", stored, str(picture)]) == 0
    assert "CAUSE CLS pooling" in capsys.readouterr().out


def test_a_picture_that_is_not_there_is_one_line(stored, capsys):
    assert cli.main(["doctor", stored, "nowhere.png"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_16_bit_picture_is_not_cut_off(tmp_path):
    pixels = np.full((28, 28), 128 * 256, np.uint16)
    path = tmp_path / "deep.png"
    Image.fromarray(pixels).save(path)
    assert read_image(path, 28).abs().max() < 0.01  # the middle of -1 and 1
