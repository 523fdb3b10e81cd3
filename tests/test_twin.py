"""The shipped twin is what its card says, every bar is met, and the maker still measures the same values."""

import hashlib
import json
from functools import partial

import numpy as np
import pytest
import torch

from swys_studies import twin as maker
from swys_utils.data import TWIN, Split, load_dataset

CARD = json.loads(TWIN.with_suffix(".json").read_text(encoding="utf-8"))
PNEUMONIA = {"train": 3494 / 4708, "val": 389 / 524, "test": 390 / 624}  # the real splits


@pytest.fixture(scope="module")
def twin():
    with np.load(TWIN, allow_pickle=False) as file:
        return dict(file)


@pytest.mark.parametrize("split", maker.COUNTS)
def test_layout_and_class_proportions(twin, split):
    images, labels = twin[f"{split}_images"], twin[f"{split}_labels"]
    assert images.shape == (sum(maker.COUNTS[split]), 28, 28) and images.dtype == np.uint8
    assert labels.shape == (len(images), 1) and labels.dtype == np.uint8
    assert tuple(np.bincount(labels.ravel())) == maker.COUNTS[split]
    assert labels.mean() == pytest.approx(PNEUMONIA[split], abs=0.005)
    assert len(np.unique(labels[:16])) == 2  # a loader that takes the first few images must meet both classes
    assert len(np.unique(images.reshape(len(images), 784), axis=0)) == len(images)


def test_card_belongs_to_the_file_says_where_it_comes_from_and_meets_every_bar():
    assert CARD["sha256"] == hashlib.sha256(TWIN.read_bytes()).hexdigest()
    assert CARD["splits_normal_pneumonia"] == {split: list(counts) for split, counts in maker.COUNTS.items()}
    assert "not patients" in CARD["what"] and CARD["licence"] == "CC BY 4.0"
    assert "MedMNIST v2" in CARD["made_from"] and "Kermany" in CARD["made_from"]
    assert {"seed", "steps", "device"} <= set(CARD["generator"]) and CARD["made_by"] == "swys study twin"
    pairs = CARD["nearest_neighbours"]["ten_nearest_pairs_twin_train_distance"]
    assert len(pairs) == 10 and all(distance > 0 for _, _, distance in pairs)
    least = {"tiny_accuracy_on_twin_test": 0.90, "linear_auc_on_real_test": 0.91}
    most = {"discriminator_auc": 0.80, "share_of_copies": 0.02, "max_megabytes": 1.0}
    assert set(CARD["bars"]) == {*least, *most}
    for limits, side in ((least, "at_least"), (most, "at_most")):
        for name, limit in limits.items():
            found = CARD["bars"][name]
            assert found == maker.bar(found["value"], **{side: limit}) and found["met"] is True


def test_the_maker_measures_what_the_card_says(twin, real_data_dir):
    data = load_dataset("pneumoniamnist", root=real_data_dir)
    auc = maker.linear_auc(twin["train_images"], twin["train_labels"].ravel(), data.test)
    assert auc == pytest.approx(CARD["bars"]["linear_auc_on_real_test"]["value"], abs=2e-3)
    images = np.concatenate([twin[f"{split}_images"] for split in maker.COUNTS])
    own, distance, index = maker.nearest(images, data.train.images)
    near = CARD["nearest_neighbours"]
    number, row, closest = near["ten_nearest_pairs_twin_train_distance"][0]
    assert (distance.argmin(), index[number]) == (number, row)
    threshold = near["first_percentile_of_real_train_to_real_train"]
    assert [distance.min(), np.percentile(own, 1)] == pytest.approx([closest, threshold], abs=0.1)


def test_the_generator_runs_and_is_of_the_size_in_the_card(monkeypatch):
    net = maker.UNet()
    assert sum(p.numel() for p in net.parameters()) == CARD["generator"]["parameters"]
    monkeypatch.setattr(maker, "COUNTS", {"train": (3, 2)})
    monkeypatch.setattr(maker, "sample", partial(maker.sample, steps=1))
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28), np.uint8)
    made = maker.generate(Split(images, np.array([0, 1, 1, 0])), 1, 0, torch.device("cpu"))
    assert made["train_images"].shape == (5, 28, 28) and made["train_images"].dtype == np.uint8
    assert made["train_labels"].sum() == 2
