"""The images that two models are compared on: read batch by batch, never all at once from a folder.

A MedMNIST name, an .npz file, a folder with a subfolder for each class, a folder of images without
labels, or arrays from Python.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from swys_utils.config import SwysError, reason_of
from swys_utils.data import MEMORY_LIMIT, NAMES, SIZES, Dataset, load_dataset
from swys_utils.image_files import IMAGE_SUFFIXES, SPLITS, image_paths, read_image

READ_AT_ONCE = 64
MOST_CLASSES = 100_000
# folders of these names are parts of a data set, and no classes
SPLIT_LIKE = {"train", "training", "val", "valid", "validation", "test", "testing"}


class Pictures(Protocol):
    """What gives images by their positions: an array, a memory map, or files."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class ComparedImages:
    """N square images, and what is known of them.

    Attributes:
        pictures: positions, int (n,) -> uint8 (n, S, S) or (n, S, S, 3).
        labels: int64 (N,), 0/1 (N, L) of several labels, or None.
        class_names: in the order of the classes; empty where unknown.
        source: where they come from, for the report.
        names: of the images; None counts them.
    """

    pictures: Pictures
    labels: np.ndarray | None
    class_names: tuple[str, ...]
    source: str
    names: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def multi_label(self) -> bool:
        """Whether several labels can be true of one image."""
        return self.labels is not None and self.labels.ndim == 2

    def read_at(self, side: int) -> ComparedImages:
        """The same images, image files read at another size.

        Args:
            side: of the images, px; arrays stay as they are stored.
        """
        if not isinstance(self.pictures, ImageFiles) or not side:
            return self
        return replace(self, pictures=ImageFiles(self.pictures.paths, side))

    def batches(self) -> Iterator[np.ndarray]:
        """All images, some at a time.

        Yields:
            uint8 (n, S, S) or (n, S, S, 3).
        """
        for start in range(0, len(self), READ_AT_ONCE):
            stop = min(start + READ_AT_ONCE, len(self))
            yield self.pictures[np.arange(start, stop)]

    def name(self, index: int) -> str:
        """What an image is called.

        Args:
            index: its position.
        """
        return self.names[index] if self.names is not None else f"image {index}"


class ImageFiles:
    """Image files that are read when they are asked for.

    Args:
        paths: N files.
        size: side of the squares that they are cut and resized to, px.
    """

    def __init__(self, paths: Sequence[Path], size: int):
        self.paths = list(paths)
        self.size = size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        images = []
        for index in indices:
            image = read_image(self.paths[index], self.size)
            images.append(np.asarray(image.convert("RGB")))
        return np.stack(images)


def from_arrays(
    images: np.ndarray,
    labels: np.ndarray | None = None,
    class_names: Sequence[str] | None = None,
    source: str = "arrays from Python",
) -> ComparedImages:
    """Images that a reader has in Python.

    Args:
        images: uint8 (N, S, S) or (N, S, S, 3).
        labels: whole numbers (N,) or (N, 1), 0/1 (N, L) of several labels, or None.
        class_names: in the order of the classes, or None.
        source: where they come from, for the report.

    Returns:
        The images.

    Raises:
        SwysError: another type or shape, or labels that do not fit.
    """
    shape: tuple[int, ...] = getattr(images, "shape", ())
    is_stack = len(shape) == 3 or (len(shape) == 4 and shape[3] == 3)
    is_square = is_stack and shape[1] == shape[2] > 0
    if getattr(images, "dtype", None) != np.uint8 or not is_square or not shape[0]:
        kind = getattr(images, "dtype", type(images).__name__)
        raise SwysError(
            f"images {kind} {shape}; give uint8 (N, S, S) or (N, S, S, 3), N above 0, or"
            " open_images(path) for files"
        )
    names = tuple(map(str, class_names or ()))
    return ComparedImages(images, checked_labels(labels, shape[0], names), names, source)


def checked_labels(
    labels: np.ndarray | None, count: int, class_names: Sequence[str]
) -> np.ndarray | None:
    """Labels as the measures take them.

    Args:
        labels: as for ``from_arrays``.
        count: number of images.
        class_names: as for ``from_arrays``.

    Returns:
        int64 (N,) or (N, L), or None.

    Raises:
        SwysError: labels that are no whole numbers, or do not fit the images or the names.
    """
    if labels is None:
        return None
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iub" or labels.shape[:1] != (count,) or labels.ndim > 2:
        raise SwysError(
            f"labels {labels.dtype} {labels.shape} for {count} images; give whole numbers, (N,)"
        )
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    labels = labels.astype(np.int64)
    if labels.ndim == 2 and (labels.sum(axis=1) == 1).all():
        raise SwysError(
            "each image has one label, as a row of 0 and 1; give the number of its class, such as"
            " labels.argmax(1)"
        )
    classes = len(class_names) or MOST_CLASSES
    highest = 1 if labels.ndim == 2 else classes - 1
    if labels.min() < 0 or labels.max() > highest:
        raise SwysError(
            f"labels from {labels.min()} to {labels.max()}; they have to be 0 to {highest}"
        )
    return labels


