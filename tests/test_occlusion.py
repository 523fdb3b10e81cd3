"""Occlusion of models whose truth is known: a linear one that reads two patches, and a ViT."""

import numpy as np
import pytest
import torch
from small import vit
from torch import nn

from swys_utils.config import SwysError
from swys_utils.data import to_model_input
from swys_utils.gradcam import heatmaps
from swys_utils.occlusion import (
    FILLS,
    blurred,
    grid_of,
    lost_without,
    occlusion,
    one_input,
    without_patches,
)
from swys_utils.vit_internals import explained_classes, targets_of

READ = ((0, 0), (4, 2))  # patches of 4 px: row, column
WEIGHTS = (2.0, -1.0)


def two_patches(inputs):
    """Logits (B, 2): class 1 gets a share of the mean of each of two patches, class 0 nothing."""
    means = []
    for row, column in READ:
        rows = slice(4 * row, 4 * row + 4)
        columns = slice(4 * column, 4 * column + 4)
        means.append(inputs[:, :, rows, columns].mean(dim=(1, 2, 3)))
    score = WEIGHTS[0] * means[0] + WEIGHTS[1] * means[1]
    return torch.stack([torch.zeros_like(score), score], dim=1)


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (3, 28, 28), dtype=np.uint8)


@pytest.fixture
def bright():
    """Black images whose two patches are white."""
    images = np.zeros((2, 28, 28), np.uint8)
    for row, column in READ:
        images[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 255
    return images


@pytest.fixture
def model():
    return vit(noise=0.1, patch_size=7)


def test_a_map_is_float32_with_a_value_for_each_patch(images):
    maps = occlusion(two_patches, images)
    assert maps.shape == (3, 7, 7)
    assert maps.dtype == np.float32


def test_only_the_patches_that_are_read_count(bright):
    maps = occlusion(two_patches, bright, targets=1)
    rows, columns = np.nonzero(maps[0])
    assert set(zip(rows, columns)) == set(READ)


def test_a_patch_is_worth_what_the_log_odds_lose(bright):
    maps = occlusion(two_patches, bright, targets=1)
    inputs = to_model_input(bright)
    lost = 1 - inputs[0].mean().item()  # white becomes the mean of the image
    for place, weight in zip(READ, WEIGHTS):
        expected = weight * lost
        assert maps[0][place] == pytest.approx(expected, rel=1e-4)


def test_what_speaks_for_a_class_speaks_against_the_other(bright):
    for_one = occlusion(two_patches, bright, targets=1)
    for_zero = occlusion(two_patches, bright, targets=0)
    np.testing.assert_allclose(for_zero, -for_one, atol=1e-6)


def test_without_targets_the_predicted_class_is_explained(bright):
    expected = occlusion(two_patches, bright, targets=1)
    maps = occlusion(two_patches, bright)
    np.testing.assert_array_equal(maps, expected)


def test_each_image_can_have_a_class_of_its_own(bright):
    maps = occlusion(two_patches, bright, targets=[0, 1])
    np.testing.assert_allclose(maps[0], -maps[1], atol=1e-6)


def test_where_several_labels_can_be_true_a_logit_is_the_score(bright):
    def with_another_label(inputs):
        logits = two_patches(inputs)
        another = 9 * inputs[:, :1, 0, 0]
        return torch.cat([logits, another], dim=1)

    alone = occlusion(two_patches, bright, targets=1)
    beside = occlusion(with_another_label, bright, targets=1, multi_label=True)
    np.testing.assert_allclose(beside, alone, atol=1e-6)


def test_the_side_of_a_patch_can_be_chosen(images):
    assert occlusion(two_patches, images, patch=14).shape == (3, 2, 2)


def test_a_function_may_return_an_array(images):
    def onnx(inputs):
        return two_patches(inputs).numpy()

    expected = occlusion(two_patches, images)
    maps = occlusion(onnx, images)
    np.testing.assert_array_equal(maps, expected)


def test_an_image_costs_one_answer_for_each_patch_and_one_more(images):
    asked = []

    def counting(inputs):
        asked.append(len(inputs))
        return two_patches(inputs)

    occlusion(counting, images[:1], 1, patch=4)
    assert sum(asked) == 7 * 7 + 1


def test_colour_images_are_taken(images):
    colour = np.repeat(images[..., None], 3, axis=3)
    grey_maps = occlusion(two_patches, images)
    maps = occlusion(two_patches, colour)
    np.testing.assert_allclose(maps, grey_maps, atol=1e-6)


def test_a_map_of_a_vit_has_its_grid(model, images):
    image = one_input(model, images[:1])
    assert grid_of(model, image) == (4, 4)
    assert occlusion(model, images).shape == (3, 4, 4)


@pytest.mark.parametrize("fill", FILLS)
def test_a_patch_that_a_vit_does_not_attend_to_is_worth_nothing(model, images, fill):
    with torch.no_grad():
        for block in model.blocks:
            block.attn.proj.weight.zero_()  # CLS gets nothing from any patch
    maps = occlusion(model, images, fill=fill)
    assert np.abs(maps).max() < 1e-5


def test_without_its_token_a_patch_cannot_be_read(model, images):
    changed = images.copy()
    changed[:, :7, :7] = 255
    left = log_odds_left(model, images)
    left_changed = log_odds_left(model, changed)
    np.testing.assert_allclose(left, left_changed, atol=1e-5)


def log_odds_left(model, images):
    """Log-odds of class 0 without the first patch."""
    lost = occlusion(model, images, targets=0, fill="token")
    with torch.no_grad():
        logits = model(to_model_input(images))
    odds = logits[:, 0] - logits[:, 1]
    return odds.numpy() - lost[:, 0, 0]


def test_hiding_several_patches_of_a_linear_model_adds_up(bright):
    image = one_input(two_patches, bright[:1])
    singles = occlusion(two_patches, bright[:1], targets=1)[0]
    hidden = torch.ones(1, 7, 7, dtype=torch.bool)
    lost = lost_without(two_patches, image, hidden, 1)
    assert lost.item() == pytest.approx(singles.sum(), rel=1e-4)


def test_blur_keeps_the_colour_of_a_place(images):
    grey = np.full_like(images, 128)
    maps = occlusion(two_patches, grey, fill="blur")
    assert np.abs(maps).max() < 1e-6


def test_a_blurred_uniform_image_stays_as_it_is():
    uniform = torch.full((1, 3, 28, 28), 0.3)
    torch.testing.assert_close(blurred(uniform, 4), uniform)


def test_occlusion_is_one_of_the_ways_to_explain(model, images):
    expected = occlusion(model, images, targets=1)
    maps = heatmaps(model, images, "occlusion", 1, signed=True)
    np.testing.assert_allclose(maps, expected, atol=1e-6)


def test_one_class_stays_one_for_all():
    assert targets_of(1, slice(0, 2), 5) == 1


def test_each_image_keeps_its_class():
    assert targets_of([0, 1, 1], slice(1, 3), 3).tolist() == [1, 1]


def test_the_highest_logit_is_explained():
    logits = torch.tensor([[0.0, 2.0, 1.0]])
    classes = explained_classes(logits, None)
    assert classes.tolist() == [1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fill": "meen"}, "did you mean 'mean'"),
        ({"fill": "token"}, "needs a timm ViT; choose mean or blur"),
        ({"patch": 5}, "patches of 5 px do not fill 28 x 28 px"),
        ({"targets": [0, 1]}, "[0, 1] for 3 images"),
        ({"targets": 2}, "give one class from 0 to 1"),
        ({"images": np.zeros((0, 28, 28), np.uint8)}, "occlusion of 0 images"),
    ],
)
def test_what_cannot_be_hidden_is_one_line(images, change, message):
    arguments = {"model": two_patches, "images": images}
    arguments |= change
    with pytest.raises(SwysError) as error:
        occlusion(**arguments)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_token_is_as_large_as_the_vits_patch(model, images):
    with pytest.raises(SwysError, match="leave out patch"):
        occlusion(model, images, patch=14, fill="token")


