"""Images and labels: MedMNIST, its embedded twin, a reader's own; and uint8 made model input."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import time
import zipfile
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pooch
import requests
import torch
import torch.nn.functional as F
from medmnist.info import INFO
from PIL import Image
from tqdm import tqdm

from .config import Profile, SwysError, default_device, device_name, profile, unknown

DEFAULT_DATASET = "pneumoniamnist"
SIZES = (28, 64, 128, 224)
SPLITS = ("train", "val", "test")
NAMES = tuple(name for name in INFO if not name.endswith("3d"))
TASKS = sorted({facts["task"] for facts in INFO.values()})
TWIN = Path(__file__).parent / "assets" / f"{DEFAULT_DATASET}_twin.npz"
TWIN_SOURCE = "synthetic twin - not patients, numbers are illustrations"
OWN_LICENCE = "own images"
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}
MEMORY_LIMIT = 2**30  # bytes; larger image arrays are memory-mapped instead of loaded
Groups = str | Mapping[str, Hashable] | Callable[[Path], Hashable] | None

# A download is given up when no byte comes for TIMEOUT seconds, or when it is slower than
# LOWEST_SPEED on the whole, the first TIMEOUT seconds left out. The speed is looked at after each
# chunk, so at the lowest speed a chunk has to arrive well within TIMEOUT.
TIMEOUT = 10
LOWEST_SPEED = 1000  # bytes a second
CHUNK = 4096  # bytes; from a local server 150 MB a second, where 256 bytes at a time gave 20


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

    def head(self, n: int) -> Split:
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
        task: One of ``TASKS``, which are MedMNIST's.
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
        name: str | None = None,
        task: str | None = None,
        class_names: Sequence[str] | None = None,
    ) -> Dataset:
        """Your own images from a .npz file in MedMNIST's layout.

        The file holds six arrays. ``train_images``, ``val_images`` and ``test_images`` are uint8
        (N, S, S) or (N, S, S, 3), of any side S. ``train_labels``, ``val_labels`` and
        ``test_labels`` are whole numbers: the class, counted from 0, as (N,) or (N, 1); or, where
        several labels can be true, 0 and 1 as (N, L). All images of one patient belong in one
        split; ``from_folder`` says why. Arrays over 1 GiB are memory-mapped.

        Args:
            path: The file.
            name: Name of the data set; None takes the file's.
            task: One of ``TASKS``; None takes the one that fits the labels.
            class_names: Names of the classes in their order; None numbers them: "class 0", ...

        Returns:
            The three splits.

        Raises:
            SwysError: The file is missing or damaged, or its arrays are not as described.
        """
        path = Path(path).expanduser()
        if not path.is_file():
            raise SwysError(f"no file '{path}'; give a .npz in MedMNIST's layout")
        arrays = _read_npz(path)
        names = tuple(class_names or _numbered_classes(path, arrays["train_labels"]))
        info = _own_info(path, arrays, name or path.stem, task, names)
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
        all are grey, so is the data set. Subfolders ``train``, ``val`` and ``test`` with the class
        folders in them are the splits; otherwise each class is split at random.

        **Images of one patient belong in one split.** They look alike, so a model that is trained
        on some and tested on others is tested on what it has seen, and its score says little about
        a new patient. Say with ``groups`` which images belong together; no group is divided.
        Where groups differ much in size, the ``fractions`` are met only roughly.

        Args:
            path: The folder; it names the data set, its subfolders in sorted order the classes.
            size: Side of the images in the data set, in pixels.
            groups: "folder" for one subfolder a patient in each class (``class/patient/image.png``;
                one name in two classes is one patient), a mapping from file name to group, or a
                function from path to group. None: each image stands alone.
            fractions: Shares of the images for train, val and test.
            seed: The same seed makes the same splits.

        Raises:
            SwysError: No such folder; fewer than two classes; an image that cannot be read; a class
                with too few images or groups for three splits; a group in two of your own splits.
        """
        folder = Path(path).expanduser().resolve()
        content = _read_folder(folder, size, groups, fractions, seed)
        splits = {}
        for split in SPLITS:
            indices = np.flatnonzero(content.split_of == split)
            splits[split] = Split(content.images[indices], content.labels[indices])
        return cls(**splits, info=_folder_info(folder, content))


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
    return _checked(path, _read_npz(path), info)


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
    batch = to_planes(images, device)
    side = batch.shape[-1]
    if side != img_size:
        shrinks = side > img_size
        batch = F.interpolate(batch, size=(img_size, img_size), mode="bilinear", antialias=shrinks)
    return batch.expand(-1, 3, -1, -1)


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
    if tensor.dtype != torch.uint8 or tensor.ndim not in (3, 4):
        shape = tuple(tensor.shape)
        raise SwysError(f"images {tensor.dtype} {shape}; give uint8 (N, H, W) or (N, H, W, 3)")
    planes = tensor.unsqueeze(1) if tensor.ndim == 3 else tensor.permute(0, 3, 1, 2)
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
    return data, current, device


