"""What is read inside a timm ViT is what timm computes, and the model is left as it was."""

import warnings

import numpy as np
import pytest
import torch
from small import vit
from timm.models.vision_transformer import ResPostBlock

from swys_utils.config import SwysError
from swys_utils.data import to_model_input
from swys_utils.vit_internals import (
    as_map,
    block_with_attention,
    check_kind,
    checked_input,
    embedded_tokens,
    evaluation_mode,
    explained_score,
    input_batches,
    logits_of,
    plain_attention,
    read_by_head,
)

PREFIXES = {
    "CLS token": {},
    "registers": {"reg_tokens": 2},
    "patch tokens alone": {"class_token": False, "global_pool": "avg"},
}


@pytest.fixture
def model():
    return vit(4, noise=0.1)


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(5, 3, 28, 28, generator=generator)


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(params=PREFIXES)
def dropping(request):
    """A model in training mode that keeps 6 of its 16 patches."""
    prefix = PREFIXES[request.param]
    return vit(4, noise=0.1, patch_size=7, patch_drop_rate=0.6, **prefix).train()


def modes(model):
    return [module.training for module in model.modules()]


def test_evaluation_mode_puts_every_layer_in_eval_mode(model):
    model.train()
    with evaluation_mode(model):
        assert not any(modes(model))


def test_evaluation_mode_restores_a_mixed_mode_after_an_error(model):
    model.train()
    model.blocks[1].eval()
    before = modes(model)
    with pytest.raises(ZeroDivisionError), evaluation_mode(model):
        raise ZeroDivisionError
    assert modes(model) == before


def test_evaluation_mode_lets_gradients_be_enabled_in_inference_mode(model):
    with torch.inference_mode():
        with evaluation_mode(model), torch.enable_grad():
            output = model.norm(torch.ones(1, 48))
        assert output.requires_grad


def test_plain_attention_switches_the_fused_kernel_off(model):
    with plain_attention(model):
        assert not any(block.attn.fused_attn for block in model.blocks)


def test_plain_attention_restores_each_layer_after_an_error(model):
    first = model.blocks[0].attn
    second = model.blocks[1].attn
    first.fused_attn = True
    second.fused_attn = False
    with pytest.raises(ZeroDivisionError), plain_attention(model):
        raise ZeroDivisionError
    assert first.fused_attn
    assert not second.fused_attn


def test_the_last_batch_holds_what_is_left(model, images):
    lengths = [len(inputs) for _, inputs in input_batches(model, images, 2)]
    assert lengths == [2, 2, 1]


def test_batches_of_images_are_model_input_of_the_models_size(model, images):
    for selection, inputs in input_batches(model, images, 2):
        assert torch.equal(inputs, to_model_input(images[selection], 28))


def test_batches_of_model_input_pass_unchanged(model, inputs):
    for selection, batch in input_batches(model, inputs, 2):
        assert torch.equal(batch, inputs[selection])


def test_read_only_images_give_no_warning(model, images):
    images.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(input_batches(model, images, 2))


def test_a_block_is_counted_from_either_end(model, inputs):
    assert checked_input(model, inputs, 1)[1] == 1
    assert checked_input(model, inputs, -1)[1] == 1


def test_inputs_get_the_dtype_of_the_model(model, inputs):
    checked, _ = checked_input(model.bfloat16(), inputs, 0)
    assert checked.dtype == torch.bfloat16


def test_a_model_of_another_kind_is_refused(inputs):
    with pytest.raises(SwysError, match="Linear is not of a plain timm VisionTransformer"):
        checked_input(torch.nn.Linear(3, 3), inputs, 0)


def test_a_block_of_another_kind_is_refused(inputs):
    with pytest.raises(SwysError, match="ResPostBlock is not"):
        checked_input(vit(block_fn=ResPostBlock), inputs, 0)


@pytest.mark.parametrize("block", [2, -3])
def test_a_block_that_does_not_exist_is_refused(model, inputs, block):
    with pytest.raises(SwysError, match="choose 0 to 1, or -2 to -1"):
        checked_input(model, inputs, block)


@pytest.mark.parametrize("shape", [(3, 28, 28), (5, 3, 224, 224)])
def test_inputs_of_another_shape_are_refused(model, shape):
    with pytest.raises(SwysError, match="give a float tensor"):
        checked_input(model, torch.zeros(shape), 0)


def test_inputs_of_whole_numbers_are_refused(model, inputs):
    with pytest.raises(SwysError, match="give a float tensor"):
        checked_input(model, inputs.to(torch.uint8), 0)


