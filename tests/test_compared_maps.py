"""Agreement of two models' maps, and what it is by chance."""

import numpy as np
import pytest

from swys_studies.compared_maps import compare, part_of, same_top


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_chance_is_the_agreement_with_another_image(rng):
    maps = rng.random((200, 4, 4))
    predictions = np.zeros(200, int)
    compared = compare(maps, maps, predictions)
    assert compared["spearman"] == pytest.approx(1)
    assert compared["chance"] == pytest.approx(0, abs=0.1)


def test_chance_in_class_is_the_agreement_with_an_image_of_the_same_prediction(rng):
    predictions = np.arange(20) % 2
    map_of_class = rng.random((2, 4, 4))
    maps = map_of_class[predictions]
    compared = compare(maps, maps, predictions)
    assert compared["chance_in_class"] == pytest.approx(1)
    assert compared["chance"] < 0.9


def test_constant_maps_are_counted(rng):
    maps = rng.random((6, 4, 4))
    maps[:2] = 0
    predictions = np.zeros(6, int)
    compared = compare(maps, maps, predictions)
    assert compared["undefined"] == 2


def test_the_share_of_the_same_highest_patch(rng):
    maps = rng.random((10, 4, 4))
    others = maps.copy()
    others[:3] = -others[:3]  # the highest patch becomes the lowest
    compared = compare(maps, others, np.zeros(10, int))
    assert compared["same_top"] == pytest.approx(0.7)


def test_by_chance_the_highest_patch_is_that_of_another_image(rng):
    maps = rng.random((400, 4, 4))
    compared = compare(maps, maps, np.zeros(400, int))
    assert compared["same_top_chance"] == pytest.approx(1 / 16, abs=0.04)


def test_an_image_without_another_of_its_class_does_not_count_for_chance(rng):
    maps = rng.random((3, 4, 4))
    maps[1] = maps[0]
    compared = compare(maps, maps, np.array([0, 0, 1]))
    assert compared["same_top_chance"] == 1


def test_hiding_is_asked_about_every_fourth_image():
    assert part_of("occlusion") == slice(None, None, 4)
    assert part_of("grad_cam") == slice(None, None, 1)


def test_a_constant_map_has_no_highest_patch():
    maps = np.zeros((2, 1, 2))
    maps[0, 0, 0] = 1
    assert same_top(maps, maps) == 1
    other = maps.copy()
    other[0, 0, 1] = 2
    assert same_top(maps, other) == 0
