"""Planted marks: where they are, who gets them, and whether a map points at them."""

import numpy as np
import pytest
import torch

from swys_utils.config import SwysError
from swys_utils.occlusion import occlusion
from swys_utils.planted import PLACES, SETS, Found, Mark, Planted, found, plant
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


def shares(split, mark):
    """Share of the images of class 1 and of class 0 that get a mark."""
    planted = plant(split, mark)
    shown = marked(planted)
    of_one = shown[LABELS == 1]
    of_zero = shown[LABELS == 0]
    return of_one.mean(), of_zero.mean()


def test_planting_leaves_the_given_images_as_they_are(split):
    planted = plant(split, Mark())
    assert isinstance(planted, Planted)
    assert (split.images == 100).all()
    assert (planted.split.images != 100).any()


def test_what_is_found_has_a_value_for_each_image(split):
    planted = plant(split, Mark(), where="everywhere")
    maps = np.zeros((len(split.images), 7, 7), dtype=np.float32)
    assert isinstance(found(maps, planted.mask), Found)
    assert len(found(maps, planted.mask).chance) == len(split.images)


def test_a_class_gets_its_share(split):
    of_one, of_zero = shares(split, Mark())
    assert of_one == pytest.approx(0.9, abs=0.04)
    assert of_zero == pytest.approx(0.02, abs=0.02)


def test_a_meaningless_mark_is_as_frequent_in_both_classes(split):
    of_one, of_zero = shares(split, Mark(share=0.5, elsewhere=0.5))
    assert of_one == pytest.approx(of_zero, abs=0.1)


def test_clean_images_are_as_they_were(split):
    planted = plant(split, Mark(), where="clean")
    np.testing.assert_array_equal(planted.split.images, split.images)


def test_swapped_the_mark_is_on_the_other_class(split):
    planted = plant(split, Mark(), where="swapped")
    shown = marked(planted)
    np.testing.assert_array_equal(shown, LABELS == 0)


def test_swapped_the_mark_is_on_all_other_classes():
    split = colour_split(28, 8)
    mark = Mark(target=3)
    planted = plant(split, mark, where="swapped")
    without = ~marked(planted)
    assert np.flatnonzero(without).tolist() == [3]


@pytest.mark.parametrize("place", PLACES)
def test_only_the_pixels_of_the_mask_change(split, place):
    mark = Mark(place=place)
    planted = plant(split, mark, where="everywhere")
    changed = planted.split.images != split.images
    np.testing.assert_array_equal(changed, planted.mask)


def test_a_mark_is_a_white_ring_around_a_black_centre(split):
    planted = plant(split, Mark(), where="everywhere")
    image = planted.split.images[0]
    assert image[2:5, 2:5].tolist() == [
        [255, 255, 255],
        [255, 0, 255],
        [255, 255, 255],
    ]


def test_a_mark_can_be_larger(split):
    mark = Mark(size=6)
    planted = plant(split, mark, where="everywhere")
    ring = planted.split.images[0, 2:8, 2:8]
    hole = ring[1:-1, 1:-1]
    white = ring == 255
    assert hole.max() == 0
    assert white.sum() == 6 * 6 - 4 * 4
    assert planted.mask[0].sum() == 6 * 6


def test_two_rings_lie_in_opposite_corners(split):
    mark = Mark(place="two corners")
    image = plant(split, mark, where="everywhere").split.images[0]
    turned = image[::-1, ::-1]
    assert image[2:5, 2:5].max() == 255
    np.testing.assert_array_equal(image, turned)
    assert (image != 100).sum() == 2 * 9


def test_a_random_place_differs_between_images(split):
    mark = Mark(place="random")
    mask = plant(split, mark, where="everywhere").mask
    flat = mask.reshape(1000, -1)
    different = np.unique(flat, axis=0)
    assert len(different) > 300


def test_a_faint_texture_is_everywhere_and_faint(split):
    mark = Mark(place="texture", strength=0.1)
    planted = plant(split, mark, where="everywhere")
    values = np.unique(planted.split.images)
    assert planted.mask.all()
    assert values.tolist() == [90, 116]


@pytest.mark.parametrize(
    ("side", "width"),
    [
        (28, 3),
        (64, 6),
        (224, 24),
    ],
)
def test_a_mark_grows_with_the_image(side, width):
    split = colour_split(side, 2)
    mask = plant(split, Mark(), where="everywhere").mask
    columns = mask[0].any(axis=0)
    assert columns.sum() == width


