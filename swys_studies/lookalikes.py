"""A validation that was tried: whole groups of look-alike images are held out.

The official validation split of PneumoniaMNIST is a random cut of the training images, so most of
its images have a near twin in training: a model that remembers does well on it. Here training and
validation images are pooled, the images of each class are grouped by their looks, and whole groups
are held out. Few groups are used, so that a held-out group is a kind of image that the model has
not seen: with 150 groups, a held-out image had its like in the group beside it.

It was meant to be harder than the official one and to order recipes better. In the shipped trials
it did neither (``swys study trials --only none --test``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.model_selection import StratifiedGroupKFold

from swys_utils.config import SwysError
from swys_utils.data import Dataset
from swys_utils.splits import Split

COMPONENTS = 50  # of the principal components of the pixels
GROUPS = 10  # in each class
FOLDS = 5


@dataclass(frozen=True)
class Fold:
    """One way to hold out groups.

    Attributes:
        train: official training images whose group is not held out.
        random: official validation images whose group is not held out: they have look-alikes in
            ``train``, as the whole official validation split has.
        grouped: all images, of training and of validation, whose group is held out.
    """

    train: Split
    random: Split
    grouped: Split


def embed(images: np.ndarray) -> np.ndarray:
    """Positions at which look-alikes are near each other: principal components of the pixels.

    Each image has mean 0 and deviation 1 before, so brightness and contrast do not count. Nothing
    is learnt from labels.

    Args:
        images: uint8 (N, H, W) or (N, H, W, 3).

    Returns:
        float32 (N, C), with C at most ``COMPONENTS``.
    """
    pixels = images.reshape(len(images), -1).astype(np.float32)
    centred = pixels - pixels.mean(axis=1, keepdims=True)
    scaled = centred / (pixels.std(axis=1, keepdims=True) + 1e-6)
    components = min(COMPONENTS, *scaled.shape)
    return PCA(components, random_state=0).fit_transform(scaled)


def look_alike_groups(images: np.ndarray, labels: np.ndarray, groups: int = GROUPS) -> np.ndarray:
    """Group images of one class that look alike, by k-means of ``embed``.

    Args:
        images: uint8 (N, H, W) or (N, H, W, 3).
        labels: int (N,).
        groups: number of groups in each class, at most its number of images.

    Returns:
        The number of each image's group, int (N,); no group has images of two classes.
    """
    positions = embed(images)
    group_of = np.zeros(len(images), dtype=int)
    for number, label in enumerate(np.unique(labels)):
        members = np.flatnonzero(labels == label)
        clusters = KMeans(groups, n_init=4, random_state=0).fit_predict(positions[members])
        group_of[members] = number * groups + clusters
    return group_of


def grouped_folds(data: Dataset, groups: int = GROUPS, folds: int = FOLDS) -> list[Fold]:
    """Split the pool of training and validation images so that no group is divided.

    The folds have about the same share of each class.

    Args:
        data: its test split is not looked at.
        groups: number of groups of look-alikes in each class.
        folds: number of folds.

    Raises:
        SwysError: images with several labels, too few images, or a fold without one of the classes.
    """
    if data.info.multi_label:
        raise SwysError(f"'{data.info.name}' has several labels an image; folds need one")
    pool = Split(
        np.concatenate([data.train.images, data.val.images]),
        np.concatenate([data.train.labels, data.val.labels]),
    )
    smallest = int(np.bincount(pool.labels, minlength=data.info.num_classes).min())
    if smallest < groups:
        raise SwysError(
            f"a class of {smallest} images for {groups} groups; give more images or fewer groups"
        )
    group_of = look_alike_groups(pool.images, pool.labels, groups)
    official_train = np.arange(len(pool)) < len(data.train)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=0)
    found = []
    for kept, held_out in splitter.split(pool.images, pool.labels, group_of):
        is_kept = np.zeros(len(pool), dtype=bool)
        is_kept[kept] = True
        found.append(
            Fold(
                train=pool.take(np.flatnonzero(is_kept & official_train)),
                random=pool.take(np.flatnonzero(is_kept & ~official_train)),
                grouped=pool.take(held_out),
            )
        )
    if any(len(np.unique(fold.grouped.labels)) < data.info.num_classes for fold in found):
        raise SwysError(
            "a fold has not every class; scikit-learn before 1.8 does not stratify shuffled groups:"
            " update it, or give more images"
        )
    return found
