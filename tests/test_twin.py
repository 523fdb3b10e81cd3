"""The shipped twin is what its card says, and its card says that every bar is met. Needs no real data."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

ASSETS = Path(__file__).resolve().parent.parent / "swys_utils" / "assets"
PATH = ASSETS / "pneumoniamnist_twin.npz"
CARD = json.loads((ASSETS / "pneumoniamnist_twin.json").read_text(encoding="utf-8"))
COUNTS = {"train": (132, 380), "val": (33, 95), "test": (96, 160)}
PNEUMONIA = {"train": 3494 / 4708, "val": 389 / 524, "test": 390 / 624}  # the real splits
LIMITS = {
    "tiny_accuracy_on_twin_test": ("at_least", 0.90),
    "linear_auc_on_real_test": ("at_least", 0.91),
    "discriminator_auc": ("at_most", 0.80),
    "share_of_copies": ("at_most", 0.02),
    "max_megabytes": ("at_most", 1.0),
}


@pytest.fixture(scope="module")
def twin():
    with np.load(PATH, allow_pickle=False) as file:
        return dict(file)


@pytest.mark.parametrize("split", COUNTS)
def test_layout_and_class_proportions(twin, split):
    images, labels = twin[f"{split}_images"], twin[f"{split}_labels"]
    assert images.shape == (sum(COUNTS[split]), 28, 28) and images.dtype == np.uint8
    assert labels.shape == (len(images), 1) and labels.dtype == np.uint8
    assert tuple(np.bincount(labels.ravel())) == COUNTS[split]
    assert labels.mean() == pytest.approx(PNEUMONIA[split], abs=0.005)
    # a loader that takes the first few images must meet both classes
    assert len(np.unique(labels[:16])) == 2


def test_images_have_content_and_none_is_repeated(twin):
    images = np.concatenate([twin[f"{split}_images"] for split in COUNTS]).reshape(-1, 784)
    assert len(np.unique(images, axis=0)) == len(images)
    assert images.std(axis=1).min() > 3


def test_nothing_but_the_six_arrays_and_small(twin):
    assert set(twin) == {f"{split}_{part}" for split in COUNTS for part in ("images", "labels")}
    assert sum(path.stat().st_size for path in ASSETS.glob("pneumoniamnist_twin*")) <= 1_000_000


def test_card_belongs_to_the_file():
    assert CARD["sha256"] == hashlib.sha256(PATH.read_bytes()).hexdigest()
    assert CARD["splits_normal_pneumonia"] == {split: list(counts) for split, counts in COUNTS.items()}


@pytest.mark.parametrize("name", LIMITS)
def test_every_bar_is_in_the_card_and_met(name):
    side, limit = LIMITS[name]
    bar = CARD["bars"][name]
    assert bar[side] == limit and bar["met"] is True
    assert bar["value"] >= limit if side == "at_least" else bar["value"] <= limit


def test_card_says_where_it_comes_from_and_names_the_nearest_pairs():
    assert "not patients" in CARD["what"] and CARD["licence"] == "CC BY 4.0"
    assert "MedMNIST v2" in CARD["made_from"] and "Kermany" in CARD["made_from"]
    assert {"seed", "steps", "device"} <= set(CARD["generator"]) and CARD["centre_shift"].startswith("none")
    assert {"numpy", "scikit-learn", "torch"} <= set(CARD["checked_with"])
    pairs = CARD["nearest_neighbours"]["ten_nearest_pairs_twin_train_distance"]
    assert len(pairs) == 10 and all(distance > 0 for _, _, distance in pairs)
