"""Maps are drawn where they are, as strong as they are, over every kind of image."""

import numpy as np
import pytest
import torch

from swys_utils.config import SwysError
from swys_utils.data import to_model_input
from swys_utils.gradcam import overlay


@pytest.fixture
def grey():
    """Three images of one grey value."""
    return np.full((3, 28, 28), 100, np.uint8)


@pytest.fixture
def peaks():
    """A strong map, a weak one and an empty one."""
    maps = torch.zeros(3, 7, 7)
    maps[0, 3, 3] = 4
    maps[1, 3, 3] = 1
    return maps


def test_scaled_by_its_own_maximum_every_peak_looks_alike(grey, peaks):
    drawn = overlay(grey, peaks)
    strong, weak, _ = drawn
    assert np.array_equal(strong, weak)


def test_on_a_shared_scale_a_weak_map_stays_weak(grey, peaks):
    drawn = overlay(grey, peaks, scale=4.0)
    change = np.abs(drawn.astype(int) - 100)
    change = change.reshape(3, -1)
    strong, weak, _ = change.sum(axis=1)
    assert strong > 3 * weak
    assert weak > 0


@pytest.mark.parametrize("scale", ["image", 4.0])
def test_an_empty_map_is_not_coloured(grey, peaks, scale):
    _, _, empty = overlay(grey, peaks, scale=scale)
    assert set(empty.flat) == {100}


def test_negative_values_are_not_coloured(grey, peaks):
    negative = -peaks
    drawn = overlay(grey, negative)
    assert set(drawn.flat) == {100}


@pytest.mark.parametrize("alpha", [-0.1, 2])
def test_an_opacity_out_of_range_is_refused(grey, peaks, alpha):
    with pytest.raises(SwysError, match="alpha is 0 to 1"):
        overlay(grey, peaks, alpha)


@pytest.mark.parametrize("scale", [0, "all"])
def test_a_scale_that_is_no_positive_number_is_refused(grey, peaks, scale):
    with pytest.raises(SwysError, match="or a positive number"):
        overlay(grey, peaks, scale=scale)


def test_an_overlay_needs_a_map_for_each_image(grey, peaks):
    with pytest.raises(SwysError, match="give one"):
        overlay(grey, peaks[:1])


@pytest.fixture
def ramps():
    """Two grey images, (2, 16, 16), that get brighter from pixel to pixel."""
    values = np.arange(512).astype(np.uint8)
    return values.reshape(2, 16, 16)


@pytest.fixture
def diagonals():
    """Two maps that mark a diagonal, (2, 4, 4)."""
    diagonal = np.eye(4)
    return np.stack([diagonal, diagonal])


def test_an_overlay_has_the_size_that_is_given(ramps, diagonals):
    drawn = overlay(ramps, diagonals, size=64)
    assert drawn.shape == (2, 64, 64, 3)
    assert drawn.dtype == np.uint8


def test_a_colour_image_is_drawn_as_the_same_grey_one(ramps, diagonals):
    expected = overlay(ramps, diagonals)
    colour = ramps[..., None].repeat(3, axis=-1)
    drawn = overlay(colour, diagonals)
    assert np.array_equal(drawn, expected)


def test_model_input_is_drawn_as_the_image_it_is_made_of(ramps, diagonals):
    expected = overlay(ramps, diagonals)
    inputs = to_model_input(ramps, 16)
    drawn = overlay(inputs, diagonals)
    assert np.array_equal(drawn, expected)


def test_a_map_is_neither_turned_nor_mirrored():
    black = np.zeros((1, 40, 40), np.uint8)
    top_right = np.zeros((1, 4, 4))
    top_right[0, 0, 3] = 1
    drawn = overlay(black, top_right, alpha=1.0, cmap="gray")
    top_right_pixel = drawn[0, 0, -1]
    bottom_left_pixel = drawn[0, -1, 0]
    assert top_right_pixel.tolist() == [255, 255, 255]
    assert bottom_left_pixel.tolist() == [0, 0, 0]
