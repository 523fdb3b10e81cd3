"""A ViT that reads two patches by construction: which ways to explain have to say so?

Its CLS token attends to two positions and to nothing else, so that no other pixel can change an
answer. Here every method is right. Grad-CAM averages gradients over all tokens, and LeGrad asks
what *more* attention to a patch would add, so before the ReLU both have values elsewhere, too.
"""

import numpy as np
import pytest
import torch
from small import vit

from swys_studies.planted_measures import PIXEL_METHODS, by_subsets
from swys_utils.data import to_model_input
from swys_utils.gradcam import METHODS, grad_cam, legrad
from swys_utils.occlusion import occlusion, occlusion_map

READ = {(0, 1), (2, 3)}  # row and column of the patches of 7 px
WIDTH = 16  # of a token
EVERY_METHOD = [*(method.function for method in METHODS.values()), *PIXEL_METHODS.values()]


@pytest.fixture
def reader():
    """Channel 0 says whether a patch is read, 1 and 2 carry its brightness, 3 and 4 a constant."""
    model = vit(depth=1, patch_size=7, embed_dim=WIDTH, num_heads=1)
    block = model.blocks[0]
    with torch.no_grad():
        for weight in [*model.patch_embed.parameters(), *block.attn.parameters()]:
            weight.zero_()
        block.mlp.fc2.weight.zero_()
        model.cls_token.zero_()
        model.pos_embed.zero_()
        model.pos_embed[0, 0, 3] = 2
        model.pos_embed[0, 0, 4] = -2
        model.pos_embed[0, 1:, 0] = -4
        for row, column in READ:
            model.pos_embed[0, 1 + 4 * row + column, 0] = 4
        model.patch_embed.proj.weight[1] = 1 / (3 * 7 * 7)
        model.patch_embed.proj.weight[2] = -1 / (3 * 7 * 7)
        block.attn.qkv.bias[0] = 30  # every query looks for channel 0
        block.attn.qkv.weight[WIDTH, 0] = 1  # which is the key
        block.attn.qkv.weight[2 * WIDTH + 1, 1] = 1  # the value is the brightness
        block.attn.qkv.weight[2 * WIDTH + 1, 2] = -1
        block.attn.proj.weight.copy_(torch.eye(WIDTH))
        model.head.weight.zero_()
        model.head.weight[1, 1] = 1
        model.head.weight[0, 1] = -1
    return model


@pytest.fixture
def images():
    """Noise, but brighter where the model reads."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 200, (3, 28, 28), dtype=np.uint8)
    return with_what_is_read(images)


def with_what_is_read(images, brightness=255):
    for row, column in READ:
        images[:, 7 * row : 7 * row + 7, 7 * column : 7 * column + 7] = brightness
    return images


def points_only_at_what_is_read(heatmap) -> bool:
    largest = np.abs(heatmap).max()
    places = {tuple(place) for place in np.argwhere(np.abs(heatmap) > 1e-3 * largest)}
    return places == READ and all(heatmap[place] > 0 for place in READ)


def test_no_other_pixel_changes_an_answer(reader, images):
    changed = with_what_is_read(255 - images)
    with torch.no_grad():
        torch.testing.assert_close(reader(to_model_input(images)), reader(to_model_input(changed)))


@pytest.mark.parametrize("method", EVERY_METHOD)
def test_a_map_points_only_at_what_is_read(reader, images, method):
    maps = method(reader, to_model_input(images), 1).numpy()
    for heatmap in maps:
        assert points_only_at_what_is_read(heatmap)


@pytest.mark.parametrize("method", [grad_cam, legrad])
def test_before_the_relu_what_is_read_speaks_for_the_class_and_the_rest_against(
    reader, images, method
):
    for heatmap in method(reader, to_model_input(images), 1, signed=True).numpy():
        assert {tuple(place) for place in np.argwhere(heatmap > 0)} == READ
        assert (heatmap < 0).sum() == heatmap.size - len(READ)


def test_hiding_explains_the_class_of_each_image(reader, images):
    """What speaks for class 1 speaks against class 0, and is left out unless signs are kept."""
    inputs = to_model_input(images)
    for_one = occlusion_map(reader, inputs, 1)
    classes = [1, 0, 1]
    signs = torch.tensor([1.0, -1.0, 1.0])
    signed = occlusion_map(reader, inputs, classes, signed=True)
    torch.testing.assert_close(
        signed,
        signs[:, None, None] * for_one,
        rtol=0,
        atol=1e-5,
    )
    _, empty, _ = occlusion_map(reader, inputs, classes)
    assert empty.abs().max() < 1e-5


@pytest.mark.parametrize("fill", ["mean", "blur"])
def test_with_another_fill_occlusion_points_at_what_is_read(reader, images, fill):
    for heatmap in occlusion(reader, images, 1, fill=fill):
        assert points_only_at_what_is_read(heatmap)


def test_of_two_equal_tokens_one_can_be_left_out(reader, images):
    """The mean of what is left is the same: this fill invents nothing, and loses nothing here."""
    assert np.abs(occlusion(reader, images, 1, fill="token")).max() < 1e-5


def test_leaving_out_the_brighter_token_costs_most(reader, images):
    images[:, :7, 7:14] = 255
    images[:, 14:21, 21:] = 200
    for heatmap in occlusion(reader, images, 1, fill="token"):
        assert np.unravel_index(heatmap.argmax(), heatmap.shape) == (0, 1)


def test_random_subsets_point_at_what_is_read(reader, images):
    heatmap = by_subsets(reader, images[:1], 1)
    hottest = np.argsort(heatmap.ravel())[-2:]
    rows, columns = np.unravel_index(hottest, heatmap.shape)
    assert set(zip(rows, columns)) == READ