def test_the_same_seed_marks_the_same_images(split):
    mark = Mark(place="random")
    first = plant(split, mark, seed=3)
    again = plant(split, mark, seed=3)
    np.testing.assert_array_equal(first.mask, again.mask)


def test_the_labels_stay(split):
    for where in SETS:
        planted = plant(split, Mark(), where=where)
        np.testing.assert_array_equal(planted.split.labels, LABELS)


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
    fine = np.ones((1, 7, 7))
    coarse = np.ones((1, 4, 4))
    assert found(fine, mask).chance == 4 / 49
    assert found(coarse, mask).chance == 1 / 16


def test_a_map_without_a_positive_value_hits_nothing(mask):
    negative = -np.ones((1, 7, 7))
    result = found(negative, mask)
    assert result.hits.tolist() == [False]
    assert np.isnan(result.heat).all()


def test_a_map_that_is_hottest_at_several_places_hits_only_if_all_touch_the_mark(mask):
    even = np.ones((1, 7, 7))
    even_on_the_mark = np.zeros((1, 7, 7))
    even_on_the_mark[0, :2, :2] = 1
    assert found(even, mask).hits.tolist() == [False]
    assert found(even_on_the_mark, mask).hits.tolist() == [True]


def test_occlusion_finds_what_a_linear_model_reads(split):
    def reads_the_corner(inputs):
        corner = inputs[:, :, 2:5, 2:5].mean(dim=(1, 2, 3))
        return torch.stack([-corner, corner], dim=1)

    four = split.sample(4)
    planted = plant(four, Mark(), where="everywhere")
    maps = occlusion(reads_the_corner, planted.split.images, targets=1)
    assert found(maps, planted.mask).hits.all()


def test_an_unknown_place_is_one_line():
    with pytest.raises(SwysError, match="did you mean 'corner'"):
        Mark(place="corne")


def test_a_size_out_of_range_is_one_line():
    with pytest.raises(SwysError, match="a mark of 40 px; give 3 to 12"):
        Mark(size=40)


def test_an_unknown_set_is_one_line(split):
    with pytest.raises(SwysError, match="did you mean 'swapped'"):
        plant(split, Mark(), where="swaped")


def test_maps_and_masks_are_of_the_same_images(mask):
    maps = np.ones((2, 7, 7))
    with pytest.raises(SwysError, match="2 maps and 1 masks"):
        found(maps, mask)


def test_an_image_with_several_labels_is_of_each_of_its_classes():
    both = Split(np.full((1, 28, 28), 100, np.uint8), np.array([[1, 1]]))
    swapped = plant(both, Mark(target=1), where="swapped")
    assert not marked(swapped).any()


@pytest.mark.parametrize("name", ["share", "elsewhere", "strength"])
def test_a_share_or_an_opacity_is_between_0_and_1(name):
    with pytest.raises(SwysError, match=f"{name} of a mark is 2; give 0 to 1"):
        Mark(**{name: 2})


@pytest.mark.parametrize("place", ["inside", "random", "corner"])
def test_a_mark_has_to_fit(place):
    tiny = Split(np.zeros((2, 8, 8), np.uint8), np.array([0, 1]))
    with pytest.raises(SwysError, match="a mark of 12 px does not fit images of 8"):
        plant(tiny, Mark(place=place, size=12), where="everywhere")


def test_a_negative_class_is_one_line():
    with pytest.raises(SwysError, match="target of a mark is -1; give a class, from 0"):
        Mark(target=-1)


def test_a_label_that_is_not_there_is_one_line():
    images = np.zeros((2, 28, 28), np.uint8)
    several = Split(images, np.array([[1, 0, 1], [0, 1, 1]]))
    with pytest.raises(SwysError, match="no label 3; give 0 to 2"):
        plant(several, Mark(target=3))


def test_a_patch_touches_only_the_marks_that_are_in_it():
    """Where patches do not fill the image, they lie beside each other, as ``occlusion`` has it."""
    mask = np.zeros((1, 10, 10), bool)
    mask[0, 0, 3] = True  # rows and columns 0 to 3 are of the first of three patches
    maps = np.eye(3)[None]
    assert found(maps, mask).chance == pytest.approx(1 / 9)
    assert found(maps, mask).heat == pytest.approx(1 / 3)


def test_maps_of_whole_numbers_are_taken(mask):
    maps = np.zeros((len(mask), 7, 7), int)
    assert not found(maps, mask).hits.any()
