"""Files of images as plain arrays: found, downloaded, unpacked from .npz, read from a folder."""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
import zipfile
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pooch
import requests
from PIL import Image, ImageOps
from tqdm import tqdm

from .config import SwysError, reason_of, replacing

SPLITS = ("train", "val", "test")
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}
Groups = str | Callable[[Path], Hashable] | None

# A download is given up when no byte comes for TIMEOUT seconds, or when it is slower than
# LOWEST_SPEED on the whole, the first TIMEOUT seconds left out. The speed is looked at after each
# chunk, so at the lowest speed a chunk has to arrive well within TIMEOUT.
TIMEOUT = 10
LOWEST_SPEED = 1000  # bytes a second
CHUNK = 4096  # bytes; from a local server 150 MB a second, where 256 bytes at a time gave 20


def data_folders(root: str | Path | None) -> Iterator[tuple[Path, str]]:
    """The folders to look for files in.

    Args:
        root: The folder the reader gives; None takes the environment's ``SWYS_DATA_DIR``.

    Yields:
        Each folder, with its name in messages; ``~/.medmnist`` comes last.

    Raises:
        SwysError: There is no such folder.
    """
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


def download_file(url: str, md5: str, target: Path) -> None:
    """Fetch a file, with a second try; it gets its name only when its MD5 is right.

    Args:
        url: Its address.
        md5: Its MD5.
        target: Its place on disk.

    Raises:
        OSError: It could not be had, or is not the right one.
    """
    pooch.get_logger().setLevel("WARNING")  # it would name a path on every page
    for last_try in (False, True):
        try:
            pooch.retrieve(url, f"md5:{md5}", target.name, target.parent, downloader=_fetch)
            return
        except (OSError, ValueError) as error:  # ValueError: the MD5 or a header is wrong
            if last_try:
                offline = isinstance(error, requests.ConnectionError)
                message = f"{url} - {'no connection' if offline else error}"
                raise OSError(message.replace("\n", " ")[:300]) from error


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


def read_npz(path: Path, memory_limit: int) -> dict[str, np.ndarray]:
    """The six arrays of a file in MedMNIST's layout, whatever they hold.

    Args:
        path: The file.
        memory_limit: Number of bytes; larger image arrays are memory-mapped, not loaded.

    Returns:
        ``train_images``, ``train_labels``, ... as they are, labels as (N, columns).

    Raises:
        SwysError: The file is damaged, or one of the arrays is missing.
    """
    try:
        with zipfile.ZipFile(path) as zipped, np.load(path, allow_pickle=False) as archive:
            for member in zipped.infolist():
                if member.file_size > 2**26 + 200 * member.compress_size:
                    raise ValueError("far larger unpacked than packed")
            arrays = {}
            for split in SPLITS:
                labels = archive[f"{split}_labels"]
                arrays[f"{split}_labels"] = labels.reshape(len(labels), math.prod(labels.shape[1:]))
                key = f"{split}_images"
                arrays[key] = _image_array(path, key, zipped, archive, memory_limit)
            return arrays
    except SwysError:  # a large array could not be unpacked
        raise
    except Exception as error:  # for a damaged file zipfile and numpy raise a dozen kinds
        reason = reason_of(error, with_kind=True)
        raise SwysError(
            f"'{path}' is damaged or no MedMNIST file ({reason}); replace or move it"
        ) from None


def _image_array(
    path: Path, key: str, zipped: zipfile.ZipFile, archive: Any, memory_limit: int
) -> np.ndarray:
    """The array itself or, of a large one, a memory map.

    NumPy cannot map what lies in an .npz, so a large array is unpacked once, beside it.
    """
    member = zipped.getinfo(f"{key}.npy")
    if member.file_size <= memory_limit:
        return np.asarray(archive[key])  # without an .npy header NumPy gives bytes
    # The checksum is in the name, so a file that was replaced is unpacked again.
    cached = path.with_name(f"{path.stem}.{key}.{member.CRC:08x}.npy")
    if not cached.is_file():
        print(f"Unpacking {key} of {path.name} once, to read it memory-mapped ...", file=sys.stderr)
        with zipped.open(member) as source, replacing(cached) as part, open(part, "wb") as out:
            shutil.copyfileobj(source, out, 1 << 24)
    return np.load(cached, mmap_mode="r")


