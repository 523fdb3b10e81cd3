"""Files of results: read, written by one process at a time, or added to by several."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from swys_utils.config import PROJECT_ROOT, SwysError, write_json
from swys_utils.data import Dataset

RUNS = PROJECT_ROOT / "runs"
FILE_NAME = re.compile(r"\S+\.npz")  # in a data set's source, beside the folder it lay in


class Entries:
    """A result that several processes add to: a JSON file with a list of entries that have ids.

    Attributes:
        path: the file; none is the same as one without entries.
        key: under which it has the list.
        lock: held while it is written.
    """

    def __init__(self, path: Path, key: str):
        self.path = path
        self.key = key
        self.lock = result_lock(path)

    def read(self) -> list[dict]:
        """The entries that are there so far."""
        if not self.path.is_file():
            return []
        return read_json(self.path)[self.key]

    def add(self, entry: dict) -> None:
        """Write the file with one entry more.

        Args:
            entry: an older one with its id is replaced.
        """
        with FileLock(self.lock):
            others = [other for other in self.read() if other["id"] != entry["id"]]
            write_json(self.path, {self.key: [*others, entry]})

    def add_once(
        self,
        entry_id: str,
        turn: Path,
        measure: Callable[[], dict],
        is_complete: Callable[[dict], bool] = lambda entry: True,
    ) -> bool:
        """Measure an entry and add it, unless that is done or another process does it.

        Args:
            entry_id: of the entry.
            turn: the lock that is held meanwhile.
            measure: returns what the entry says beside the id.
            is_complete: whether a known entry need not be measured anew; default: none need be.

        Returns:
            Whether the entry is there now. It is not where another process measures it.
        """
        with held(turn) as mine:
            if not mine:
                print(f"{entry_id} is trained by another process")
                return False
            known = [entry for entry in self.read() if entry["id"] == entry_id]
            if any(is_complete(entry) for entry in known):
                print(f"{entry_id} is done")
            else:
                print(f"{entry_id} ...", flush=True)
                self.add({"id": entry_id} | measure())
        return True

    def train_once(self, run_id: str, state_path: Path, train: Callable[[], dict]) -> None:
        """``add_once`` for a training that goes on after a kill.

        Args:
            run_id: of the entry.
            state_path: of the unfinished run; removed at the end, and where a kill left it.
            train: as ``measure`` of ``add_once``.
        """
        if self.add_once(run_id, Path(f"{state_path}.lock"), train):
            state_path.unlink(missing_ok=True)


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Keep other processes from measuring into a result that is written whole, again and again.

    Args:
        path: the result.

    Raises:
        SwysError: another process measures into it.
    """
    with held(result_lock(path)) as mine:
        if not mine:
            raise SwysError(f"another process measures into '{path}'; wait for it")
        yield


@contextmanager
def held(path: Path) -> Iterator[bool]:
    """Hold a lock, unless another process does; yields whether it is held now.

    Args:
        path: of the lock.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def result_lock(path: Path) -> Path:
    """The lock of a result, in runs/: two files never share one, wherever they are.

    Args:
        path: the result.
    """
    place = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:8]
    return RUNS / f"{path.parent.name}.{path.stem}.{place}.lock"


def read_json(path: Path) -> Any:
    """The content of a result of an earlier run.

    Args:
        path: a JSON file.

    Raises:
        SwysError: it is damaged.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError
        way_out = "restore it with git, or remove it to measure anew"
        raise SwysError(f"'{path}' is damaged ({error}); {way_out}") from None


def is_of_same_images(stored: Mapping, data: Dataset) -> bool:
    """Whether a result was measured on as many test images of the same file, wherever it lay.

    Args:
        stored: the result, with ``images`` and ``source``.
        data: of today.
    """
    files = [FILE_NAME.findall(source) for source in (stored["source"], data.info.source)]
    return stored["images"] == len(data.test) and files[0] == files[1]


def with_another(before: str, name: str) -> str:
    """The devices, or the weights, of a result that was measured in several sessions.

    Args:
        before: names of what was measured before, separated by commas; "" where nothing was.
        name: of what is measured now.
    """
    known = before.split(", ") if before else []
    return before if name in known else ", ".join([*known, name])


def images_digest(images: np.ndarray) -> str:
    """What tells images from others in the name of a file: the beginning of their SHA-256.

    Args:
        images: uint8, of any shape.
    """
    return hashlib.sha256(images.tobytes()).hexdigest()[:8]
