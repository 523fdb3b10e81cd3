"""Images and labels: MedMNIST, its embedded twin, a reader's own; and uint8 made model input."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from medmnist.info import INFO

from .config import Profile, SwysError, default_device, device_name, profile, unknown
from .image_files import (
    SPLITS,
    Groups,
    data_folders,
    download_file,
    read_folder,
    read_npz,
)
from .splits import TWIN_SOURCE, Info, Split

DEFAULT_DATASET = "pneumoniamnist"
SIZES = (28, 64, 128, 224)
NAMES = tuple(name for name in INFO if not name.endswith("3d"))
TWIN = Path(__file__).parent / "assets" / f"{DEFAULT_DATASET}_twin.npz"
MEMORY_LIMIT = 2**30  # bytes; larger image arrays are memory-mapped instead of loaded


@dataclass(frozen=True)
class Dataset:
    """The three splits of a data set, and what it is."""

    train: Split
    val: Split
    test: Split
    info: Info

    @classmethod
    def from_npz(
        cls,
        path: str | Path,
        *,
        class_names: Sequence[str] | None = None,
    ) -> Dataset:
        """Your own images from a .npz file in MedMNIST's layout.

        The file holds six arrays. ``train_images``, ``val_images`` and ``test_images`` are uint8
        (N, S, S) or (N, S, S, 3), of any side S. ``train_labels``, ``val_labels`` and
        ``test_labels`` are whole numbers: the class, counted from 0, as (N,) or (N, 1); or, where
        several labels can be true, 0 and 1 as (N, L). All images of one patient belong in one
        split; ``from_folder`` says why. Arrays over 1 GiB are memory-mapped.

        Args:
            path: The file; it names the data set.
            class_names: Names of the classes in their order; None numbers them: "class 0", ...

        Returns:
            The three splits.

        Raises:
            SwysError: The file is missing or damaged, or its arrays are not as described.
        """
        path = Path(path).expanduser()
        if not path.is_file():
            raise SwysError(f"no file '{path}'; give a .npz in MedMNIST's layout")
        arrays = read_npz(path, MEMORY_LIMIT)
        labels = arrays["train_labels"]
        names = tuple(class_names or _numbered_classes(path, labels))
        if len(names) < 2:
            raise SwysError(f"'{path}' has {len(names)} class; a model needs two to tell apart")
        info = _own_info(path.stem, f"real file {path.name}", arrays["train_images"], names)
        if labels.shape[1] > 1:
            info = replace(info, task="multi-label, binary-class")
        return _checked(path, arrays, info)

    @classmethod
    def from_folder(
        cls,
        path: str | Path,
        *,
        size: int = 28,
        groups: Groups = None,
        fractions: Sequence[float] = (0.7, 0.1, 0.2),
        seed: int = 0,
    ) -> Dataset:
        """Your own images (png, jpg, bmp, tif) from a folder with one subfolder a class.

        Each image is cut to its central square and resized; 16-bit values are divided by 256. If
        all are stored as grey, so is the data set. Subfolders ``train``, ``val`` and ``test`` with
        the class folders in them are the splits; otherwise each class is split at random.

        **Images of one patient belong in one split.** They look alike, so a model that is trained
        on some and tested on others is tested on what it has seen, and its score says little about
        a new patient. Say with ``groups`` which images belong together; no group is divided.
        Where groups differ much in size, the ``fractions`` are met only roughly.

        Args:
            path: The folder; it names the data set, its subfolders in sorted order the classes.
            size: Side of the images in the data set, in pixels.
            groups: "folder" for one subfolder a patient in each class (``class/patient/image.png``;
                one name in two classes is one patient), or a function from path to group. None:
                each image stands alone.
            fractions: Shares of the images for train, val and test.
            seed: The same seed, 0 or above, makes the same splits.

        Raises:
            SwysError: No such folder; fewer than two classes; an image that cannot be read; a class
                with too few images or groups for three splits; a group in two of your own splits.
        """
        folder = Path(path).expanduser().resolve()
        content = read_folder(folder, size, groups, fractions, seed)
        splits = {}
        for split in SPLITS:
            indices = np.flatnonzero(content.split_of == split)
            splits[split] = Split(content.images[indices], content.labels[indices])
        info = _own_info(folder.name, f"folder {folder.name}", content.images, content.class_names)
        return cls(**splits, info=info)


def load_dataset(
    name: str = DEFAULT_DATASET,
    size: int = 28,
    root: str | Path | None = None,
    download: bool = True,
) -> Dataset:
    """Load a 2D MedMNIST data set (Yang et al. 2023, https://doi.org/10.1038/s41597-022-01721-8).

    Looks in ``root`` (or ``SWYS_DATA_DIR``), then in ``~/.medmnist``, then downloads there
    (MD5-checked); for the default data set at 28 px the embedded synthetic twin comes last. A file
    that is already on disk is taken as it is: it may be re-saved, or a split of your own. Arrays
    over 1 GiB are memory-mapped.

    Args:
        name: One of ``NAMES``.
        size: Side of the images in pixels, one of ``SIZES``.
        root: Folder with .npz files; None takes the environment's ``SWYS_DATA_DIR``.
        download: Whether to download a file that is not on disk.

    Returns:
        The three splits.

    Raises:
        SwysError: Unknown name or size, a damaged or foreign file, or no data to be had.
    """
    if name not in NAMES:
        raise SwysError(unknown("dataset", name, NAMES, "the 2D MedMNIST sets are"))
    if size not in SIZES:
        raise SwysError(f"unknown image size {size}; MedMNIST has {', '.join(map(str, SIZES))}")
    path, source = _find_file(name, size, root, download)
    facts = INFO[name]
    info = Info(
        name=name,
        size=size,
        task=facts["task"],
        class_names=tuple(facts["label"].values()),
        channels=facts["n_channels"],
        source=source,
        licence=facts["license"],
    )
    return _checked(path, read_npz(path, MEMORY_LIMIT), info)


def single_labels(split: Split) -> np.ndarray:
    """One class for each image.

    Args:
        split: Any split.

    Returns:
        int64 (N,); of several labels the first true one, or -1 where none is.
    """
    if split.labels.ndim == 1:
        return split.labels
    first = split.labels.argmax(axis=1)
    return np.where(split.labels.any(axis=1), first, -1)


def to_model_input(
    images: np.ndarray | torch.Tensor, img_size: int = 28, device: torch.device | str | None = None
) -> torch.Tensor:
    """uint8 images to what the ViTs read.

    Args:
        images: uint8 (N, H, W) or (N, H, W, 3), NumPy or torch, on any device.
        img_size: Side S of the result in pixels.
        device: Device of the result; None keeps that of the images.

    Returns:
        float32 (N, 3, S, S) in [-1, 1]: grey repeated, x / 127.5 - 1, bilinear resize.

    Raises:
        SwysError: The images have another type or shape.
    """
    planes = resized(to_planes(images, device), img_size)
    return planes.expand(-1, 3, -1, -1)


def resized(planes: torch.Tensor, img_size: int) -> torch.Tensor:
    """Images at another size: bilinear, and antialiased where they shrink.

    Args:
        planes: Float (N, C, H, W).
        img_size: Side S of the result in pixels.

    Returns:
        Float (N, C, S, S); the same tensor where it has this size.
    """
    height, width = planes.shape[2:]
    if height == width == img_size:
        return planes
    size = (img_size, img_size)
    return F.interpolate(planes, size, mode="bilinear", antialias=max(height, width) > img_size)


def to_planes(
    images: np.ndarray | torch.Tensor, device: torch.device | str | None = None
) -> torch.Tensor:
    """uint8 images to numbers in [-1, 1], channels first, at the stored size.

    Args:
        images: uint8 (N, H, W) or (N, H, W, 3), NumPy or torch, on any device.
        device: Device of the result; None keeps that of the images.

    Returns:
        float32 (N, 1, H, W) or (N, 3, H, W).

    Raises:
        SwysError: The images have another type or shape.
    """
    if isinstance(images, np.ndarray):
        images = np.array(images)  # a copy, because torch warns of read-only memory maps
    tensor = torch.as_tensor(images)
    is_grey = tensor.ndim == 3
    is_colour = tensor.ndim == 4 and tensor.shape[3] == 3
    if tensor.dtype != torch.uint8 or not (is_grey or is_colour):
        shape = tuple(tensor.shape)
        raise SwysError(f"images {tensor.dtype} {shape}; give uint8 (N, H, W) or (N, H, W, 3)")
    planes = tensor.unsqueeze(1) if is_grey else tensor.permute(0, 3, 1, 2)
    return planes.to(device).float() / 127.5 - 1


def notebook_setup(
    name: str = DEFAULT_DATASET, size: int = 28
) -> tuple[Dataset, Profile, torch.device]:
    """Load the data and print what is used: the first cell of every notebook.

    Args:
        name: One of ``NAMES``.
        size: Side of the images in pixels, one of ``SIZES``.

    Returns:
        The data, the profile in force, the device.
    """
    current = profile()
    device = default_device()
    data = load_dataset(name, size)
    packages = ("torch", "timm", "medmnist")
    versions = " | ".join(f"{package} {version(package)}" for package in packages)
    threads = torch.get_num_threads()
    sizes = [f"{len(getattr(data, split))} {split}" for split in SPLITS]
    print(f"{versions} | {device.type}: {device_name(device)}, {threads} threads")
    print(f"profile {current.name} ({current.what})")
    print(f"data    {name}, {size} px: {' / '.join(sizes)}")
    print(f"source  {data.info.source} | {data.info.licence}")
    if name != DEFAULT_DATASET:
        print(f"text    of {DEFAULT_DATASET}; so are shipped results that {name} has not")
    return data, current, device


def _find_file(name: str, size: int, root: str | Path | None, download: bool) -> tuple[Path, str]:
    """The file of a data set, and what ``Info.source`` says of it."""
    suffix = "" if size == 28 else f"_{size}"
    file_name = f"{name}{suffix}.npz"
    url = INFO[name][f"url{suffix}"]
    for folder, place in data_folders(root):
        path = folder / file_name
        if path.is_file():
            return path, f"real file {file_name} in {place}"
    problem = "download=False"
    if download:
        target = Path.home() / ".medmnist" / file_name
        try:
            download_file(url, INFO[name][f"MD5{suffix}"], target)
            return target, f"downloaded {file_name}"
        except OSError as error:
            problem = f"download failed: {error}"
    if name == DEFAULT_DATASET and size == 28:
        print(f"no {file_name} ({problem}): using the {TWIN_SOURCE}", file=sys.stderr)
        return TWIN, TWIN_SOURCE
    raise SwysError(
        f"no data for '{name}' at {size} px ({problem}); put {file_name} into a folder and set"
        f" SWYS_DATA_DIR to it (file: {url}), or use '{DEFAULT_DATASET}' at 28 px"
    )


def _checked(path: Path, arrays: dict[str, np.ndarray], info: Info) -> Dataset:
    """The data set of these arrays; a SwysError where one of them is not what ``info`` says."""
    image_shape: tuple[int, ...] = (info.size, info.size)
    if info.channels == 3:
        image_shape = (info.size, info.size, 3)
    columns = info.num_classes if info.multi_label else 1
    highest = 1 if info.multi_label else info.num_classes - 1
    expected = (np.uint8, image_shape, True, (columns,))
    splits = {}
    for split in SPLITS:
        images = arrays[f"{split}_images"]
        labels = arrays[f"{split}_labels"]
        whole_numbers = labels.dtype.kind in "iu"
        found = (images.dtype, images.shape[1:], whole_numbers, labels.shape[1:])
        if found != expected or not images.shape[0] == len(labels) > 0:
            what = f"{split} has images {images.dtype} {images.shape}, labels {labels.shape}"
            sides = ", ".join(map(str, image_shape))
            wanted = f"uint8 (N, {sides}) and whole numbers (N, {columns}), N > 0"
            raise SwysError(f"'{path}' is not {info.name} at {info.size} px: {what}; give {wanted}")
        if labels.min() < 0 or labels.max() > highest:
            raise SwysError(
                f"'{path}' has {split} labels outside 0..{highest}, and {info.num_classes} classes;"
                " mend the labels, or name all classes"
            )
        labels = labels.astype(np.int64)
        splits[split] = Split(images, labels if info.multi_label else labels[:, 0])
    return Dataset(**splits, info=info)


def _own_info(name: str, source: str, images: np.ndarray, class_names: tuple[str, ...]) -> Info:
    """What a reader's own images, (N, S, S) or (N, S, S, 3), are; each is of one class."""
    image_shape = images.shape[1:]
    return Info(
        name=name,
        size=image_shape[0] if image_shape else 0,
        task="binary-class" if len(class_names) == 2 else "multi-class",
        class_names=class_names,
        channels=3 if image_shape[2:] == (3,) else 1,
        source=source,
        licence="own images",
    )


def _numbered_classes(path: Path, labels: np.ndarray) -> list[str]:
    """Names for the classes of labels (N, columns) that have none."""
    columns = labels.shape[1]
    if columns > 1:
        return [f"class {column}" for column in range(columns)]
    numbers = np.unique(labels)
    if not np.array_equal(numbers, np.arange(len(numbers))):
        some = ", ".join(str(number) for number in numbers[:5])
        way_out = "number the classes 0, 1, 2, ..., or give class_names"
        raise SwysError(f"'{path}' has the train labels {some}; {way_out}")
    return [f"class {number}" for number in numbers]
