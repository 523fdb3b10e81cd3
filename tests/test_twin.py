"""The shipped twin is what its card says, meets every bar, and its maker still measures that."""

import hashlib
import json

import numpy as np
import pytest
import torch

from swys_studies import twin as maker
from swys_studies import twin_generator
from swys_utils.data import TWIN, Split, load_dataset

CARD = json.loads(TWIN.with_suffix(".json").read_text(encoding="utf-8"))
ARRAYS = dict(np.load(TWIN))
# share of pneumonia in the real splits
PNEUMONIA = {
    "train": 3494 / 4708,
    "val": 389 / 524,
    "test": 390 / 624,
}
# name of a bar -> side, limit
LIMITS = {
    "tiny_accuracy_on_twin_test": ("at_least", 0.90),
    "linear_auc_on_real_validation": ("at_least", 0.97),
    "discriminator_auc": ("at_most", 0.80),
    "share_of_copies": ("at_most", 0.02),
    "max_megabytes": ("at_most", 1.0),
}


# the arrays


@pytest.fixture(params=maker.COUNTS)
def split(request):
    """Name, images and labels of each split."""
    name = request.param
    return name, ARRAYS[f"{name}_images"], ARRAYS[f"{name}_labels"]


def test_layout_is_medmnists(split):
    _, images, labels = split
    assert images.shape == (len(labels), 28, 28)
    assert labels.shape == (len(images), 1)
    assert images.dtype == np.uint8
    assert labels.dtype == np.uint8


def test_each_class_has_its_number_of_images(split):
    name, _, labels = split
    counts = np.bincount(labels[:, 0])
    assert tuple(counts) == maker.COUNTS[name]


def test_class_proportions_are_those_of_the_real_split(split):
    name, _, labels = split
    assert labels.mean() == pytest.approx(PNEUMONIA[name], abs=0.005)


def test_the_first_images_are_of_both_classes(split):
    _, _, labels = split
    assert len(np.unique(labels[:16])) == 2  # for a loader that takes the first few


def test_no_image_occurs_twice(split):
    _, images, _ = split
    assert len(np.unique(images, axis=0)) == len(images)


# the card


def test_the_card_belongs_to_the_file():
    assert CARD["sha256"] == hashlib.sha256(TWIN.read_bytes()).hexdigest()


def test_the_card_has_the_counts():
    counts = {split: tuple(pair) for split, pair in CARD["splits_normal_pneumonia"].items()}
    assert counts == maker.COUNTS


def test_the_card_says_that_these_are_no_patients():
    assert "not patients" in CARD["what"]


def test_the_card_names_origin_and_licence():
    assert "MedMNIST v2" in CARD["made_from"]
    assert "Kermany" in CARD["made_from"]
    assert CARD["licence"] == "CC BY 4.0"


def test_the_card_says_how_the_twin_was_made():
    assert CARD["made_by"] == "swys study twin"
    assert {"seed", "steps", "device"} <= set(CARD["generator"])


def test_the_ten_nearest_pairs_are_no_copies():
    pairs = CARD["nearest_neighbours"]["ten_nearest_pairs_twin_train_distance"]
    distances = [distance for _, _, distance in pairs]
    assert len(distances) == 10
    assert min(distances) > 0


def test_the_card_has_every_bar():
    assert set(CARD["bars"]) == set(LIMITS)


@pytest.mark.parametrize("name", LIMITS)
def test_every_bar_is_met(name):
    side, limit = LIMITS[name]
    bar = CARD["bars"][name]
    assert bar[side] == limit
    assert bar["met"] is True


@pytest.mark.parametrize("name", LIMITS)
def test_a_bar_is_met_by_its_value(name):
    side, limit = LIMITS[name]
    value = CARD["bars"][name]["value"]
    compare = {"at_least": maker.at_least, "at_most": maker.at_most}[side]
    assert CARD["bars"][name] == compare(limit, value)


# the bars


