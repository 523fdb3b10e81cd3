"""Deletion and insertion, and the blur on cases with a known answer."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small import vit

from swys_utils.config import SwysError
from swys_utils.faithfulness import (
    DeletionInsertion,
    blurred,
    centre_prior_maps,
    deletion_insertion,
    random_maps,
)


class BrightCorner(torch.nn.Module):
    """Class 1 is as probable as the top left quarter of the picture is bright."""

    num_classes = 2

    def __init__(self):
        super().__init__()
        gain = torch.tensor(6.0)
        self.gain = torch.nn.Parameter(gain)
        self.pictures = []

    def forward(self, x):
        self.pictures.append(x.clone())
        middle = x.shape[-1] // 2
        corner = x[:, :, :middle, :middle]
        brightness = corner.mean((1, 2, 3))
        bright = self.gain * brightness
        dark = torch.zeros_like(bright)
        return torch.stack([dark, bright], dim=1)


# Baselines


def test_random_maps_have_a_grid_for_each_image():
    maps = random_maps(3, (4, 5))
    assert maps.shape == (3, 4, 5)


def test_random_maps_are_the_same_each_time():
    first = random_maps(3, (4, 5))
    second = random_maps(3, (4, 5))
    assert np.array_equal(first, second)


def test_the_centre_prior_is_highest_in_the_middle():
    (heatmap,) = centre_prior_maps(1, (5, 7))
    highest = np.argwhere(heatmap == heatmap.max())
    assert highest.tolist() == [[2, 3]]


def test_the_centre_prior_is_the_same_for_every_image():
    first, second = centre_prior_maps(2, (5, 7))
    assert np.array_equal(first, second)


# Deletion and insertion


@pytest.fixture
def inputs():
    """Six images with a bright top left quarter."""
    inputs = torch.full((6, 3, 32, 32), -0.6)
    inputs[:, :, :16, :16] = 0.9
    return inputs


@pytest.fixture
def right():
    """Maps that mark that quarter."""
    maps = np.zeros((6, 4, 4))
    maps[:, :2, :2] = 1
    return maps


def curves(inputs, maps, **options):
    model = BrightCorner()
    return deletion_insertion(model, inputs, maps, targets=1, steps=8, **options)


@pytest.fixture
def result(inputs, right):
    """Both curves of the right maps."""
    return curves(inputs, right)


def test_the_gap_is_the_area_between_the_curves():
    fractions = np.array([0, 0.5, 1])
    deletion = np.array([[1, 0, 0]])
    insertion = np.array([[0, 1, 1]])
    result = DeletionInsertion(fractions, deletion, insertion)
    np.testing.assert_allclose(result.gap, [0.5])


def test_the_right_order_has_a_positive_gap(result):
    assert result.gap.min() > 0.03


def test_the_reverse_order_has_a_negative_gap(inputs, right):
    wrong = -right
    reverse = curves(inputs, wrong)
    assert reverse.gap.max() < -0.03


def test_the_right_order_has_a_larger_gap_than_a_random_one(inputs, result):
    maps = random_maps(6, (4, 4))
    chance = curves(inputs, maps)
    assert (result.gap > chance.gap).all()


def test_curves_have_a_value_for_each_fraction(result):
    expected = np.linspace(0, 1, 9)
    np.testing.assert_allclose(result.fractions, expected)
    assert result.deletion.shape == (6, 9)
    assert result.insertion.shape == (6, 9)


def test_deletion_ends_where_insertion_starts(result):
    deletion = result.deletion[:, -1]
    insertion = result.insertion[:, 0]
    np.testing.assert_allclose(deletion, insertion)


def test_insertion_ends_where_deletion_starts(result):
    deletion = result.deletion[:, 0]
    insertion = result.insertion[:, -1]
    np.testing.assert_allclose(insertion, deletion)


def test_deletion_starts_from_the_whole_image(result):
    logits = torch.tensor([0, 6 * 0.9])
    expected = logits.softmax(0)[1]
    whole = result.deletion[0, 0]
    assert whole == pytest.approx(expected.item())


def test_deletion_ends_at_the_blurred_image(inputs, result):
    blank = blurred(inputs, 8)
    logits = BrightCorner()(blank)
    expected = logits.softmax(1)[0, 1]
    left_over = result.deletion[0, -1]
    assert left_over == pytest.approx(expected.item())


def test_a_probability_of_several_labels_is_a_sigmoid(inputs, right):
    result = curves(inputs, right, multi_label=True)
    expected = torch.tensor(6 * 0.9).sigmoid()
    whole = result.deletion[0, 0]
    assert whole == pytest.approx(expected.item())


def test_without_targets_the_predicted_class_is_followed(inputs, right, result):
    model = BrightCorner()
    predicted = deletion_insertion(model, inputs, right, steps=8)
    np.testing.assert_array_equal(predicted.deletion, result.deletion)


def deleted_tokens(heatmap) -> torch.Tensor:
    """Share of each token's pixels (4, 4) that change when a quarter of the tokens is deleted."""
    model = BrightCorner()
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(1, 3, 32, 32, generator=generator)
    maps = heatmap[None]
    deletion_insertion(model, inputs, maps, targets=0, steps=4)
    # each step shows the model the deletion, then the insertion; the first step deletes nothing
    picture = model.pictures[2]
    changed = (picture != inputs).any(dim=1)
    tokens = changed.reshape(4, 8, 4, 8)
    tokens = tokens.float()
    return tokens.mean((1, 3))