def test_a_single_logit_is_explained_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)

    def one_logit(inputs):
        return inputs.mean(dim=(1, 2, 3))[:, None]

    (lost,) = occlusion(one_logit, image[None], patch=7)
    assert np.isfinite(lost).all()


def test_of_several_labels_heatmaps_ask_for_one_at_a_time():
    model = vit(3, noise=0.05)
    images = np.random.default_rng(1).integers(0, 256, (2, 28, 28), dtype=np.uint8)
    options = {"targets": 1, "multi_label": True}
    maps = heatmaps(model, images, "occlusion", signed=True, **options)
    np.testing.assert_allclose(maps, occlusion(model, images, **options), atol=1e-5)
    exclusive = heatmaps(model, images, "occlusion", 1, signed=True)
    assert not np.allclose(maps, exclusive, atol=1e-3)


@pytest.mark.parametrize("side, patches", [(28, 7), (64, 8), (128, 8), (224, 7)])
def test_patches_of_a_function_fill_the_image(side, patches):
    images = np.zeros((1, side, side), np.uint8)
    maps = occlusion(lambda x: x.mean(dim=(2, 3)), images, 0)
    assert maps.shape == (1, patches, patches)


@pytest.mark.parametrize(
    ("height", "width", "grid"),
    [
        (100, 100, (5, 5)),
        (128, 128, (8, 8)),
        (112, 96, (7, 6)),
        (121, 121, (7, 7)),
        (112, 100, (7, 7)),
    ],
    ids=["100", "128", "oblong", "uneven", "uneven and oblong"],
)
def test_patches_of_a_function_are_square_or_seven_a_side(height, width, grid):
    assert grid_of(lambda x: x, torch.zeros(1, 3, height, width)) == grid