# Finding a file of MedMNIST


def _find_file(name: str, size: int, root: str | Path | None, download: bool) -> tuple[Path, str]:
    """The file of a data set, and what ``Info.source`` says of it."""
    suffix = "" if size == 28 else f"_{size}"
    file_name = f"{name}{suffix}.npz"
    url = INFO[name][f"url{suffix}"]
    for folder, place in _data_folders(root):
        path = folder / file_name
        if path.is_file():
            return path, f"real file {file_name} in {place}"
    problem = "download=False"
    if download:
        target = Path.home() / ".medmnist" / file_name
        try:
            _download(url, INFO[name][f"MD5{suffix}"], target)
            return target, f"downloaded {file_name}"
        except OSError as error:
            problem = f"download failed: {error}"
    if name == DEFAULT_DATASET and size == 28:
        print(f"No {file_name} on disk ({problem}).", file=sys.stderr)
        print(f"Using the {TWIN_SOURCE.upper()}.", file=sys.stderr)
        return TWIN, TWIN_SOURCE
    raise SwysError(
        f"no data for '{name}' at {size} px ({problem}); put {file_name} into a folder and set"
        f" SWYS_DATA_DIR to it (file: {url}), or use '{DEFAULT_DATASET}' at 28 px"
    )


def _data_folders(root: str | Path | None) -> Iterator[tuple[Path, str]]:
    """The folders to look for files in, each with its name in messages."""
    place = "root"
    if not root:
        root = os.environ.get("SWYS_DATA_DIR")
        place = "SWYS_DATA_DIR"
    if root:
        folder = Path(root).expanduser()
        if not folder.is_dir():
            way_out = "create it, or unset SWYS_DATA_DIR / root"
            raise SwysError(f"data folder '{folder}' does not exist; {way_out}")
        yield folder, place
    yield Path.home() / ".medmnist", "~/.medmnist"


def _download(url: str, md5: str, target: Path) -> None:
    """Fetch a file, with a second try; it gets its name only when its MD5 is right."""
    for last_try in (False, True):
        try:
            pooch.retrieve(url, f"md5:{md5}", target.name, target.parent, downloader=_fetch)
            return
        except (OSError, ValueError) as error:  # ValueError: the MD5 or a header is wrong
            if last_try:
                message = f"{url} - {error}".replace("\n", " ")
                raise OSError(message[:300]) from error


def _fetch(url: str, output_file: str, _pooch: Any) -> None:
    """Write what a server sends to a file, with a progress bar; takes what pooch gives."""
    started = time.monotonic()
    received = 0
    with requests.get(url, stream=True, timeout=TIMEOUT) as response:
        response.raise_for_status()
        total = int(response.headers.get("Content-Length", 0)) or None
        bar = tqdm(total=total, unit="B", unit_scale=True, delay=1)
        with bar, open(output_file, "wb") as file:
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
                received += len(chunk)
                seconds = time.monotonic() - started
                if received < LOWEST_SPEED * (seconds - TIMEOUT):
                    raise OSError(f"only {received} bytes in {seconds:.0f} s")


