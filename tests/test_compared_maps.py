"""Agreement of two models' maps, and what it is by chance."""

import numpy as np
import pytest

from swys_studies.compared_maps import compare, part_of


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


def test_hiding_is_asked_about_every_tenth_image():
    assert part_of("occlusion") == slice(None, None, 10)
    assert part_of("grad_cam") == slice(None, None, 1)