@pytest.mark.parametrize(
    ("value", "met"),
    [
        (0.9, True),
        (0.8, False),
    ],
)
def test_a_value_reaches_a_bar(value, met):
    assert maker.at_least(0.9, value) == {"value": value, "at_least": 0.9, "met": met}


@pytest.mark.parametrize(
    ("value", "met"),
    [
        (0.9, True),
        (1.0, False),
    ],
)
def test_a_value_stays_below_a_bar(value, met):
    assert maker.at_most(0.9, value) == {"value": value, "at_most": 0.9, "met": met}


# the measurements, repeated on real images


@pytest.fixture(scope="module")
def real(real_data_dir):
    """The real data set."""
    return load_dataset("pneumoniamnist", root=real_data_dir)


def test_the_linear_auc_is_the_cards(real):
    auc = maker.linear_auc(ARRAYS["train_images"], ARRAYS["train_labels"], real.val)
    expected = CARD["bars"]["linear_auc_on_real_validation"]["value"]
    assert auc == pytest.approx(expected, abs=2e-3)


@pytest.fixture(scope="module")
def neighbours(real):
    """Distances within the real training split, those of the twin to it, and the nearest images."""
    return maker.nearest(maker.all_images(ARRAYS), real.train.images)


def test_the_nearest_pair_is_the_cards(neighbours):
    _, distance, index = neighbours
    pairs = CARD["nearest_neighbours"]["ten_nearest_pairs_twin_train_distance"]
    (nearest, *_) = maker.nearest_pairs(distance, index)
    assert nearest == pytest.approx(pairs[0], abs=0.1)


def test_the_distance_that_counts_as_a_copy_is_the_cards(neighbours):
    own, _, _ = neighbours
    key = "first_percentile_of_real_train_to_real_train"
    expected = CARD["nearest_neighbours"][key]
    assert np.percentile(own, 1) == pytest.approx(expected, abs=0.1)


def test_an_image_is_its_own_nearest_neighbour_at_any_brightness():
    rng = np.random.default_rng(0)
    train = rng.integers(0, 200, (5, 4, 4), dtype=np.uint8)
    _, distance, index = maker.nearest(train[[3, 1]] + 50, train)
    assert list(index) == [3, 1]
    assert distance == pytest.approx([0, 0], abs=0.01)


def test_the_same_images_are_not_told_apart():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 4, 4), dtype=np.uint8)
    labels = np.repeat([0, 1], 20)
    auc = maker.discriminator_auc(images, labels, Split(images, labels), seed=0)
    assert auc < 0.6


def test_darker_images_are_told_apart():
    rng = np.random.default_rng(0)
    images = rng.integers(128, 256, (40, 4, 4), dtype=np.uint8)
    labels = np.repeat([0, 1], 20)
    real = Split(images - 100, labels)
    assert maker.discriminator_auc(images, labels, real, seed=0) == pytest.approx(1)


# the generator


def test_the_generator_is_of_the_size_in_the_card():
    count = sum(parameter.numel() for parameter in twin_generator.UNet().parameters())
    assert count == CARD["generator"]["parameters"]


def test_the_generator_makes_images_of_each_class(monkeypatch):
    sample = twin_generator.sample

    def quick_sample(net, labels, seed):
        return sample(net, labels, seed, steps=1)

    monkeypatch.setattr(twin_generator, "sample", quick_sample)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 28, 28), dtype=np.uint8)
    labels = np.array([0, 1, 1, 0])
    made = twin_generator.generate(
        Split(images, labels),
        {"train": (3, 2)},
        steps=1,
        seed=0,
        device=torch.device("cpu"),
    )
    assert made["train_images"].shape == (5, 28, 28)
    assert made["train_labels"].sum() == 2


def test_the_rate_rises_and_falls():
    rates = [twin_generator.learning_rate(step, 1000) for step in range(1000)]
    assert rates.index(max(rates)) == pytest.approx(twin_generator.WARMUP_STEPS, abs=2)
    assert rates[0] < rates[100] < max(rates) < twin_generator.RATE
    assert rates[-1] < 1e-4 * twin_generator.RATE