# Reading a folder of images


class FolderContent(NamedTuple):
    """N images of a folder: uint8 (N, S, S) or (N, S, S, 3), int64 (N,), and str (N,)."""

    class_names: tuple[str, ...]
    images: np.ndarray
    labels: np.ndarray
    split_of: np.ndarray


def read_folder(
    folder: Path, size: int, groups: Groups, fractions: Sequence[float], seed: int
) -> FolderContent:
    """Find the images, tell or draw their splits, then read them: mistakes show at once.

    Args:
        folder: The folder, with class subfolders as ``Dataset.from_folder`` describes them.
        size: Side of the images in pixels.
        groups: Which images belong together.
        fractions: Shares of the images for train, val and test.
        seed: The same seed makes the same splits.

    Raises:
        SwysError: The folder, or another value, is not as described there.
    """
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
    return FolderContent(class_names, images, labels, split_of)


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
            for path in image_paths(root / name):
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


def image_paths(class_folder: Path) -> list[Path]:
    """The image files in a folder and below, sorted, without hidden ones; links are followed."""
    paths = []
    seen = set()
    root = os.path.realpath(class_folder)
    for folder, subfolders, names in os.walk(class_folder, followlinks=True):
        real_folder = os.path.realpath(folder)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        leads_above = root.startswith(os.path.join(real_folder, ""))
        if real_folder in seen or leads_above:  # a link leads back
            subfolders.clear()
            continue
        seen.add(real_folder)
        for name in names:
            path = Path(folder, name)
            if path.suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):
                paths.append(path)
    return sorted(paths)


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
    if not callable(groups):
        raise SwysError(f"unknown groups {groups!r}; give 'folder', or a function of the path")
    return groups(image.path)


def _draw_splits(
    labels: np.ndarray, group_of: list[Hashable], fractions: Sequence[float], seed: int
) -> np.ndarray:
    """The split of each image, str (N,): alike in each class, and one for all images of a group.

    The groups of a class come in random order. Each goes to the split that has the smallest part of
    the images it should have, so that the first three groups go to three different splits. A group
    with images of several classes counts for its commonest class.
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
    """uint8 (N, size, size), or (N, size, size, 3) where one file is not stored as grey."""
    images = [read_image(path, size) for path in paths]
    mode = "L" if all(image.mode == "L" for image in images) else "RGB"
    return np.stack([np.asarray(image.convert(mode)) for image in images])


def read_image(path: Path, size: int) -> Image.Image:
    """The central square of an image file, resized.

    Args:
        path: The file.
        size: Side of the result in pixels.

    Returns:
        The image, in mode L if it is grey, else RGB.

    Raises:
        SwysError: The file is damaged, or has several pages.
    """
    try:
        with Image.open(path) as image:
            pages = getattr(image, "n_frames", 1)
            if image.format == "TIFF" and pages > 1:
                raise ValueError(f"{pages} pages; save each as an image")
            upright = ImageOps.exif_transpose(image)  # photos of telephones are stored turned
            eight_bit = _eight_bit(upright)
        return _central_square(eight_bit).resize((size, size), Image.Resampling.BICUBIC)
    except Exception as error:  # Pillow raises a dozen kinds for a damaged file
        reason = reason_of(error, with_kind=True)
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
        pixels = np.asarray(image)
        if 0 < pixels.max() < 4096:
            raise ValueError("16 bits, of which 12 are used; scale its values to 8 or 16 bits")
        pixels = np.clip(pixels // 256, 0, 255)
        return Image.fromarray(pixels.astype(np.uint8))
    is_grey = image.mode in ("1", "L", "LA")
    return image.convert("L" if is_grey else "RGB")
