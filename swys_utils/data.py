"""MedMNIST from disk, from the network or from the embedded twin; and the way from uint8 to model input."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import time
import zipfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pooch
import torch
import torch.nn.functional as F
from medmnist.info import INFO
from tqdm import tqdm

from .config import Profile, SwysError, default_device, device_name, profile, unknown

DEFAULT_DATASET = "pneumoniamnist"
SIZES = (28, 64, 128, 224)
NAMES = tuple(name for name in INFO if not name.endswith("3d"))
TWIN = Path(__file__).parent / "assets" / f"{DEFAULT_DATASET}_twin.npz"
TWIN_SOURCE = "synthetic twin - not patients, numbers are illustrations"
MEMORY_LIMIT = 2**30  # bytes; larger image arrays are memory-mapped instead of loaded
TIMEOUT = 10  # seconds without an answer before a download try is given up


@dataclass(frozen=True, eq=False)
class Split:
    """One split: ``images`` uint8 (N, H, W) or (N, H, W, 3); ``labels`` int64 (N,), multi-label (N, L)."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def sample_indices(self, n: int) -> np.ndarray:
        """Positions int64 of at most ``n`` images (0: all), a fixed random sample in the original order."""
        count = min(n, len(self)) or len(self)
        return np.sort(np.random.default_rng(0).permutation(len(self))[:count])

    def take(self, rows: np.ndarray) -> Split:
        """The images at ``rows``, int (n,) or bool (N,)."""
        return Split(self.images[rows], self.labels[rows])

    def head(self, n: int) -> Split:
        """At most ``n`` images (0: all), a fixed random sample in the original order."""
        return self.take(self.sample_indices(n)) if 0 < n < len(self) else self


@dataclass(frozen=True)
class Info:
    """What a data set is; ``task`` is MedMNIST's: binary-class, multi-class, ordinal-regression, ..."""

    name: str
    size: int
    task: str
    class_names: tuple[str, ...]
    channels: int
    source: str
    licence: str

    @property
    def num_classes(self) -> int:
        """Classes, or labels of a multi-label task."""
        return len(self.class_names)

    @property
    def multi_label(self) -> bool:
        """Can several labels be true of one image?"""
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


def load_dataset(name=DEFAULT_DATASET, size: int = 28, root=None, download: bool = True) -> Dataset:
    """Load a 2D MedMNIST data set (Yang et al. 2023, https://doi.org/10.1038/s41597-022-01721-8).

    Looks in ``root`` (or ``SWYS_DATA_DIR``), then ``~/.medmnist``, then downloads there (MD5-checked); for
    the default data set at 28 px the embedded synthetic twin comes last. A file that is already on disk is
    taken as it is: it may be re-saved or a split of your own. Arrays over 1 GiB are memory-mapped.

    Raises SwysError: unknown name or size, damaged or foreign file, or no data to be had.
    """
    if name not in NAMES:
        raise SwysError(unknown("dataset", name, NAMES, "the 2D MedMNIST sets are"))
    if size not in SIZES:
        raise SwysError(f"unknown image size {size}; MedMNIST has {', '.join(map(str, SIZES))}")
    root, given = (root, "root") if root else (os.environ.get("SWYS_DATA_DIR"), "SWYS_DATA_DIR")
    root = root and Path(root).expanduser()
    if root and not Path(root).is_dir():
        raise SwysError(
            f"data folder '{root}' does not exist; create it, or unset SWYS_DATA_DIR / root"
        )
    suffix = "" if size == 28 else f"_{size}"
    file_name, url, md5 = (
        f"{name}{suffix}.npz",
        INFO[name]["url" + suffix],
        INFO[name]["MD5" + suffix],
    )
    home, problem = Path.home() / ".medmnist", "download=False"
    for folder, place in (
        (Path(root or home), given if root else "~/.medmnist"),
        (home, "~/.medmnist"),
    ):
        if (folder / file_name).is_file():
            return _read(folder / file_name, name, size, f"real file {file_name} in {place}")
    if download:
        try:
            return _read(
                _download(url, md5, home / file_name), name, size, f"downloaded {file_name}"
            )
        except OSError as error:
            problem = f"download failed: {error}"
    if name == DEFAULT_DATASET and size == 28:
        print(
            f"No {file_name} on disk ({problem}).\nUsing the {TWIN_SOURCE.upper()}.",
            file=sys.stderr,
        )
        return _read(TWIN, name, size, TWIN_SOURCE)
    raise SwysError(
        f"no data for '{name}' at {size} px ({problem}); put {file_name} into a folder and set SWYS_DATA_DIR"
        f" to it (file: {url}), or use '{DEFAULT_DATASET}' at 28 px"
    )


def single_labels(split: Split) -> np.ndarray:
    """One class an image, int64 (N,); of several labels the first true one, or -1 where none is."""
    if split.labels.ndim == 1:
        return split.labels
    return np.where(split.labels.any(axis=1), split.labels.argmax(axis=1), -1)


def to_model_input(
    images: np.ndarray | torch.Tensor, img_size: int = 28, device: torch.device | str | None = None
) -> torch.Tensor:
    """uint8 images to what the ViTs read.

    ``images``: uint8 (N, H, W) or (N, H, W, 3), NumPy or torch, on any device. ``img_size``: side S, px.
    Returns float32 (N, 3, S, S) in [-1, 1]: grey repeated, x / 127.5 - 1, bilinear resize.
    """
    batch = to_planes(images, device)
    if batch.shape[-1] != img_size:
        shrinks = batch.shape[-1] > img_size
        batch = F.interpolate(batch, size=(img_size, img_size), mode="bilinear", antialias=shrinks)
    return batch.expand(-1, 3, -1, -1)


