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
ARRAYS = dict(np.load(TWIN))


@pytest.mark.parametrize("split", maker.COUNTS)
def test_layout_and_class_proportions(split):
    images, labels = ARRAYS[f"{split}_images"], ARRAYS[f"{split}_labels"]
    assert images.shape == (len(labels), 28, 28) and labels.shape == (len(images), 1)
    assert (
        images.dtype == labels.dtype == np.uint8
        and (*np.bincount(labels[:, 0]),) == maker.COUNTS[split]
    )
    assert labels.mean() == pytest.approx(PNEUMONIA[split], abs=0.005)
    assert (
        len(np.unique(labels[:16])) == 2
    )  # a loader that takes the first few images must meet both classes
    assert len(np.unique(images, axis=0)) == len(images)


def test_card_belongs_to_the_file_says_where_it_comes_from_and_meets_every_bar():
    assert CARD["sha256"] == hashlib.sha256(TWIN.read_bytes()).hexdigest()
    assert CARD["splits_normal_pneumonia"] == {
        split: list(counts) for split, counts in maker.COUNTS.items()
    }
    assert "not patients" in CARD["what"] and CARD["licence"] == "CC BY 4.0"
    assert "MedMNIST v2" in CARD["made_from"] and "Kermany" in CARD["made_from"]
    assert {"seed", "steps", "device"} <= set(CARD["generator"]) and CARD[
        "made_by"
    ] == "swys study twin"
    pairs = CARD["nearest_neighbours"]["ten_nearest_pairs_twin_train_distance"]
    assert len(pairs) == 10 and all(distance > 0 for _, _, distance in pairs)
    limits = {
        "tiny_accuracy_on_twin_test": {"at_least": 0.90},
        "linear_auc_on_real_test": {"at_least": 0.91},
    }
    limits |= {"discriminator_auc": {"at_most": 0.80}, "share_of_copies": {"at_most": 0.02}}
    limits["max_megabytes"] = {"at_most": 1.0}
    found = {name: bar["value"] for name, bar in CARD["bars"].items()}
    assert CARD["bars"] == {name: maker.bar(found[name], **limit) for name, limit in limits.items()}
    assert all(bar["met"] is True for bar in CARD["bars"].values())


def test_the_maker_measures_what_the_card_says(real_data_dir):
    data, near = load_dataset("pneumoniamnist", root=real_data_dir), CARD["nearest_neighbours"]
    auc = maker.linear_auc(ARRAYS["train_images"], ARRAYS["train_labels"].ravel(), data.test)
    assert auc == pytest.approx(CARD["bars"]["linear_auc_on_real_test"]["value"], abs=2e-3)
    images = np.concatenate([ARRAYS[f"{split}_images"] for split in maker.COUNTS])
    own, distance, index = maker.nearest(images, data.train.images)
    number, row, closest = near["ten_nearest_pairs_twin_train_distance"][0]
    assert (distance.argmin(), index[number]) == (number, row)
    threshold = near["first_percentile_of_real_train_to_real_train"]
    assert [distance.min(), np.percentile(own, 1)] == pytest.approx([closest, threshold], abs=0.1)


def test_the_generator_runs_and_is_of_the_size_in_the_card(monkeypatch):
    assert sum(p.numel() for p in maker.UNet().parameters()) == CARD["generator"]["parameters"]
    monkeypatch.setattr(maker, "COUNTS", {"train": (3, 2)})
    monkeypatch.setattr(maker, "sample", partial(maker.sample, steps=1))
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28), np.uint8)
    made = maker.generate(Split(images, np.array([0, 1, 1, 0])), 1, 0, torch.device("cpu"))
    assert made["train_images"].shape == (5, 28, 28) and made["train_labels"].sum() == 2
