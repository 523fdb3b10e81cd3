"""The images of a comparison: names, files, folders, arrays; read batch by batch."""

import numpy as np
import pytest
from PIL import Image

from swys.compared_images import from_arrays, open_images
from swys_utils.config import SwysError
from swys_utils.image_files import image_paths, read_image


@pytest.fixture
def folder(tmp_path):
    """Two classes with two images each, of other sizes and modes."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number, size in enumerate([(40, 30), (20, 20)]):
            pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    return tmp_path


def test_a_name_is_a_split_of_medmnist(drawn_data_dir, monkeypatch):
    monkeypatch.setenv("SWYS_DATA_DIR", str(drawn_data_dir))
    images = open_images("bloodmnist", "val")
    assert len(images) == 64
    assert len(images.class_names) == 8


def test_a_folder_of_class_folders_has_labels(folder):
    images = open_images(str(folder), size=16)
    assert images.labels.tolist() == [0, 0, 1, 1]
    assert images.class_names == ("cat", "dog")
    assert images.name(2) == "dog/0.png"


def test_a_folder_of_images_has_none(folder):
    images = open_images(str(folder / "cat"), size=16)
    assert images.labels is None
    assert len(images) == 2


def test_a_folder_with_splits_gives_the_split(folder, tmp_path):
    (tmp_path / "test").mkdir()
    (tmp_path / "cat").rename(tmp_path / "test" / "cat")
    assert len(open_images(str(tmp_path), size=16)) == 2


def test_folders_of_splits_by_other_names_are_no_classes(folder):
    (folder / "cat").rename(folder / "train")
    (folder / "dog").rename(folder / "valid")
    with pytest.raises(SwysError, match="train and valid; give one of them as --data"):
        open_images(str(folder), size=16)


def test_images_beside_an_empty_folder_are_told(folder):
    (folder / "cat" / "empty").mkdir()
    with pytest.raises(SwysError, match="has images, and folders without any"):
        open_images(str(folder / "cat"), size=16)


def test_image_files_are_read_when_they_are_asked_for(folder):
    images = open_images(str(folder), size=16)
    (folder / "dog" / "0.png").unlink()  # the third
    assert images.pictures[np.array([0, 3])].shape == (2, 16, 16, 3)


def test_image_files_can_be_read_at_another_size(folder):
    images = open_images(str(folder), size=16).read_at(24)
    assert next(images.batches()).shape == (4, 24, 24, 3)


def test_a_rectangle_is_cut_to_its_centre(folder):
    image = read_image(folder / "cat" / "0.png", 30)
    whole = Image.open(folder / "cat" / "0.png")
    assert np.array_equal(np.asarray(image), np.asarray(whole)[5:35])


@pytest.mark.parametrize("labelled", [True, False])
def test_an_npz_with_images_is_enough(labelled, tmp_path):
    arrays = {"images": np.zeros((3, 8, 8), np.uint8)}
    if labelled:
        arrays["labels"] = np.array([[0], [1], [0]])
    np.savez(tmp_path / "x.npz", **arrays)
    images = open_images(str(tmp_path / "x.npz"))
    assert (images.labels is not None) == labelled


def test_all_images_come_once(folder):
    arrays = np.zeros((150, 8, 8), np.uint8)
    assert sum(len(batch) for batch in from_arrays(arrays).batches()) == 150


@pytest.mark.parametrize(
    "name", ["nothing", "pnuemoniamnist", "", "no/folder", "README.md", "\0", "x" * 5000]
)
def test_data_that_is_not_there_is_one_line(name):
    with pytest.raises(SwysError) as error:
        open_images(name)
    assert "\n" not in str(error.value)


def test_a_folder_without_images_is_one_line(tmp_path):
    with pytest.raises(SwysError, match="no images"):
        open_images(str(tmp_path))


def test_a_damaged_image_is_one_line(folder):
    (folder / "cat" / "0.png").write_bytes(b"no image")
    with pytest.raises(SwysError, match="cat/0.png"):
        open_images(str(folder), size=8).pictures[np.array([0])]


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (np.zeros((2, 8, 8)), None),
        (np.zeros((2, 8, 9), np.uint8), None),
        (np.zeros((0, 8, 8), np.uint8), None),
        ("images", None),
        (np.zeros((2, 8, 8), np.uint8), np.array([0, -1])),
        (np.zeros((2, 8, 8), np.uint8), np.array([0.5, 1])),
        (np.zeros((2, 8, 8), np.uint8), np.array([0, 1, 1])),
    ],
)
def test_arrays_that_are_no_images_or_labels_are_one_line(images, labels):
    with pytest.raises(SwysError) as error:
        from_arrays(images, labels)
    assert "\n" not in str(error.value)


def test_a_label_beyond_the_names_is_one_line():
    with pytest.raises(SwysError, match="0 to 1"):
        from_arrays(np.zeros((2, 8, 8), np.uint8), np.array([0, 2]), ["a", "b"])


def test_splits_without_the_one_that_is_asked_for_are_no_classes(tmp_path, folder):
    (tmp_path / "cat").rename(tmp_path / "train")
    (tmp_path / "dog").rename(tmp_path / "val")
    with pytest.raises(SwysError, match="train and val, but no test; give --split train"):
        open_images(str(tmp_path), size=16)


def test_hidden_folders_in_a_class_do_not_count(folder):
    hidden = folder / "cat" / ".ipynb_checkpoints"
    hidden.mkdir()
    (folder / "cat" / "0.png").rename(hidden / "0.png")
    assert len(image_paths(folder / "cat")) == 1
    assert len(open_images(str(folder), size=16)) == 3


def test_medmnist_has_no_other_sizes():
    with pytest.raises(SwysError, match="unknown image size 100"):
        open_images("bloodmnist", size=100)
