"""Agreement, maps of other images and randomisation on cases whose answer is known beforehand."""

from copy import deepcopy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from small import vit

from swys_utils import explain
from swys_utils.config import SwysError
from swys_utils.explain import (
    agreement,
    agreement_beyond_chance,
    coarsened,
    randomisation_check,
    shuffled,
)
from swys_utils.gradcam import heatmaps

# Agreement


@pytest.fixture
def maps():
    rng = np.random.default_rng(0)
    return rng.random((3, 5, 5))


def test_agreement_is_scipys_spearman_also_with_ties():
    rng = np.random.default_rng(0)
    a = rng.integers(0, 5, (6, 4, 4))
    b = rng.integers(0, 5, (6, 4, 4))
    expected = []
    for map_a, map_b in zip(a, b):
        result = spearmanr(map_a.ravel(), map_b.ravel())
        expected.append(result.statistic)
    np.testing.assert_allclose(agreement(a, b), expected, atol=1e-12)


def test_a_map_agrees_with_itself_on_another_scale(maps):
    rescaled = 2 * maps + 1
    np.testing.assert_allclose(agreement(maps, rescaled), 1)


def test_a_map_disagrees_with_its_negative(maps):
    np.testing.assert_allclose(agreement(maps, -maps), -1)


def test_an_empty_map_has_no_agreement(maps):
    empty = np.zeros((3, 5, 5))
    correlation = agreement(maps, empty)
    assert np.isnan(correlation).all()


def test_the_finer_of_two_grids_is_averaged_down(maps):
    finer = maps.repeat(2, axis=1)
    finer = finer.repeat(2, axis=2)
    np.testing.assert_allclose(agreement(finer, maps), 1)


def test_agreement_needs_maps_of_the_same_images(maps):
    with pytest.raises(SwysError, match="3 maps against 2"):
        agreement(maps, maps[:2])


# Maps of other images

THREE_CLASSES = np.arange(30) % 3


@pytest.fixture
def numbered():
    """Thirty maps; each is filled with the number of its image."""
    numbers = np.arange(30.0).reshape(30, 1, 1)
    return np.tile(numbers, (1, 4, 4))


@pytest.mark.parametrize("classes", [None, THREE_CLASSES])
def test_no_image_keeps_its_own_map(numbered, classes):
    others = shuffled(numbered, classes)
    assert not (others == numbered).any()


@pytest.mark.parametrize("classes", [None, THREE_CLASSES])
def test_each_map_is_given_to_one_image(numbered, classes):
    others = shuffled(numbered, classes)
    others.sort(axis=0)
    np.testing.assert_array_equal(others, numbered)


def test_maps_are_shuffled_in_the_same_way_each_time(numbered):
    first = shuffled(numbered)
    second = shuffled(numbered)
    np.testing.assert_array_equal(first, second)


def test_with_classes_a_map_goes_to_an_image_of_its_class(numbered):
    others = shuffled(numbered, THREE_CLASSES)
    np.testing.assert_array_equal(others % 3, numbered % 3)


def test_the_only_image_of_a_class_gets_no_map(numbered):
    alone = np.arange(30) == 7
    others = shuffled(numbered, alone)
    missing = np.isnan(others)
    assert missing[7].all()
    assert not missing[~alone].any()


# Randomisation


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (10, 28, 28), dtype=np.uint8)


@pytest.fixture(scope="module")
def model():
    return vit(3, noise=0.1, patch_size=7)


@pytest.fixture(scope="module")
def correlations(model, images):
    return randomisation_check(model, images)


def bright_map(model, inputs, *args, **options):
    """A 'method' that marks what is bright, whatever the model."""
    brightness = inputs.mean(dim=1)
    return F.adaptive_avg_pool2d(brightness, 4) + 1


def weights_of_each_stage(model, images) -> list[dict[str, torch.Tensor]]:
    """Weights of the model that is explained: the trained one, then one more for each stage."""
    stages = []

    def spy(explained, inputs, *args, **options):
        weights = deepcopy(explained.state_dict())
        stages.append(weights)
        return bright_map(explained, inputs)

    randomisation_check(model, images, spy)
    return stages


def changed(before, after) -> set[str]:
    """Names of the weights that differ."""
    names = set()
    for name, weight in before.items():
        if not torch.equal(weight, after[name]):
            names.add(name)
    return names