def test_the_hottest_tokens_are_deleted_first():
    heatmap = np.zeros((4, 4))
    heatmap[3] = 1
    tokens = deleted_tokens(heatmap)
    assert np.array_equal(tokens, heatmap)


def test_whole_patches_are_deleted():
    uniform = np.zeros((4, 4))
    tokens = deleted_tokens(uniform)
    shares = sorted(tokens.flatten().tolist())
    assert shares == [0] * 12 + [1] * 4


def test_ties_are_not_deleted_in_reading_order():
    uniform = np.zeros((4, 4))
    first_row = deleted_tokens(uniform)[0]
    assert first_row.sum() < 4


# The blur


def old_blurred(x, sigma):
    """The blur of earlier versions, with which stored results were measured."""
    reach = int(2 * sigma)
    offsets = torch.arange(-reach, reach + 1.0)
    distances = offsets / sigma
    kernel = torch.exp(-0.5 * distances**2)
    kernel = kernel / kernel.sum()
    kernel = kernel.expand(3, 1, 1, -1)
    sides = (reach, reach, 0, 0)
    for _ in range(2):  # along rows, then along columns
        x = F.pad(x, sides, mode="replicate")
        x = F.conv2d(x, kernel, groups=3)
        x = x.transpose(2, 3)
    return x


@pytest.fixture
def noise():
    generator = torch.Generator().manual_seed(0)
    brightness = torch.rand(2, 3, 32, 48, generator=generator)
    return 2 * brightness - 1


@pytest.mark.parametrize("sigma", [2, 2.6, 4, 7, 8])
def test_the_blur_is_that_of_earlier_versions(noise, sigma):
    smooth = blurred(noise, sigma)
    expected = old_blurred(noise, sigma)
    torch.testing.assert_close(smooth, expected, atol=1e-6, rtol=0)


def test_the_blur_keeps_a_uniform_image():
    uniform = torch.full((1, 3, 32, 32), 0.3)
    smooth = blurred(uniform, 8)
    torch.testing.assert_close(smooth, uniform, atol=1e-6, rtol=0)


def test_the_blur_takes_noise_away(noise):
    smooth = blurred(noise, 8)
    assert smooth.std() < 0.1 * noise.std()


@pytest.mark.parametrize(
    "count, targets",
    [(3, None), (9, None), (5, 9), (5, [0, 1])],
)
def test_maps_and_targets_have_to_fit_the_images(count, targets):
    images = np.zeros((5, 28, 28), np.uint8)
    maps = np.zeros((count, 2, 2))
    with pytest.raises(SwysError):
        deletion_insertion(vit(), images, maps, targets)
