"""Data files of strangers: whatever they hold, a load gives data or one line, and nothing else."""

import errno
import io
import zipfile

import numpy as np
import pytest
import torch
from fuzz import FUZZ, worked_or_one_line
from hypothesis import given
from hypothesis import strategies as st

from swys_utils.config import SwysError
from swys_utils.data import load_dataset, to_model_input


def npz(arrays: dict) -> bytes:
    """An .npz of arrays, or of raw bytes where a value is bytes."""
    file = io.BytesIO()
    whole = {key: part for key, part in arrays.items() if not isinstance(part, bytes)}
    np.savez_compressed(file, **whole)
    with zipfile.ZipFile(file, "a") as archive:
        for key, part in arrays.items():
            if isinstance(part, bytes):
                archive.writestr(f"{key}.npy", part)
    return file.getvalue()


def header(shape: str, dtype: str = "|u1") -> bytes:
    """The start of an .npy, with no data after it."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    line = text.ljust(117).encode() + b"\n"
    length = len(line).to_bytes(2, "little")
    return b"\x93NUMPY\x01\x00" + length + line


SHAPES = [
    "(10**12,)",
    "(1000000000000,)",
    "(True, 28, 28)",
    "(-1,)",
    "()",
    "(4, 28, 28",
    f"({'9' * 20},)",
]
DTYPES = ["|O", "<M8[s]", "<c16", "|S9", "<f8", "x", "|b1", "<u2"]
VALUES = [0.9, 1 + 5j, 7, -1, object(), np.datetime64("2020-01-01")]
PARTS = [
    *[header(shape) for shape in SHAPES],
    *[header("(4, 1)", dtype) for dtype in DTYPES],
    *[np.full((4, 1), value) for value in VALUES],
    b"",
    b"x" * 200,
    np.zeros((4, 28, 28), bool),
    np.zeros((0, 28, 28), np.uint8),
    np.zeros((4, 28, 28, 3), np.uint8),
    np.zeros(4, [("a", int)]),
    np.array(3),
]
RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (3, 4, 28, 28), dtype=np.uint8)
LABELS = np.array([0, 1, 0, 1], np.uint8)[:, None]
ARRAYS = {
    "train_images": NOISE[0],
    "train_labels": LABELS,
    "val_images": NOISE[1],
    "val_labels": LABELS,
    "test_images": NOISE[2],
    "test_labels": LABELS,
}


def write_and_load(folder, content: bytes) -> bool:
    """Whether these bytes are a data set, in the view of ``load_dataset``."""
    (folder / "pneumoniamnist.npz").write_bytes(content)
    return worked_or_one_line(load_dataset, root=folder)


@given(
    key=st.sampled_from(sorted(ARRAYS)),
    part=st.sampled_from(PARTS) | st.binary(max_size=200),
)
@FUZZ
def test_any_array_in_an_npz(tmp_path_factory, key, part, faults):
    faults("fuzz: any .npz", 1)
    content = npz(ARRAYS | {key: part})
    assert not write_and_load(tmp_path_factory.getbasetemp(), content)


@given(at=st.integers(0, 10**4), byte=st.integers(0, 255))
@FUZZ
def test_any_byte_of_an_npz(tmp_path_factory, at, byte, faults):
    faults("fuzz: any .npz", 1)
    content = bytearray(npz(ARRAYS))
    content[at % len(content)] = byte
    write_and_load(tmp_path_factory.getbasetemp(), bytes(content))


@given(length=st.integers(0, 10**4))
@FUZZ
def test_any_beginning_of_an_npz(tmp_path_factory, length, faults):
    faults("fuzz: any .npz", 1)
    content = npz(ARRAYS)
    beginning = content[: length % len(content)]
    assert not write_and_load(tmp_path_factory.getbasetemp(), beginning)


def test_a_bomb_is_not_unpacked(tmp_path):
    bomb = np.zeros((200_000, 28, 28), np.uint8)
    path = tmp_path / "pneumoniamnist.npz"
    path.write_bytes(npz(ARRAYS | {"train_images": bomb}))
    message = "is damaged or no MedMNIST file .*far larger unpacked"
    with pytest.raises(SwysError, match=message):
        load_dataset(root=tmp_path)


@pytest.fixture
def small_memory(monkeypatch):
    """Arrays of more than 1,000 bytes are unpacked beside the file and read from disk."""
    monkeypatch.setattr("swys_utils.data.MEMORY_LIMIT", 1000)


def test_a_swapped_file_is_unpacked_anew(tmp_path, small_memory):
    path = tmp_path / "pneumoniamnist.npz"
    path.write_bytes(npz(ARRAYS))
    load_dataset(root=tmp_path)
    path.write_bytes(npz(ARRAYS | {"train_images": NOISE[1]}))
    mapped = load_dataset(root=tmp_path).train.images
    assert isinstance(mapped, np.memmap)
    expected = to_model_input(NOISE[1])
    torch.testing.assert_close(to_model_input(mapped), expected, rtol=0, atol=0)


def test_a_full_disk_leaves_nothing_behind(tmp_path, small_memory, monkeypatch):
    def disk_is_full(*args):
        raise OSError(errno.ENOSPC, "No space left")

    path = tmp_path / "pneumoniamnist.npz"
    path.write_bytes(npz(ARRAYS))
    monkeypatch.setattr("swys_utils.image_files.shutil.copyfileobj", disk_is_full)
    with pytest.raises(SwysError, match="cannot write"):
        load_dataset(root=tmp_path)
    assert list(tmp_path.iterdir()) == [path]