def test_stages_go_from_the_head_to_the_embedding(correlations):
    assert list(correlations) == ["head", "block 1", "block 0", "embedding"]


def test_each_image_has_its_correlation(correlations):
    assert correlations["head"].shape == (10,)


def test_a_map_that_depends_on_the_model_changes(correlations):
    last = correlations["embedding"]
    assert abs(np.nanmean(last)) < 0.5


def test_a_map_that_depends_on_the_image_alone_stays(model, images):
    correlations = randomisation_check(model, images, bright_map)
    for correlation in correlations.values():
        np.testing.assert_allclose(correlation, 1)


def test_the_last_stage_alone_is_the_same_as_after_the_others(model, images, correlations):
    last = randomisation_check(model, images, only_last=True)
    assert list(last) == ["embedding"]
    np.testing.assert_array_equal(last["embedding"], correlations["embedding"])


def test_the_first_stage_changes_the_head_alone(model, images):
    trained, head, *_ = weights_of_each_stage(model, images)
    expected = {"norm.weight", "norm.bias", "head.weight", "head.bias"}
    assert changed(trained, head) == expected


def test_the_last_stage_leaves_no_trained_weight(model, images):
    trained, *_, last = weights_of_each_stage(model, images)
    assert changed(trained, last) == set(trained)


def test_the_model_keeps_its_weights(model, images):
    before = deepcopy(model.state_dict())
    randomisation_check(model, images, bright_map)
    assert changed(before, model.state_dict()) == set()


def test_the_callers_random_numbers_do_not_change(model, images):
    before = torch.get_rng_state()
    randomisation_check(model, images, bright_map)
    assert torch.equal(before, torch.get_rng_state())


def test_the_class_that_the_trained_model_predicts_is_explained(model, images):
    targets = []

    def spy(explained, inputs, classes, **options):
        targets.append(list(classes))
        return bright_map(explained, inputs)

    randomisation_check(model, images, spy)
    for classes in targets:
        assert classes == targets[0]


def test_a_map_is_averaged_over_larger_patches():
    fine = np.arange(16.0).reshape(1, 4, 4)
    expected = [[[0, 2], [8, 10]]]
    coarse = coarsened(fine, (2, 2))
    np.testing.assert_allclose(coarse - coarse[0, 0, 0], expected)


def test_a_patch_on_the_edge_of_two_larger_ones_counts_by_its_area():
    fine = np.zeros((1, 7, 7))
    fine[0, 1] = 1  # its four pixels: three lie in the first row of larger patches
    coarse = coarsened(fine, (4, 4))
    by_rows = coarse[0].mean(axis=1)
    np.testing.assert_allclose(by_rows, [3 / 7, 1 / 7, 0, 0], atol=1e-6)


def test_a_constant_map_agrees_with_nothing_also_when_it_is_averaged():
    constant = np.full((1, 24, 24), 0.1)
    other = np.random.default_rng(0).random((1, 7, 7))
    assert np.isnan(agreement(constant, other)).all()


def test_occlusion_of_several_labels_is_asked_for_their_own_log_odds(model, images, monkeypatch):
    asked = []

    def spy(*args, multi_label, **options):
        asked.append(multi_label)
        return heatmaps(*args, multi_label=multi_label, **options)

    monkeypatch.setattr(explain, "heatmaps", spy)
    explain.randomisation_check(model, images, "occlusion", only_last=True, multi_label=True)
    assert asked == [True, True]


def test_agreement_beyond_chance_is_1_for_equal_maps_and_0_for_a_habit():
    maps = np.random.default_rng(0).random((40, 4, 4))
    assert agreement_beyond_chance(maps, maps) == pytest.approx(1)
    habit = np.zeros_like(maps) + maps.mean(axis=0)  # the same map for every image
    assert agreement_beyond_chance(maps, habit) == pytest.approx(0)


def test_agreement_beyond_chance_counts_within_a_class():
    order = np.arange(4.0).reshape(1, 2, 2)
    maps = np.concatenate([order, order, -order, -order])  # one map for each of two classes
    mixed = np.array([0, 1, 0, 1])  # both members of a class have opposite maps
    assert agreement_beyond_chance(maps, maps, mixed) == pytest.approx(1)  # chance is -1
    halved = np.concatenate([order, -order, -order, order])
    assert agreement_beyond_chance(maps, halved, mixed) == pytest.approx(0)