def test_without_dropout_the_first_block_gets_the_embedded_tokens(model, inputs):
    entered = []
    model.blocks[0].register_forward_pre_hook(lambda module, args: entered.append(args[0]))
    model(inputs)
    tokens, kept = embedded_tokens(model, inputs)
    assert torch.equal(tokens, entered[0])
    assert kept is None


def test_patches_drop_as_in_timms_own_layer(dropping, inputs):
    entered = []
    dropping.blocks[0].register_forward_pre_hook(lambda module, args: entered.append(args[0]))
    torch.manual_seed(1)
    dropping(inputs)
    torch.manual_seed(1)
    tokens, _ = embedded_tokens(dropping, inputs)
    assert torch.equal(tokens, entered[0])


def test_the_dropped_patches_of_a_seed_are_those_of_earlier_versions(dropping, inputs):
    torch.manual_seed(1)
    order = torch.randn(5, 16).argsort(dim=1)
    torch.manual_seed(1)
    _, kept = embedded_tokens(dropping, inputs)
    assert torch.equal(kept, order[:, :6])


def test_kept_patches_are_told_by_their_position(dropping, inputs):
    prefix = dropping.num_prefix_tokens
    tokens, kept = embedded_tokens(dropping, inputs)
    whole, _ = embedded_tokens(dropping.eval(), inputs)
    for image in range(5):
        patches = whole[image, prefix:]
        assert torch.equal(tokens[image, prefix:], patches[kept[image]])


def test_no_patch_drops_in_eval_mode(dropping, inputs):
    _, kept = embedded_tokens(dropping.eval(), inputs)
    assert kept is None


def test_a_block_gives_its_own_tokens(model, inputs):
    tokens, _ = embedded_tokens(model, inputs)
    block = model.blocks[0]
    after, _ = block_with_attention(block, tokens)
    assert torch.allclose(after, block(tokens), atol=1e-5)


def test_a_row_of_an_attention_map_sums_to_one(model, inputs):
    tokens, _ = embedded_tokens(model, inputs)
    _, attention = block_with_attention(model.blocks[0], tokens)
    assert attention.shape == (5, 3, 5, 5)  # images, heads, and the CLS token with four patches
    torch.testing.assert_close(attention.sum(dim=-1), torch.ones(5, 3, 5))


def test_a_backward_pass_ends_at_the_attention_map(model, inputs):
    tokens, _ = embedded_tokens(model, inputs)
    after, attention = block_with_attention(model.blocks[0], tokens)
    after.sum().backward()
    assert attention.grad.abs().max() > 0
    assert attention.is_leaf


def test_logits_of_the_last_tokens_are_the_models(model, inputs):
    tokens, _ = embedded_tokens(model, inputs)
    logits = logits_of(model, model.blocks(tokens))
    torch.testing.assert_close(logits, model(inputs))


@pytest.mark.parametrize(
    ("geometry", "tokens"),
    [
        ({}, 1),
        ({"reg_tokens": 2}, 1),
        ({"name": "deit_tiny_distilled_patch16_224"}, 2),
        ({"reg_tokens": 2, "global_pool": "avg"}, 4),
        ({"class_token": False, "global_pool": "map"}, 4),
    ],
)
def test_the_head_reads_cls_tokens_or_all_patches(geometry, tokens):
    model = vit(**geometry)
    all_tokens = torch.arange(model.num_prefix_tokens + 4)
    assert len(all_tokens[read_by_head(model)]) == tokens


LOGITS = torch.tensor([[1.0, 5.0], [7.0, 3.0]])


@pytest.mark.parametrize(
    ("targets", "score"),
    [
        (None, 12),
        (0, 8),
        ([1, 0], 12),
        ([0, 1], 4),
    ],
)
def test_the_score_is_the_sum_of_the_logits_to_explain(targets, score):
    assert explained_score(LOGITS, targets) == score


def test_values_of_patches_are_laid_out_row_by_row(model, inputs):
    height, width = model.patch_embed.grid_size
    values = torch.arange(height * width, dtype=torch.float32)[None]
    maps = as_map(values, model, inputs, signed=True)
    assert maps[0, 0].tolist() == list(range(width))


def test_negative_values_become_zero_unless_signed(model, inputs):
    values = -torch.ones(1, model.patch_embed.num_patches)
    assert as_map(values, model, inputs, signed=False).max() == 0


def test_only_a_plain_vit_has_the_kind_that_is_explained():
    check_kind(vit())
    wrapped = torch.nn.Sequential(vit())
    with pytest.raises(SwysError, match="Sequential is not of a plain timm VisionTransformer"):
        check_kind(wrapped)