def open_images(data: str, split: str = "test", size: int = 0) -> ComparedImages:
    """Images by name, file or folder.

    Args:
        data: a 2D MedMNIST name; an .npz file in MedMNIST's layout, or with ``images`` and perhaps
            ``labels``; a folder with a subfolder for each class (or train, val and test, with these
            in them), or with images alone, which then have no labels.
        split: which images, where there are splits.
        size: side of the images, px: of MedMNIST 28, 64, 128 or 224; of a folder any, 0 is 224.

    Returns:
        The images.

    Raises:
        SwysError: nothing of that name, or a damaged file.
    """
    if split not in SPLITS:
        raise SwysError(f"unknown split '{split}'; give train, val or test")
    if data in NAMES:
        return _of_dataset(load_dataset(data, size or SIZES[0]), split)
    path = Path(data).expanduser()
    try:
        is_folder = bool(data) and path.is_dir()
        is_file = path.is_file()
    except (OSError, ValueError):
        is_folder = is_file = False
    if is_folder:
        return _of_folder(path, split, size or 224)
    if is_file and path.suffix == ".npz":
        return _of_npz(path, split)
    if is_file:
        raise SwysError(f"'{path}' is no .npz; give an .npz, a folder, or a MedMNIST name")
    raise SwysError(
        f"no data '{data[:80]}'; give a folder of images, an .npz file, or a MedMNIST name such as"
        " pneumoniamnist"
    )


def _of_dataset(dataset: Dataset, split: str) -> ComparedImages:
    """One split of a data set in MedMNIST's layout."""
    part = getattr(dataset, split)
    info = dataset.info
    source = f"{info.name}, {split} split ({info.source})"
    return ComparedImages(part.images, part.labels, info.class_names, source)


def _of_npz(path: Path, split: str) -> ComparedImages:
    """An .npz with six arrays, or with ``images`` and perhaps ``labels``."""
    try:
        with zipfile.ZipFile(path) as zipped:
            names = {name.removesuffix(".npy") for name in zipped.namelist()}
            largest = max((member.file_size for member in zipped.infolist()), default=0)
        if "images" not in names:
            return _of_dataset(Dataset.from_npz(path), split)
        if largest > MEMORY_LIMIT:
            raise ValueError("over 1 GiB; use the layout of MedMNIST, which is memory-mapped")
        with np.load(path, allow_pickle=False) as archive:
            images = archive["images"]
            labels = archive["labels"] if "labels" in names else None
            class_names = archive["class_names"].tolist() if "class_names" in names else None
    except SwysError:
        raise
    except Exception as error:  # for a damaged file zipfile and numpy raise a dozen kinds
        reason = reason_of(error, with_kind=True)
        raise SwysError(f"'{path}' cannot be read ({reason}); replace it") from None
    return from_arrays(images, labels, class_names, f"file {path.name}")


def _of_folder(folder: Path, split: str, size: int) -> ComparedImages:
    """A folder of class folders, or of images without labels."""
    if not 1 <= size <= 4096:
        raise SwysError(f"image side {size}; give 1 to 4096 px")
    root = folder / split if (folder / split).is_dir() else folder
    classes = sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] != ".")
    names = [path.name for path in classes]
    if root == folder and names and set(names) <= set(SPLITS):
        shown = " and ".join(names)
        raise SwysError(f"'{folder}' has {shown}, but no {split}; give --split {names[0]}")
    if root == folder and names and {name.lower() for name in names} <= SPLIT_LIKE:
        shown = " and ".join(names)
        raise SwysError(f"'{folder}' has {shown}; give one of them as --data")
    paths = []
    labels = []
    for label, class_folder in enumerate(classes):
        found = image_paths(class_folder)
        paths += found
        labels += [label] * len(found)
    name = folder.resolve().name  # of "." too
    source = f"folder {name}" if root == folder else f"folder {name}, {split}"
    if not classes:
        paths = [path for path in image_paths(root) if path.parent == root]
    if not paths and any(path.parent == root for path in image_paths(root)):
        raise SwysError(
            f"'{folder}' has images, and folders without any; move the images into one of their own"
        )
    if not paths:
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        raise SwysError(f"'{folder}' has no images; they end in {suffixes}")
    return ComparedImages(
        pictures=ImageFiles(paths, size),
        labels=np.array(labels) if classes else None,
        class_names=tuple(names),
        source=source,
        names=[path.relative_to(root).as_posix() for path in paths],
    )
