"""Groups of look-alikes: twins stay together, folds are disjoint and cover the pool."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from swys_studies import lookalikes
from swys_utils.config import SwysError
from swys_utils.data import load_dataset
from swys_utils.splits import Split

pytest.importorskip("sklearn", minversion="1.8", reason="older ones do not stratify groups")

FAMILIES = 20
MEMBERS = 12


@pytest.fixture(scope="module")
def data(drawn_data_dir):
    """Twenty families of twelve look-alikes, of two classes; a fifth of the images validate."""
    rng = np.random.default_rng(0)
    originals = rng.integers(0, 256, (FAMILIES, 28, 28))
    family = np.arange(FAMILIES * MEMBERS) % FAMILIES
    noise = rng.normal(0, 10, (len(family), 28, 28))
    images = (originals[family] + noise).clip(0, 255).astype(np.uint8)
    pool = Split(images, family % 2)
    order = rng.permutation(len(pool))
    drawn = load_dataset("pneumoniamnist", root=drawn_data_dir)
    return replace(
        drawn,
        train=pool.take(order[48:]),
        val=pool.take(order[:48]),
    )


@pytest.fixture(scope="module")
def folds(data):
    return lookalikes.grouped_folds(data, groups=FAMILIES // 2, folds=4)


def as_bytes(split: Split) -> list[bytes]:
    return [image.tobytes() for image in split.images]


def test_identical_images_are_in_one_group(data):
    twice = np.concatenate([data.train.images, data.train.images])
    labels = np.concatenate([data.train.labels, data.train.labels])
    groups = lookalikes.look_alike_groups(twice, labels, groups=FAMILIES // 2)
    half = len(data.train)
    assert (groups[:half] == groups[half:]).all()


def test_a_group_has_images_of_one_class(data):
    labels = data.train.labels
    groups = lookalikes.look_alike_groups(data.train.images, labels, groups=FAMILIES // 2)
    for group in np.unique(groups):
        assert len(np.unique(labels[groups == group])) == 1


def test_brightness_does_not_make_another_group():
    rng = np.random.default_rng(0)
    dark = rng.integers(
        0,
        100,
        (40, 28, 28),
        dtype=np.uint8,
    )
    positions = lookalikes.embed(np.concatenate([dark, dark * 2]))
    np.testing.assert_allclose(
        positions[:40],
        positions[40:],
        atol=1e-3,
    )


def test_each_image_is_held_out_once(data, folds):
    held_out = [image for fold in folds for image in as_bytes(fold.grouped)]
    pool = as_bytes(data.train) + as_bytes(data.val)
    assert sorted(held_out) == sorted(pool)


def test_a_fold_divides_the_pool(data, folds):
    for fold in folds:
        parts = as_bytes(fold.train) + as_bytes(fold.random) + as_bytes(fold.grouped)
        assert len(parts) == len(data.train) + len(data.val)


def test_the_random_part_is_of_the_official_validation_split(data, folds):
    official = set(as_bytes(data.val))
    for fold in folds:
        assert set(as_bytes(fold.random)) <= official


def test_held_out_images_are_farther_from_training_than_random_ones(folds):
    fold = folds[0]
    parts = [fold.train.images, fold.grouped.images, fold.random.images]
    ends = np.cumsum([len(part) for part in parts])[:-1]
    train, grouped, random = np.split(lookalikes.embed(np.concatenate(parts)), ends)
    nearest = NearestNeighbors(n_neighbors=1).fit(train)
    farther = np.median(nearest.kneighbors(grouped)[0])
    assert farther > 2 * np.median(nearest.kneighbors(random)[0])


def test_folds_have_about_the_same_classes(folds):
    shares = [fold.grouped.labels.mean() for fold in folds]
    assert max(shares) - min(shares) <= 0.2


def test_several_labels_an_image_are_refused(drawn_data_dir):
    with pytest.raises(SwysError, match="several labels an image"):
        lookalikes.grouped_folds(load_dataset("chestmnist", root=drawn_data_dir))


def test_fewer_images_than_groups_are_refused(data):
    few = replace(
        data,
        train=data.train.sample(10),
        val=data.val.sample(10),
    )
    with pytest.raises(SwysError, match="images for 50 groups"):
        lookalikes.grouped_folds(few, groups=50)


def test_a_fold_without_a_class_is_refused(data, monkeypatch):
    class Unstratified:
        def __init__(self, folds, **options):
            pass

        def split(self, images, labels, groups):
            order = np.argsort(labels)
            yield order[100:], order[:100]

    monkeypatch.setattr(lookalikes, "StratifiedGroupKFold", Unstratified)
    with pytest.raises(SwysError, match="1.8"):
        lookalikes.grouped_folds(data, groups=4, folds=2)
