"""Make the embedded twin, a synthetic stand-in for PneumoniaMNIST, and check it.

``swys study twin`` fits the generator of ``twin_generator`` to the real training split, samples the
twin, holds it against five bars, and writes it only when all are met. The shipped twin took 154
seconds on an H100.
"""

from __future__ import annotations

import json
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from swys_utils.cards import sha256_of
from swys_utils.config import BUILD, SwysError, default_device, device_name, write_json
from swys_utils.data import TWIN, Dataset, Split
from swys_utils.models import load_checkpoint
from swys_utils.training import predict

from .reference import study_data
from .twin_generator import generate

# (normal, pneumonia): the proportions of the real splits, 74.2 % pneumonia in train and val,
# 62.5 % in test
COUNTS = {
    "train": (132, 380),
    "val": (33, 95),
    "test": (96, 160),
}


def make(steps: int = 3700, seed: int = 0) -> None:
    """Fit the generator, sample the twin, check it against five bars, and write it with its card.

    Args:
        steps: optimiser steps of the generator.
        seed: of the generator's weights, batches and samples, and of the discriminator's folds.

    Raises:
        SwysError: no real ``pneumoniamnist.npz`` was found, or a bar is missed.
    """
    data = study_data("pneumoniamnist")
    device = default_device()
    start = time.monotonic()
    arrays = generate(data.train, COUNTS, steps, seed, device)
    seconds = time.monotonic() - start

    BUILD.mkdir(exist_ok=True)
    candidate = BUILD / TWIN.name
    np.savez_compressed(candidate, **arrays)  # type: ignore[arg-type]  # numpy: any name is an array

    # what the card says of the origin and of the licence stays
    card_path = TWIN.with_suffix(".json")
    card = json.loads(card_path.read_text(encoding="utf-8"))
    card["generator"] |= {
        "steps": steps,
        "seed": seed,
        "device": device_name(device),
        "seconds": round(seconds),
        "torch": torch.__version__,
    }
    card |= check(arrays, data, seed, candidate)
    card["sha256"] = sha256_of(candidate)
    card["checked_with"] = {
        "numpy": version("numpy"),
        "scikit-learn": version("scikit-learn"),
        "torch": version("torch"),
        "timm": version("timm"),
    }

    bars = card["bars"]
    print(json.dumps(bars, indent=1))
    missed = [name for name in bars if not bars[name]["met"]]
    if missed:
        raise SwysError(f"the twin misses {', '.join(missed)}; try more --steps or another --seed")
    candidate.replace(TWIN)
    write_json(card_path, card)


def check(
    twin: dict[str, np.ndarray],
    real: Dataset,
    seed: int,
    path: Path,
) -> dict:
    """Measure all bars, and find the real training images that are nearest to the twin's.

    Args:
        twin: the six arrays of a MedMNIST file.
        real: the real data set.
        seed: of the discriminator's folds.
        path: the file with the arrays.

    Returns:
        ``bars``, by name, and ``nearest_neighbours``, for the card.
    """
    images = all_images(twin)
    labels = all_labels(twin)
    accuracy = tiny_accuracy(twin["test_images"], twin["test_labels"])
    linear = linear_auc(twin["train_images"], twin["train_labels"], real.val)
    discriminator = discriminator_auc(images, labels, real.train, seed)

    own, distance, index = nearest(images, real.train.images)
    threshold = np.percentile(own, 1)
    is_copy = distance < threshold

    megabytes = path.stat().st_size / 1e6
    bars = {
        "tiny_accuracy_on_twin_test": at_least(0.90, accuracy),
        "linear_auc_on_real_validation": at_least(0.97, linear),
        "discriminator_auc": at_most(0.80, discriminator),
        "share_of_copies": at_most(0.02, is_copy.mean()),
        "max_megabytes": at_most(1.0, megabytes),
    }
    neighbours = {
        "distance": "L2 over 784 grey levels, each image's mean removed; "
        "twin index counts train, val, test",
        "first_percentile_of_real_train_to_real_train": round(float(threshold), 1),
        "ten_nearest_pairs_twin_train_distance": nearest_pairs(distance, index),
    }
    return {"bars": bars, "nearest_neighbours": neighbours}


def at_least(limit: float, value: float) -> dict:
    """A bar that a value has to reach.

    Args:
        limit: the smallest value that passes.
        value: as measured.

    Returns:
        Value, limit, and whether the bar is met.
    """
    return {
        "value": round(float(value), 4),
        "at_least": limit,
        "met": bool(value >= limit),
    }


def at_most(limit: float, value: float) -> dict:
    """A bar that a value must not exceed.

    Args:
        limit: the largest value that passes.
        value: as measured.

    Returns:
        Value, limit, and whether the bar is met.
    """
    return {
        "value": round(float(value), 4),
        "at_most": limit,
        "met": bool(value <= limit),
    }