# Reading a .npz file in MedMNIST's layout


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    """The six arrays, labels as (N, columns); ``_checked`` looks at what they hold."""
    try:
        with zipfile.ZipFile(path) as zipped, np.load(path, allow_pickle=False) as archive:
            for member in zipped.infolist():
                if member.file_size > 2**26 + 200 * member.compress_size:
                    raise ValueError("far larger unpacked than packed")
            arrays = {}
            for split in SPLITS:
                labels = archive[f"{split}_labels"]
                arrays[f"{split}_labels"] = labels.reshape(len(labels), -1)
                key = f"{split}_images"
                arrays[key] = _image_array(path, key, zipped, archive)
            return arrays
    except Exception as error:  # for a damaged file zipfile and numpy raise a dozen kinds
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:160]
        message = f"'{path}' is damaged or no MedMNIST file ({reason}); replace or move it"
        if getattr(error, "errno", 0) in (errno.ENOSPC, errno.EROFS, errno.EACCES):
            message = f"cannot unpack '{path}' ({reason}); make room or set rights there"
        raise SwysError(message) from None


def _image_array(path: Path, key: str, zipped: zipfile.ZipFile, archive: Any) -> np.ndarray:
    """The array itself or, of a large one, a memory map.

    NumPy cannot map what lies in an .npz, so a large array is unpacked once, beside it.
    """
    member = zipped.getinfo(f"{key}.npy")
    if member.file_size <= MEMORY_LIMIT:
        return np.asarray(archive[key])  # without an .npy header NumPy gives bytes
    # The checksum is in the name, so a file that was replaced is unpacked again.
    cached = path.with_name(f"{path.stem}.{key}.{member.CRC:08x}.npy")
    if not cached.is_file():
        part = cached.with_suffix(f".{os.getpid()}.part")
        print(f"Unpacking {key} of {path.name} once, to read it memory-mapped ...", file=sys.stderr)
        try:
            with zipped.open(member) as source, open(part, "wb") as out:
                shutil.copyfileobj(source, out, 1 << 24)
            part.replace(cached)
        finally:
            part.unlink(missing_ok=True)
    return np.load(cached, mmap_mode="r")


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
            what = f"{split} is {found}, expected {expected}"
            raise SwysError(f"'{path}' is not {info.name} at {info.size} px: {what}")
        if labels.min() < 0 or labels.max() > highest:
            raise SwysError(f"'{path}' has {split} labels outside 0..{highest}; not {info.name}")
        labels = labels.astype(np.int64)
        splits[split] = Split(images, labels if info.multi_label else labels[:, 0])
    return Dataset(**splits, info=info)


def _own_info(
    path: Path,
    arrays: dict[str, np.ndarray],
    name: str,
    task: str | None,
    class_names: tuple[str, ...],
) -> Info:
    """What the reader says of a file and, for the rest, what its training images show."""
    if len(class_names) < 2:
        raise SwysError(f"'{path}' has {len(class_names)} class; a model needs two to tell apart")
    if task is None:
        several_columns = arrays["train_labels"].shape[1] > 1
        task = "multi-label, binary-class" if several_columns else _class_task(class_names)
    if task not in TASKS:
        raise SwysError(unknown("task", task, TASKS))
    image_shape = arrays["train_images"].shape[1:]
    return Info(
        name=name,
        size=image_shape[0] if image_shape else 0,
        task=task,
        class_names=class_names,
        channels=3 if len(image_shape) == 3 else 1,
        source=f"real file {path.name}",
        licence=OWN_LICENCE,
    )


def _class_task(class_names: Sequence[str]) -> str:
    """MedMNIST's word for the task where each image is of one of these classes."""
    return "binary-class" if len(class_names) == 2 else "multi-class"


def _numbered_classes(path: Path, labels: np.ndarray) -> list[str]:
    """Names for the classes of labels (N, columns) that have none."""
    columns = labels.shape[1]
    if columns > 1:
        return [f"class {column}" for column in range(columns)]
    if labels.dtype.kind not in "iu":
        raise SwysError(f"'{path}' has train labels of type {labels.dtype}; give whole numbers")
    numbers = np.unique(labels)
    if not np.array_equal(numbers, np.arange(len(numbers))):
        some = ", ".join(str(number) for number in numbers[:5])
        way_out = "number the classes 0, 1, 2, ..., or give class_names"
        raise SwysError(f"'{path}' has the train labels {some}; {way_out}")
    return [f"class {number}" for number in numbers]


