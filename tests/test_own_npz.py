"""A reader's own images, in a .npz file. (In a folder: test_own_images.)"""

from pathlib import Path

import numpy as np
import pytest

from swys_utils import data as data_module
from swys_utils.config import SwysError
from swys_utils.data import SPLITS, Dataset
from swys_utils.image_files import read_npz

from_npz = Dataset.from_npz


@pytest.fixture
def own_arrays() -> dict[str, np.ndarray]:
    """Of three classes, in colour, of 20 px."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in zip(SPLITS, (6, 3, 4)):
        shape = (count, 20, 20, 3)
        arrays[f"{split}_images"] = rng.integers(0, 256, shape, dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(count) % 3
    return arrays


@pytest.fixture
def npz(tmp_path, own_arrays):
    """``npz(key=array)``: the path of a file with these arrays, the others as they are."""

    def write(**changes: np.ndarray) -> Path:
        path = tmp_path / "moles.npz"
        np.savez(path, **(own_arrays | changes))
        return path

    return write


@pytest.mark.parametrize("split", SPLITS)
def test_an_own_file_gives_its_images_and_labels(npz, own_arrays, split):
    part = getattr(from_npz(npz()), split)
    np.testing.assert_array_equal(part.images, own_arrays[f"{split}_images"])
    np.testing.assert_array_equal(part.labels, own_arrays[f"{split}_labels"])
    assert part.labels.dtype == np.int64


def test_an_own_file_tells_what_it_is(npz):
    info = from_npz(npz()).info
    assert info.name == "moles"
    assert info.size == 20
    assert info.channels == 3
    assert info.task == "multi-class"
    assert info.class_names == ("class 0", "class 1", "class 2")
    assert info.source == "real file moles.npz"
    assert info.licence == "own images"


def test_the_reader_can_name_the_classes(npz):
    names = ["small", "middle", "large", "huge"]
    assert from_npz(npz(), class_names=names).info.class_names == tuple(names)


def test_own_labels_of_two_classes_are_a_binary_task(npz, own_arrays):
    for split in SPLITS:
        own_arrays[f"{split}_labels"] %= 2
    assert from_npz(npz()).info.task == "binary-class"


def test_own_images_can_be_grey(npz, own_arrays):
    for split in SPLITS:
        own_arrays[f"{split}_images"] = own_arrays[f"{split}_images"][..., 0]
    assert from_npz(npz()).info.channels == 1


def test_own_labels_may_be_a_column_as_medmnist_has_them(npz, own_arrays):
    for split in SPLITS:
        own_arrays[f"{split}_labels"] = own_arrays[f"{split}_labels"][:, None]
    assert from_npz(npz()).val.labels.tolist() == [0, 1, 2]


def test_several_columns_of_own_labels_are_several_labels(npz, own_arrays):
    for split in SPLITS:
        columns = np.eye(3, dtype=int)
        own_arrays[f"{split}_labels"] = columns[own_arrays[f"{split}_labels"]]
    own = from_npz(npz())
    assert own.info.task == "multi-label, binary-class"
    assert own.info.class_names == ("class 0", "class 1", "class 2")
    assert own.train.labels.shape == (6, 3)


def test_large_own_images_are_memory_mapped(npz, own_arrays, monkeypatch):
    monkeypatch.setattr(data_module, "MEMORY_LIMIT", 1000)
    images = from_npz(npz()).train.images
    assert isinstance(images, np.memmap)
    np.testing.assert_array_equal(images, own_arrays["train_images"])


def test_an_own_file_is_read_as_it_is(npz, own_arrays):
    arrays = read_npz(npz(), 2**30)
    assert arrays["val_labels"].tolist() == [[0], [1], [2]]
    np.testing.assert_array_equal(arrays["val_images"], own_arrays["val_images"])


def refused(path: Path, message: str, **options) -> None:
    with pytest.raises(SwysError, match=message) as caught:
        from_npz(path, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["images", "labels"])
@pytest.mark.parametrize("split", SPLITS)
def test_a_missing_array_is_named(npz, own_arrays, split, kind):
    key = f"{split}_{kind}"
    del own_arrays[key]
    refused(npz(), key)


WRONG_TRAIN_LABELS = {
    "train labels 1, 2, 3; number the classes 0, 1, 2": [1, 2, 3, 1, 2, 3],
    "train labels 0.0, 0.5, 1.0, 2.0; number the classes": [0, 1, 2, 0, 1, 0.5],
    "has 1 class; a model needs two": [0, 0, 0, 0, 0, 0],
    "is not moles at 20 px: train": [0, 1, 2, 0, 1],
}


@pytest.mark.parametrize("message, labels", WRONG_TRAIN_LABELS.items())
def test_own_train_labels_that_do_not_fit_are_refused(npz, message, labels):
    refused(npz(train_labels=np.array(labels)), message)


WRONG_VAL_LABELS = {
    r"val labels outside 0\.\.2, and 3 classes; mend the labels": [0, 1, 3],
    r"moles.npz' has val labels outside 0": [0, 1, -1],
    "is not moles at 20 px: val": ["a", "b", "c"],
    "is damaged or no MedMNIST file": 3,
}


@pytest.mark.parametrize("message, labels", WRONG_VAL_LABELS.items())
def test_own_labels_unlike_those_of_train_are_refused(npz, message, labels):
    refused(npz(val_labels=np.array(labels)), message)


OBLONG = (6, 20, 21, 3)
FOUR_CHANNELS = (6, 20, 20, 4)
NO_IMAGE = ()


@pytest.mark.parametrize("shape", [OBLONG, FOUR_CHANNELS, NO_IMAGE])
def test_own_train_images_of_another_shape_are_refused(npz, shape):
    images = np.zeros(shape, np.uint8)
    refused(npz(train_images=images), r"is not moles at \d+ px: train")


def test_an_empty_split_is_told_as_one(npz):
    images = np.zeros((0, 20, 20, 3), np.uint8)
    labels = np.zeros(0, int)
    refused(npz(val_images=images, val_labels=labels), "val has images .*N > 0")


def test_the_shape_that_is_wanted_can_be_read(npz):
    images = np.zeros((6, 20, 20, 1), np.uint8)
    refused(npz(train_images=images), r"give uint8 \(N, 20, 20\)")


@pytest.mark.parametrize("shape", [(4, 20, 20), (4, 24, 24, 3)])
def test_own_images_unlike_those_of_train_are_refused(npz, shape):
    images = np.zeros(shape, np.uint8)
    refused(npz(test_images=images), "is not moles at 20 px: test")


def test_a_missing_own_file_is_named(tmp_path):
    refused(tmp_path / "moles.npz", "no file '.*moles.npz'; give a .npz")


def test_a_damaged_own_file_is_refused(npz):
    path = npz()
    path.write_bytes(path.read_bytes()[:500])
    refused(path, "moles.npz' is damaged or no MedMNIST file")