def tiny_accuracy(images: np.ndarray, labels: np.ndarray) -> float:
    """Accuracy of the shipped Tiny (224 px), which was trained on real images.

    Args:
        images: uint8 (N, 28, 28).
        labels: uint8 (N, 1).

    Returns:
        A fraction.
    """
    tiny, _ = load_checkpoint("pneumoniamnist/vit_tiny_patch16_224")
    logits = predict(tiny, images)
    is_right = logits.argmax(axis=1) == labels.ravel()
    return is_right.mean()


def linear_auc(
    images: np.ndarray,
    labels: np.ndarray,
    test: Split,
) -> float:
    """AUC on ``test`` of logistic regression on standardised pixels.

    Args:
        images: to train on, uint8 (N, H, W).
        labels: uint8 (N, 1), 0 or 1.
        test: images of the same size and their classes.

    Returns:
        The area under the ROC curve.
    """
    model = make_pipeline(
        StandardScaler(),
        LogisticRegression(max_iter=5000),
    )
    model.fit(flat(images), labels.ravel())
    scores = model.decision_function(flat(test.images))
    return roc_auc_score(test.labels, scores)


def discriminator_auc(
    images: np.ndarray,
    labels: np.ndarray,
    real: Split,
    seed: int,
) -> float:
    """How well boosted trees on pixels tell the twin from as many real images of the same classes.

    Args:
        images: of the twin, uint8 (N, H, W).
        labels: of the twin, int (N,), 0 or 1.
        real: real images and their classes.
        seed: of the real images that are taken, of the folds and of the trees.

    Returns:
        The area under the ROC curve, the mean of five folds; 0.5 is chance.
    """
    rng = np.random.default_rng(seed)
    indices = []
    for c in (0, 1):
        members = np.flatnonzero(real.labels == c)
        count = np.count_nonzero(labels == c)
        chosen = rng.choice(members, count, replace=False)
        indices.append(chosen)
    real = real.take(np.concatenate(indices))
    pixels = np.concatenate([flat(images), flat(real.images)])
    is_twin = np.repeat([1, 0], len(images))
    trees = HistGradientBoostingClassifier(random_state=seed)
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    scores = cross_val_score(
        trees,
        pixels,
        is_twin,
        scoring="roc_auc",
        cv=folds,
    )
    return scores.mean()


def nearest(
    images: np.ndarray,
    train: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distances to the nearest training image, with the mean of each image removed.

    Args:
        images: uint8 (N, H, W).
        train: uint8 (M, H, W).

    Returns:
        The distance of each training image to the nearest other one, (M,); that of each image to
        the nearest training image, (N,); and the number of the latter, int (N,).
    """
    search = NearestNeighbors(n_neighbors=1, algorithm="brute")
    search.fit(centred(train))
    own, _ = search.kneighbors()
    distance, index = search.kneighbors(centred(images))
    return own[:, 0], distance[:, 0], index[:, 0]


def nearest_pairs(distance: np.ndarray, index: np.ndarray) -> list[list]:
    """The ten images of the twin that are nearest to a real training image.

    Args:
        distance: of each image of the twin to the nearest training image, (N,).
        index: the number of that training image, int (N,).

    Returns:
        Ten lists: the number in the twin, the number in the training split, the distance.
    """
    pairs = []
    for number in distance.argsort()[:10]:
        pair = [
            int(number),
            int(index[number]),
            round(float(distance[number]), 1),
        ]
        pairs.append(pair)
    return pairs


def all_images(twin: dict[str, np.ndarray]) -> np.ndarray:
    """The images of all splits, in the order of ``COUNTS``.

    Args:
        twin: the six arrays of a MedMNIST file.

    Returns:
        uint8 (N, H, W).
    """
    parts = [twin[f"{split}_images"] for split in COUNTS]
    return np.concatenate(parts)


def all_labels(twin: dict[str, np.ndarray]) -> np.ndarray:
    """The labels of all splits, in the order of ``COUNTS``.

    Args:
        twin: the six arrays of a MedMNIST file.

    Returns:
        uint8 (N,).
    """
    parts = [twin[f"{split}_labels"] for split in COUNTS]
    return np.concatenate(parts).ravel()


def flat(images: np.ndarray) -> np.ndarray:
    """One row of grey levels for each image.

    Args:
        images: uint8 (N, H, W).

    Returns:
        float32 (N, H * W).
    """
    rows = images.reshape(len(images), -1)
    return rows.astype(np.float32)


def centred(images: np.ndarray) -> np.ndarray:
    """One row of grey levels for each image, with the mean of the row removed.

    Args:
        images: uint8 (N, H, W).

    Returns:
        float32 (N, H * W).
    """
    rows = flat(images)
    return rows - rows.mean(axis=1, keepdims=True)