# Reading a folder of images


class _FolderContent(NamedTuple):
    """N images of a folder: uint8 (N, S, S) or (N, S, S, 3), int64 (N,), and str (N,)."""

    class_names: tuple[str, ...]
    images: np.ndarray
    labels: np.ndarray
    split_of: np.ndarray


def _read_folder(
    folder: Path, size: int, groups: Groups, fractions: Sequence[float], seed: int
) -> _FolderContent:
    """Find the images, tell or draw their splits, then read them: mistakes show at once."""
    if size < 1:
        raise SwysError(f"image side {size}; give a number of pixels, such as 28")
    class_names, listed = _list_images(folder)
    labels = np.array([image.label for image in listed])
    split_of = np.array([image.split for image in listed])
    group_of = [_group(image, groups) for image in listed]
    if "" in split_of:
        split_of = _draw_splits(labels, group_of, fractions, seed)
    _check_groups(group_of, split_of)
    for label, class_name in enumerate(class_names):
        _check_class(class_name, split_of[labels == label])
    images = _read_images([image.path for image in listed], size)
    return _FolderContent(class_names, images, labels, split_of)


def _folder_info(folder: Path, content: _FolderContent) -> Info:
    """What the data set of a folder is."""
    return Info(
        name=folder.name,
        size=content.images.shape[1],
        task=_class_task(content.class_names),
        class_names=content.class_names,
        channels=1 if content.images.ndim == 3 else 3,
        source=f"folder {folder.name}",
        licence=OWN_LICENCE,
    )


class _ListedImage(NamedTuple):
    """An image in a folder; ``split`` is empty where the folder has no splits."""

    path: Path
    class_folder: Path
    label: int
    split: str


def _list_images(folder: Path) -> tuple[tuple[str, ...], list[_ListedImage]]:
    """The names of the classes, and all images in the order of split, class and path."""
    if not folder.is_dir():
        raise SwysError(f"no folder '{folder}'; give one that has one subfolder a class")
    present = [split for split in SPLITS if (folder / split).is_dir()]
    if len(present) in (1, 2):
        raise SwysError(f"'{folder}' has {' and '.join(present)}; it needs train, val and test")
    roots = {split: folder / split for split in present} or {"": folder}
    class_names = _subfolders(roots.get("train", folder))
    listed = []
    for split, root in roots.items():
        if _subfolders(root) != class_names:
            raise SwysError(f"'{root}' has other class folders than train; make them the same")
        for label, name in enumerate(class_names):
            for path in _image_paths(root / name):
                listed.append(_ListedImage(path, root / name, label, split))
    if not listed:
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        raise SwysError(f"'{folder}' has no images in its class folders; they end in {suffixes}")
    return class_names, listed


def _subfolders(folder: Path) -> tuple[str, ...]:
    """Sorted names of the class folders."""
    names = [path.name for path in folder.iterdir() if path.is_dir()]
    visible = sorted(name for name in names if not name.startswith("."))
    if len(visible) < 2:
        what = "a subfolder for each of two or more classes"
        raise SwysError(f"'{folder}' needs {what}; it has {len(visible)}")
    return tuple(visible)


def _image_paths(class_folder: Path) -> list[Path]:
    """The image files of a class, sorted, without hidden ones."""
    paths = []
    for path in sorted(class_folder.rglob("*")):
        inner = path.relative_to(class_folder).parts
        hidden = any(name.startswith(".") for name in inner)
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file() and not hidden:
            paths.append(path)
    return paths