def to_planes(
    images: np.ndarray | torch.Tensor, device: torch.device | str | None = None
) -> torch.Tensor:
    """uint8 (N, H, W[, 3]) to float32 (N, 1 or 3, H, W) in [-1, 1] at the stored size."""
    tensor = torch.as_tensor(np.array(images) if isinstance(images, np.ndarray) else images)
    if tensor.dtype != torch.uint8 or tensor.ndim not in (3, 4):
        raise SwysError(
            f"images {tensor.dtype} {tuple(tensor.shape)}; give uint8 (N, H, W) or (N, H, W, 3)"
        )
    tensor = tensor.unsqueeze(1) if tensor.ndim == 3 else tensor.permute(0, 3, 1, 2)
    return tensor.to(device).float() / 127.5 - 1


def notebook_setup(
    name: str = DEFAULT_DATASET, size: int = 28
) -> tuple[Dataset, Profile, torch.device]:
    """Load the data and print versions, profile, device and source: the first cell of every notebook."""
    current, device, data = profile(), default_device(), load_dataset(name, size)
    versions = " | ".join(
        f"{package} {version(package)}" for package in ("torch", "timm", "medmnist")
    )
    print(f"{versions} | {device.type}: {device_name(device)}, {torch.get_num_threads()} threads")
    sizes = " / ".join(f"{len(getattr(data, split))} {split}" for split in ("train", "val", "test"))
    facts = f"{data.info.source} | {data.info.licence}"
    print(
        f"profile {current.name} ({current.what})\ndata    {name}, {size} px: {sizes}\nsource  {facts}"
    )
    return data, current, device


class _Patience(tqdm):
    """The progress bar of a download; raises OSError below 1,000 bytes a second, after TIMEOUT."""

    def __bool__(
        self,
    ) -> bool:  # tqdm is false where the server names no length, and pooch would not ask it
        return True

    def update(self, n: int = 1) -> None:
        super().update(n)
        if not self.disable and self.n < 1000 * (time.time() - self.start_t - TIMEOUT):
            raise OSError(f"only {self.n} bytes in {time.time() - self.start_t:.0f} s")


def _download(url: str, md5: str, target: Path) -> Path:
    """Fetch with a progress bar and a second try; the file gets its name only when its MD5 is right."""
    for last_try in (False, True):
        with _Patience(total=1, unit="B", unit_scale=True, delay=1) as bar:  # pooch sets the total
            get = pooch.HTTPDownloader(bar, chunk_size=256, timeout=TIMEOUT)
            try:
                return Path(
                    pooch.retrieve(url, f"md5:{md5}", target.name, target.parent, downloader=get)
                )
            except (OSError, ValueError) as error:  # ValueError: the MD5 or a header is wrong
                if last_try:
                    raise OSError(f"{url} - {error}"[:300].replace("\n", " ")) from error


def _read(path: Path, name: str, size: int, source: str) -> Dataset:
    facts, splits = INFO[name], {}
    classes = tuple(facts["label"].values())
    info = Info(name, size, facts["task"], classes, facts["n_channels"], source, facts["license"])
    try:
        with zipfile.ZipFile(path) as zipped, np.load(path, allow_pickle=False) as archive:
            if any(part.file_size > 2**26 + 200 * part.compress_size for part in zipped.infolist()):
                raise ValueError("far larger unpacked than packed")
            for split in ("train", "val", "test"):
                labels = archive[f"{split}_labels"]
                labels = labels.reshape(len(labels), -1)
                splits[split] = Split(_images(path, f"{split}_images", zipped, archive), labels)
    except (
        Exception
    ) as error:  # for a damaged or hostile file zipfile and numpy raise a dozen kinds
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:160]
        if getattr(error, "errno", 0) in (errno.ENOSPC, errno.EROFS, errno.EACCES):
            raise SwysError(
                f"cannot unpack '{path}' ({reason}); make room or set rights there"
            ) from None
        raise SwysError(
            f"'{path}' is damaged or no MedMNIST file ({reason}); replace or move it"
        ) from None
    for split, part in splits.items():
        shape = (size, size) if info.channels == 1 else (size, size, 3)
        expected = (np.uint8, shape, True, (info.num_classes if info.multi_label else 1,))
        whole = part.labels.dtype.kind in "iu"
        found = (part.images.dtype, part.images.shape[1:], whole, part.labels.shape[1:])
        if found != expected or not len(part) == len(part.labels) > 0:
            raise SwysError(
                f"'{path}' is not {name} at {size} px: {split} is {found}, expected {expected}"
            )
        if part.labels.min() < 0 or part.labels.max() >= (
            2 if info.multi_label else info.num_classes
        ):
            raise SwysError(
                f"'{path}' has {split} labels outside 0..{info.num_classes - 1}; not {name}"
            )
        labels = part.labels.astype(np.int64)
        splits[split] = Split(part.images, labels if info.multi_label else labels[:, 0])
    return Dataset(**splits, info=info)


def _images(path: Path, key: str, zipped: zipfile.ZipFile, archive) -> np.ndarray:
    """The array, or, when large, a memory map of a cached .npy beside the .npz (NumPy maps no .npz)."""
    member = zipped.getinfo(f"{key}.npy")
    if member.file_size <= MEMORY_LIMIT:
        return np.asarray(archive[key])  # bytes, where the header is none
    cached = path.with_name(
        f"{path.stem}.{key}.{member.CRC:08x}.npy"
    )  # another file has another name
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
