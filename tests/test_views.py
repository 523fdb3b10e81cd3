"""Random views of images, and the batches that show them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small import RECIPE, some
from torch import Tensor, equal

from swys_utils.data import (
    Dataset,
    Split,
    load_dataset,
    to_model_input,
    to_planes,
)
from swys_utils.recipe import Batch, Recipe, batch_indices, batches
from swys_utils.views import Augmentation, Draws, augment, make_views, view_draws

EVERYTHING = replace(Recipe().augmentation, turns=True)


@pytest.fixture(scope="module")
def data(drawn_data_dir) -> Dataset:
    return some(load_dataset(root=drawn_data_dir))


@pytest.fixture
def images() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(
        0,
        256,
        (6, 28, 28, 3),
        dtype=np.uint8,
    )


@pytest.fixture
def planes(images) -> Tensor:
    return to_planes(images)


@pytest.fixture
def draws() -> Draws:
    return view_draws(count=6, view_seed=5)


@pytest.fixture
def middle() -> Draws:
    """The random numbers by which six images stay as they are."""
    table = torch.full((len(Draws._fields), 6), 0.5)
    return Draws(*table)


def assert_close(views: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(views, expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize("size", [14, 28, 56])
def test_no_augmentation_is_the_plain_resize(images, planes, draws, size):
    views = augment(planes, size, Augmentation(), draws)
    expected = to_model_input(images, size)
    assert_close(views, expected)


def test_the_same_draws_give_the_same_views(planes, draws):
    first = augment(planes, 56, EVERYTHING, draws)
    again = augment(planes, 56, EVERYTHING, draws)
    assert equal(first, again)


def test_other_draws_give_another_view_of_the_same_image(planes, draws):
    six_times = planes[:1].expand(6, -1, -1, -1)
    views = augment(six_times, 56, EVERYTHING, draws)
    assert not equal(views[0], views[1])


def test_views_have_the_size_and_range_of_model_input(planes, draws):
    views = augment(planes, 56, EVERYTHING, draws)
    assert views.shape == (6, 3, 56, 56)
    assert views.abs().max() <= 1


def test_draws_are_the_columns_of_one_table():
    generator = torch.Generator().manual_seed(3)
    table = torch.rand(4, 9, generator=generator)
    draws = view_draws(4, 3)
    columns = torch.stack(draws)
    assert equal(columns[:9], table.T)


def test_what_was_added_is_drawn_after_the_table():
    generator = torch.Generator().manual_seed(3)
    torch.rand(4, 9, generator=generator)
    draws = view_draws(4, 3)
    assert equal(draws.ratio, torch.rand(4, generator=generator))


def test_draws_of_some_views_can_be_taken(draws):
    indices = torch.tensor([2, 0])
    taken = draws.take(indices)
    expected = draws.saturation[indices]
    assert equal(taken.saturation, expected)


@pytest.fixture
def mirrored(planes) -> Tensor:
    return planes.flip(-1)


def test_a_flip_mirrors_left_and_right(planes, middle, mirrored):
    flip = Augmentation(flip=True)
    below_half = torch.full((6,), 0.49)
    draws = middle._replace(mirror=below_half)
    views = augment(planes, 28, flip, draws)
    assert_close(views, mirrored)


def test_a_flip_leaves_the_other_half_of_the_images(planes, middle):
    flip = Augmentation(flip=True)
    views = augment(planes, 28, flip, middle)
    assert_close(views, planes)


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_turns_are_quarter_turns(planes, middle, quarters):
    turns = Augmentation(turns=True)
    turn = torch.full((6,), quarters / 4 + 0.1)
    draws = middle._replace(turn=turn)
    views = augment(planes, 28, turns, draws)
    expected = planes.rot90(quarters, dims=(2, 3))
    assert_close(views, expected)


def test_a_rotation_is_in_degrees(planes, middle):
    rotation = Augmentation(rotate=90)
    draws = middle._replace(angle=torch.ones(6))
    views = augment(planes, 28, rotation, draws)
    expected = planes.rot90(1, dims=(2, 3))
    assert_close(views, expected)


def test_a_shift_in_x_moves_columns(planes, middle):
    one_pixel = Augmentation(shift=1 / 28)
    draws = middle._replace(shift_x=torch.ones(6))
    views = augment(planes, 28, one_pixel, draws)
    shown = views[:, :, :, :-1]
    expected = planes[:, :, :, 1:]
    assert_close(shown, expected)


def test_a_shift_in_y_moves_whole_rows(planes, middle):
    one_pixel = Augmentation(shift=1.4 / 28)  # rounded, or the view would be blurred
    draws = middle._replace(shift_y=torch.ones(6))
    views = augment(planes, 28, one_pixel, draws)
    shown = views[:, :, :-1]
    expected = planes[:, :, 1:]
    assert_close(shown, expected)


def test_half_the_scale_shows_the_middle(middle):
    planes = torch.zeros(6, 1, 8, 8)
    planes[:, :, 2:6, 2:6] = 1.0
    half = Augmentation(scale=0.5)
    draws = middle._replace(scale=torch.zeros(6))
    views = augment(planes, 8, half, draws)
    inside = views[:, :, 1:-1, 1:-1]
    assert (inside == 1).all()


def test_a_crop_of_a_quarter_shows_half_of_each_side(middle):
    planes = torch.zeros(6, 1, 8, 8)
    planes[:, :, 2:6, 2:6] = 1.0
    quarter = Augmentation(crop=0.25)
    draws = middle._replace(scale=torch.zeros(6))
    views = augment(planes, 8, quarter, draws)
    inside = views[:, :, 1:-1, 1:-1]
    assert (inside == 1).all()


def test_a_crop_stays_inside_the_image(middle):
    ramp = torch.linspace(-1, 1, 8).expand(
        6,
        1,
        8,
        8,
    )
    draws = middle._replace(scale=torch.zeros(6), shift_x=torch.zeros(6))
    views = augment(ramp, 8, Augmentation(crop=0.25), draws)
    left_half = ramp[..., 0:4]
    assert views[0, 0, 0, 0] == pytest.approx(-1, abs=0.1)
    assert views[0, 0, 0, -1] == pytest.approx(float(left_half[0, 0, 0, -1]), abs=0.1)


def test_a_crop_of_everything_is_the_whole_image(planes, middle):
    draws = middle._replace(scale=torch.full((6,), 1 - 1e-6))
    views = augment(planes, 28, Augmentation(crop=0.3), draws)
    assert_close(views, planes)


def test_a_crop_can_be_wider_than_high(middle):
    columns = torch.linspace(-1, 1, 8).expand(
        6,
        1,
        8,
        8,
    )
    quarter = Augmentation(crop=0.25)
    draws = middle._replace(scale=torch.zeros(6), ratio=torch.ones(6))
    wide = augment(columns, 8, quarter, draws)
    square = augment(
        columns,
        8,
        quarter,
        draws._replace(ratio=torch.full((6,), 0.5)),
    )
    assert wide[0].max() - wide[0].min() > square[0].max() - square[0].min()


@pytest.fixture
def jitter() -> Augmentation:
    return Augmentation(jitter=0.5)


def constant(*colour: float) -> Tensor:
    """Six images of one pixel."""
    pixel = torch.tensor(colour)
    pixels = pixel.expand(6, -1)
    return pixels[:, :, None, None]


def test_brightness_keeps_black(middle, jitter):
    draws = middle._replace(brightness=torch.ones(6))
    views = augment(constant(-1.0), 1, jitter, draws)
    assert_close(views, constant(-1.0))


def test_brightness_is_relative(middle, jitter):
    draws = middle._replace(brightness=torch.ones(6))
    views = augment(constant(-0.5), 1, jitter, draws)
    assert_close(views, constant(-0.25))


def test_contrast_spreads_around_the_mean(middle, jitter):
    draws = middle._replace(contrast=torch.ones(6))
    views = augment(constant(-0.2, 0.4), 1, jitter, draws)
    assert_close(views, constant(-0.35, 0.55))


def test_saturation_spreads_around_grey(middle, jitter):
    draws = middle._replace(saturation=torch.ones(6))
    views = augment(constant(0.0, 0.2, 0.4), 1, jitter, draws)
    assert_close(views, constant(-0.1, 0.2, 0.5))


def views_by(draws: Draws, images, indices) -> Tensor:
    return make_views(images, indices, draws, EVERYTHING, 28, "cpu")


def test_views_of_an_array_and_of_a_tensor_are_the_same(images, draws):
    indices = torch.tensor([4, 1])
    tensor = torch.as_tensor(images)
    of_array = views_by(draws, images, indices)
    of_tensor = views_by(draws, tensor, indices)
    assert equal(of_array, of_tensor)


def test_grey_is_repeated(images, draws):
    grey = images[:, :, :, 0]
    indices = torch.arange(6)
    views = views_by(draws, grey, indices)
    red, green, blue = views.unbind(dim=1)
    assert equal(red, green)
    assert equal(red, blue)


def first_batch(data: Dataset, epoch: int, seed: int = 0, **changes) -> Batch:
    recipe = replace(RECIPE, **changes)
    shown = batches(data, epoch, recipe, seed=seed)
    return next(shown)


def views_of(data: Dataset, epoch: int, seed: int = 0, fixed: int = 2) -> Tensor:
    """The views that an epoch shows, in the order of the split."""
    batch = first_batch(data, epoch, seed, views=fixed, batch_size=48)
    order = batch.indices.argsort()
    return batch.inputs[order]


def test_batches_show_each_image_once(data):
    shown = []
    for batch in batches(data, 0, RECIPE):
        shown += batch.indices.tolist()
    assert sorted(shown) == list(range(48))


def test_the_order_repeats(data):
    first = first_batch(data, 0)
    again = first_batch(data, 0)
    assert equal(first.indices, again.indices)


def test_another_epoch_has_another_order(data):
    first = first_batch(data, 0)
    other = first_batch(data, 2)
    assert not equal(first.indices, other.indices)


def test_another_seed_has_another_order(data):
    first = first_batch(data, 0)
    other = first_batch(data, 0, seed=5)
    assert not equal(first.indices, other.indices)


def test_fixed_views_are_shown_in_turn(data):
    first = views_of(data, 0)
    second = views_of(data, 1)
    third = views_of(data, 2)
    assert not equal(first, second)
    assert equal(first, third)


def test_fixed_views_are_the_same_in_every_run(data):
    first = views_of(data, 0)
    other = views_of(data, 0, seed=5)
    assert equal(first, other)


def test_views_that_are_not_fixed_are_others_in_every_run(data):
    first = views_of(data, 0, fixed=0)
    other = views_of(data, 0, seed=5, fixed=0)
    assert not equal(first, other)


def test_a_batch_names_its_view(data):
    batch = first_batch(data, 3)
    assert batch.view == 1


def test_a_batch_shows_the_view_that_it_names(data):
    batch = first_batch(data, 3)
    images = data.train.images
    augmentation = RECIPE.augmentation
    draws = view_draws(len(images), batch.view)
    views = make_views(images, batch.indices, draws, augmentation, 28, "cpu")
    assert equal(batch.inputs, views)


def test_memory_mapped_images_give_the_same_batches(data, tmp_path):
    path = tmp_path / "images.npy"
    np.save(path, data.train.images)
    on_disk = np.load(path, mmap_mode="r")
    split = Split(on_disk, data.train.labels)
    mapped = replace(data, train=split)
    from_disk = first_batch(mapped, 0)
    from_memory = first_batch(data, 0)
    assert equal(from_disk.inputs, from_memory.inputs)


def test_images_that_do_not_fill_a_batch_are_left_out():
    recipe = Recipe(batch_size=16)
    parts = batch_indices(50, recipe, epoch=0, seed=0)
    sizes = [len(part) for part in parts]
    assert sizes == [16, 16, 16]


def test_fewer_images_than_a_batch_are_one_batch():
    recipe = Recipe(batch_size=16)
    (part,) = batch_indices(5, recipe, epoch=0, seed=0)
    assert sorted(part.tolist()) == [0, 1, 2, 3, 4]


def test_an_image_and_its_label_are_mixed_by_the_same_share(data):
    plain = next(batches(data, 0, RECIPE, seed=0))
    mixed = next(
        batches(
            data,
            0,
            replace(RECIPE, mixup=1.0),
            seed=0,
        )
    )
    change = plain.targets.roll(1, 0) - plain.targets
    share = ((mixed.targets - plain.targets) * change).sum() / change.square().sum()
    assert 0 < share < 1
    expected = torch.lerp(
        plain.inputs,
        plain.inputs.roll(1, 0),
        share,
    )
    assert_close(mixed.inputs, expected)


def test_smoothed_labels_sum_to_one(data):
    recipe = replace(RECIPE, label_smoothing=0.1)
    batch = next(batches(data, 0, recipe, seed=0))
    assert_close(batch.targets.sum(dim=1), torch.ones(len(batch.targets)))
    assert float(batch.targets.min()) == pytest.approx(0.05)
