"""The pointing game on mosaics, on pictures of one grey value each."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small import vit

from swys_studies.mosaics import make_mosaics, mosaic_pointing
from swys_utils.config import SwysError

GREY_VALUES = np.array([0, 120, 255], np.uint8)  # of the images of each class


def bright_map(model, inputs, *args):
    """A 'method' that marks what is bright."""
    brightness = inputs.mean(dim=1)
    return F.adaptive_avg_pool2d(brightness, 4) + 1


def uniform_map(model, inputs, *args):
    """A 'method' that marks everything, on a grid with an odd side."""
    count = len(inputs)
    return torch.ones(count, 3, 3)


def empty_map(model, inputs, *args):
    """A 'method' that marks nothing."""
    count = len(inputs)
    return torch.zeros(count, 3, 3)


@pytest.fixture(scope="module")
def model():
    return vit()


@pytest.fixture(scope="module")
def labels():
    return np.repeat([0, 1, 2], 4)


@pytest.fixture(scope="module")
def images(labels):
    """Images of one grey value each."""
    values = GREY_VALUES[labels]
    values = values[:, None, None]
    return np.tile(values, (1, 28, 28))


class Mosaics(NamedTuple):
    inputs: torch.Tensor
    targets: np.ndarray
    cells: np.ndarray
    classes: np.ndarray  # of the four images in each, (6, 4), by their grey value


@pytest.fixture(scope="module")
def mosaics(model, images, labels) -> Mosaics:
    inputs, targets, cells = make_mosaics(model, images, labels, count=6)
    tiles = inputs.reshape(6, 3, 2, 14, 2, 14)
    brightness = tiles.mean((1, 3, 5)).numpy()
    brightness = brightness.reshape(6, 4, 1)
    grey_values = GREY_VALUES / 127.5 - 1
    distance = np.abs(brightness - grey_values)
    classes = distance.argmin(axis=2)
    return Mosaics(inputs, targets, cells, classes)


def test_each_class_is_a_target_in_turn(mosaics):
    targets = mosaics.targets.tolist()
    assert targets == [0, 1, 2, 0, 1, 2]


def test_a_mosaic_has_its_target_in_its_cell(mosaics):
    numbers = np.arange(6)
    in_cell = mosaics.classes[numbers, mosaics.cells]
    np.testing.assert_array_equal(in_cell, mosaics.targets)


def test_a_mosaic_has_its_target_once(mosaics):
    targets = mosaics.targets[:, None]
    is_target = mosaics.classes == targets
    times = is_target.sum(axis=1)
    np.testing.assert_array_equal(times, 1)


def test_the_target_is_not_always_in_the_same_cell(mosaics):
    assert len(set(mosaics.cells)) > 1


def test_a_mosaic_has_the_size_that_the_model_reads(mosaics):
    assert mosaics.inputs.shape == (6, 3, 28, 28)


def test_a_map_that_marks_what_is_bright_points_at_white_images(model, images, labels):
    black_or_white = labels != 1
    images = images[black_or_white]
    labels = labels[black_or_white]
    shares = mosaic_pointing(model, images, labels, bright_map, count=4)
    expected = [0, 1, 0, 1]
    np.testing.assert_allclose(shares, expected)


def test_a_uniform_map_points_at_chance(model, images, labels):
    shares = mosaic_pointing(model, images, labels, uniform_map, count=8)
    np.testing.assert_allclose(shares, 0.25)


def test_an_empty_map_points_nowhere(model, images, labels):
    shares = mosaic_pointing(model, images, labels, empty_map, count=8)
    assert np.isnan(shares).all()


def test_mosaics_need_two_classes(model, images):
    one_class = np.zeros(12, int)
    with pytest.raises(SwysError, match="two classes"):
        make_mosaics(model, images, one_class)


def test_mosaics_need_one_label_for_each_image(model, images):
    several = np.eye(12, 3)
    with pytest.raises(SwysError, match="one label"):
        make_mosaics(model, images, several)


def test_a_model_of_an_odd_side_gets_mosaics_of_it(images, labels):
    inputs, _, _ = make_mosaics(vit(3, img_size=35, patch_size=7), images, labels, count=2)
    assert inputs.shape == (2, 3, 35, 35)
