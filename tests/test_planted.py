"""Planted marks: where they are, who gets them, and whether a map points at them."""

import numpy as np
import pytest
import torch

from swys_utils.config import SwysError
from swys_utils.occlusion import occlusion
from swys_utils.planted import PLACES, SETS, Mark, found, plant
from swys_utils.splits import Split

LABELS = np.tile([0, 1], 500)


@pytest.fixture
def split():
    return Split(np.full((1000, 28, 28), 100, np.uint8), LABELS)


def colour_split(side, classes):
    images = np.full((classes, side, side, 3), 100, np.uint8)
    return Split(images, np.arange(classes))


def marked(planted):
    return planted.mask.any(axis=(1, 2))


def test_a_class_gets_its_share(split):
    shown = marked(plant(split, Mark()))
    assert shown[LABELS == 1].mean() == pytest.approx(0.9, abs=0.04)
    assert shown[LABELS == 0].mean() == pytest.approx(0.02, abs=0.02)


def test_a_meaningless_mark_is_as_frequent_in_both_classes(split):
    shown = marked(plant(split, Mark(share=0.5, elsewhere=0.5)))
    assert shown[LABELS == 1].mean() == pytest.approx(shown[LABELS == 0].mean(), abs=0.1)


def test_clean_images_are_as_they_were(split):
    planted = plant(split, Mark(), where="clean")
    np.testing.assert_array_equal(planted.split.images, split.images)


def test_swapped_the_mark_is_on_the_other_class(split):
    shown = marked(plant(split, Mark(), where="swapped"))
    np.testing.assert_array_equal(shown, LABELS == 0)


def test_swapped_the_mark_is_on_all_other_classes():
    shown = marked(plant(colour_split(28, 8), Mark(target=3), where="swapped"))
    assert np.flatnonzero(~shown).tolist() == [3]


@pytest.mark.parametrize("place", PLACES)
def test_only_the_pixels_of_the_mask_change(split, place):
    planted = plant(split, Mark(place=place), where="everywhere")
    changed = planted.split.images != split.images
    np.testing.assert_array_equal(changed, planted.mask)


def test_the_given_images_stay_as_they_are(split):
    plant(split, Mark(), where="everywhere")
    assert (split.images == 100).all()


def test_a_mark_is_a_white_ring_around_a_black_centre(split):
    image = plant(split, Mark(), where="everywhere").split.images[0]
    assert image[2:5, 2:5].tolist() == [[255, 255, 255], [255, 0, 255], [255, 255, 255]]


def test_a_random_place_differs_between_images(split):
    mask = plant(split, Mark(place="random"), where="everywhere").mask
    assert len(np.unique(mask.reshape(1000, -1), axis=0)) > 300


def test_a_faint_texture_is_everywhere_and_faint(split):
    planted = plant(split, Mark(place="texture", strength=0.1), where="everywhere")
    assert planted.mask.all()
    assert np.unique(planted.split.images).tolist() == [90, 116]


@pytest.mark.parametrize(("side", "width"), [(28, 3), (64, 6), (224, 24)])
def test_a_mark_grows_with_the_image(side, width):
    mask = plant(colour_split(side, 2), Mark(), where="everywhere").mask
    assert mask[0].any(axis=0).sum() == width


def test_the_same_seed_marks_the_same_images(split):
    masks = [plant(split, Mark(place="random"), seed=3).mask for _ in range(2)]
    np.testing.assert_array_equal(*masks)


def test_the_labels_stay(split):
    for where in SETS:
        np.testing.assert_array_equal(plant(split, Mark(), where=where).split.labels, LABELS)


# Does a map point at the mark?


@pytest.fixture
def mask():
    mask = np.zeros((1, 28, 28), dtype=bool)
    mask[0, 2:5, 2:5] = True  # touches four patches of 4 px
    return mask


def test_a_map_that_is_hottest_on_the_mark_hits(mask):
    heatmap = np.zeros((1, 7, 7))
    heatmap[0, 1, 1] = 3
    heatmap[0, 6, 6] = 1
    result = found(heatmap, mask)
    assert result.hits.tolist() == [True]
    assert result.heat.tolist() == [0.75]


def test_chance_is_the_share_of_patches_that_touch_the_mark(mask):
    assert found(np.ones((1, 7, 7)), mask).chance.tolist() == [4 / 49]
    assert found(np.ones((1, 4, 4)), mask).chance.tolist() == [1 / 16]


def test_a_map_without_a_positive_value_hits_nothing(mask):
    result = found(-np.ones((1, 7, 7)), mask)
    assert result.hits.tolist() == [False]
    assert np.isnan(result.heat).all()


def test_occlusion_finds_what_a_linear_model_reads(split):
    def reads_the_corner(inputs):
        corner = inputs[:, :, 2:5, 2:5].mean(dim=(1, 2, 3))
        return torch.stack([-corner, corner], dim=1)

    planted = plant(Split(split.images[:4], LABELS[:4]), Mark(), where="everywhere")
    maps = occlusion(reads_the_corner, planted.split.images, targets=1)
    assert found(maps, planted.mask).hits.all()


def test_an_unknown_place_is_one_line():
    with pytest.raises(SwysError, match="did you mean 'corner'"):
        Mark(place="corne")


def test_an_unknown_set_is_one_line(split):
    with pytest.raises(SwysError, match="did you mean 'swapped'"):
        plant(split, Mark(), where="swaped")


def test_maps_and_masks_are_of_the_same_images(mask):
    with pytest.raises(SwysError, match="2 maps and 1 masks"):
        found(np.ones((2, 7, 7)), mask)