def _group(image: _ListedImage, groups: Any) -> Hashable:
    """The group, such as a patient, whose image this is."""
    inner = image.path.relative_to(image.class_folder).parts
    if groups is None:
        if len(inner) > 1 and not image.split:
            way_out = "give groups='folder' if it is a patient's, else move its images up"
            raise SwysError(f"'{image.path}' is in a folder within its class; {way_out}")
        return image.path
    if groups == "folder":
        if len(inner) == 1:
            raise SwysError(f"'{image.path}' is in no patient's folder; put it into one")
        return inner[0]
    if callable(groups):
        return groups(image.path)
    if not isinstance(groups, Mapping):
        way_out = "give 'folder', a mapping of file names, or a function of the path"
        raise SwysError(f"unknown groups {groups!r}; {way_out}")
    if image.path.name not in groups:
        raise SwysError(f"groups has no '{image.path.name}'; give a group for each file name")
    return groups[image.path.name]


def _draw_splits(
    labels: np.ndarray, group_of: list[Hashable], fractions: Sequence[float], seed: int
) -> np.ndarray:
    """The split of each image, str (N,): alike in each class, and one for all images of a group.

    The groups of a class come in random order. Each goes to the split that is the farthest from
    its fraction of the images, so the first three fill one split each.
    """
    shares = np.array(fractions, dtype=float)
    adds_up = np.isclose(shares.sum(), 1)
    if len(shares) != 3 or shares.min() <= 0 or not adds_up:
        way_out = "give three positive numbers for train, val and test that add up to 1"
        raise SwysError(f"fractions {fractions}; {way_out}")
    images_of: dict[Hashable, list[int]] = {}
    for index, group in enumerate(group_of):
        images_of.setdefault(group, []).append(index)
    members = list(images_of.values())
    commonest = np.array([np.bincount(labels[indices]).argmax() for indices in members])
    generator = np.random.default_rng(seed)
    split_of = np.empty(len(labels), dtype="U5")
    for label in np.unique(commonest):
        filled = np.zeros(3)
        for number in generator.permutation(np.flatnonzero(commonest == label)):
            emptiest = int(np.argmin(filled / shares))
            filled[emptiest] += len(members[number])
            split_of[members[number]] = SPLITS[emptiest]
    return split_of


def _check_groups(group_of: list[Hashable], split_of: np.ndarray) -> None:
    """A SwysError where the folder's own splits divide a group."""
    seen: dict[Hashable, str] = {}
    for group, split in zip(group_of, split_of):
        first = seen.setdefault(group, split)
        if first != split:
            way_out = "move its images into one of them"
            raise SwysError(f"group '{group}' has images in {first} and in {split}; {way_out}")


def _check_class(class_name: str, split_of: np.ndarray) -> None:
    """A SwysError where a split has no image of a class; ``split_of`` is of the class's images."""
    for split in SPLITS:
        if split not in split_of:
            raise SwysError(
                f"class '{class_name}' has {len(split_of)} images, none of them in {split}; each"
                " split needs some, and no group (patient) is divided: add images or groups"
            )


def _read_images(paths: list[Path], size: int) -> np.ndarray:
    """uint8 (N, size, size), or (N, size, size, 3) where one of the images has colours."""
    images = [_read_image(path, size) for path in paths]
    mode = "L" if all(image.mode == "L" for image in images) else "RGB"
    return np.stack([np.asarray(image.convert(mode)) for image in images])


def _read_image(path: Path, size: int) -> Image.Image:
    """The central square of an image file, resized; its mode is L or RGB."""
    try:
        with Image.open(path) as image:
            eight_bit = _eight_bit(image)
        return _central_square(eight_bit).resize((size, size), Image.Resampling.BICUBIC)
    except Exception as error:  # Pillow raises a dozen kinds for a damaged file
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:160]
        raise SwysError(f"cannot read the image '{path}' ({reason}); replace it") from None


def _central_square(image: Image.Image) -> Image.Image:
    """The largest square around the centre."""
    side = min(image.size)
    left = (image.width - side) // 2
    top = (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _eight_bit(image: Image.Image) -> Image.Image:
    """The image in mode L if it is grey, else RGB."""
    if image.mode == "F":
        raise ValueError("floating-point pixels; save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits: Pillow would cut the values off at 255
        pixels = np.clip(np.asarray(image) // 256, 0, 255)
        return Image.fromarray(pixels.astype(np.uint8))
    is_grey = image.mode in ("1", "L")
    return image.convert("L" if is_grey else "RGB")
