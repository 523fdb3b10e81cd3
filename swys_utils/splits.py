"""What a data set consists of: splits, and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .config import SwysError

TWIN_SOURCE = "synthetic twin - not patients, numbers are illustrations"


@dataclass(frozen=True, eq=False)
class Split:
    """One split.

    Attributes:
        images: uint8 (N, H, W) or (N, H, W, 3).
        labels: int64 (N,), or (N, L) of a multi-label task.
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def sample_indices(self, n: int) -> np.ndarray:
        """Positions of a fixed random sample of the images, in the original order.

        Args:
            n: Largest number of images; 0 is all.

        Returns:
            int64, as many as there are images, at most ``n``.

        Raises:
            SwysError: ``n`` is negative.
        """
        if n < 0:
            raise SwysError(f"a sample of {n} images; give 1 or more, or 0 for all")
        count = min(n, len(self)) or len(self)
        order = np.random.default_rng(0).permutation(len(self))
        return np.sort(order[:count])

    def take(self, indices: np.ndarray) -> Split:
        """The images at these positions.

        Args:
            indices: Positions, int (n,), or a mask, bool (N,).
        """
        return Split(self.images[indices], self.labels[indices])

    def sample(self, n: int) -> Split:
        """A fixed random sample of the images, in the original order.

        Args:
            n: Largest number of images; 0 is all.

        Returns:
            The sample; the split itself where that is no larger.

        Raises:
            SwysError: ``n`` is negative.
        """
        indices = self.sample_indices(n)
        return self if len(indices) == len(self) else self.take(indices)


@dataclass(frozen=True)
class Info:
    """What a data set is.

    Attributes:
        name: MedMNIST's name of it, or that of the own file or folder.
        size: Side of the stored images in pixels.
        task: MedMNIST's name of it, such as ``binary-class``.
        class_names: Names of the classes, or of the labels of a multi-label task.
        channels: 1 (grey) or 3 (colour).
        source: Where the images come from.
        licence: On which terms they may be used.
    """

    name: str
    size: int
    task: str
    class_names: tuple[str, ...]
    channels: int
    source: str
    licence: str

    @property
    def num_classes(self) -> int:
        """Number of classes, or of labels of a multi-label task."""
        return len(self.class_names)

    @property
    def multi_label(self) -> bool:
        """Whether several labels can be true of one image."""
        return self.task.startswith("multi-label")

    @property
    def synthetic(self) -> bool:
        """True for the embedded twin: its results never go where results on real data go."""
        return self.source == TWIN_SOURCE

    @property
    def results_name(self) -> str:
        """Folder name for results: the twin's are kept apart."""
        name = self.name if self.size == 28 else f"{self.name}_{self.size}"
        return f"{name}-twin" if self.synthetic else name


def has_class(split: Split, number: int) -> np.ndarray:
    """Which images have a class, also where an image can have several.

    Args:
        split: any split.
        number: of the class, from 0.

    Returns:
        bool (N,).

    Raises:
        SwysError: images can have several labels, and there is none of this number.
    """
    if split.labels.ndim == 2:
        count = split.labels.shape[1]
        if number not in range(count):
            raise SwysError(f"no label {number}; give 0 to {count - 1}")
        return split.labels[:, number] == 1
    return split.labels == number