def test_hidden_patches_get_the_mean_of_their_own_image():
    rows = torch.arange(28.0).expand(3, 28, 28)
    images = torch.stack([rows, rows + 100])
    hidden = torch.zeros(2, 7, 7, dtype=torch.bool)
    hidden[0, 0, 1] = True
    hidden[1, 6, 6] = True
    changed = without_patches(images, hidden)
    assert changed[0, :, :4, 4:8].unique().tolist() == [13.5]
    assert changed[1, :, 24:, 24:].unique().tolist() == [113.5]
    assert (changed != images).sum() == 2 * 3 * 16


@pytest.mark.parametrize("kind", [np.float64, np.float16])
def test_a_function_is_asked_in_single_precision(kind):
    def mean(x):
        assert x.dtype == torch.float32
        return x.mean(dim=(2, 3))

    assert occlusion(mean, np.zeros((1, 3, 28, 28), kind), 0).shape == (1, 7, 7)


def test_tokens_are_left_out_as_many_in_each_variant():
    hidden = torch.zeros(2, 4, 4, dtype=torch.bool)
    hidden[0, 0, 0] = True
    hidden[1, 0, :3] = True
    with pytest.raises(SwysError, match="'token' needs as many hidden patches in each variant"):
        lost_without(vit(patch_size=7), torch.zeros(1, 3, 28, 28), hidden, 0, fill="token")


def test_patches_of_a_small_image_are_pixels():
    assert grid_of(lambda x: x, torch.zeros(1, 3, 5, 5)) == (5, 5)


def test_images_of_double_precision_are_taken():
    model = vit(noise=0.05)
    x = np.random.default_rng(0).standard_normal((1, 3, 28, 28))
    single = occlusion(model, x.astype(np.float32))
    np.testing.assert_allclose(occlusion(model, x), single, atol=1e-5)


class Mean(nn.Module):
    """Two logits from the mean of an image, with weights of double precision."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(1, 2).double()

    def forward(self, inputs):
        return self.head(inputs.mean(dim=(1, 2, 3))[:, None])


def test_a_network_gets_images_of_its_own_type():
    images = np.zeros((1, 28, 28), np.uint8)
    assert one_input(Mean(), images).dtype == torch.float64
    assert occlusion(Mean(), images).shape == (1, 7, 7)


def test_a_function_gets_an_image_in_its_own_shape():
    image = np.zeros((1, 28, 42), np.uint8)
    assert one_input(two_patches, image).shape == (1, 3, 28, 42)


def test_no_patch_is_smaller_than_a_pixel(images):
    with pytest.raises(SwysError, match="patches of 0 px do not fill"):
        occlusion(two_patches, images, patch=0)
