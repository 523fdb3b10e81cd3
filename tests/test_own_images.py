"""A reader's own images, in a folder with one subfolder a class. (In a .npz file: test_own_npz.)"""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from swys_utils.config import SwysError
from swys_utils.data import SPLITS, Dataset, Split
from swys_utils.image_files import FolderContent, read_folder

from_folder = Dataset.from_folder


def save(path: Path, brightness: int) -> None:
    """Draw a grey image of 8 px, and make its folder."""
    save_image(path, Image.new("L", (8, 8), brightness))


def save_image(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def brightness(split: Split) -> list[int]:
    """What the tests know the images again by."""
    return split.images[:, 0, 0].tolist()


def per_class(split: Split) -> list[int]:
    """Number of images of each class."""
    return np.bincount(split.labels).tolist()


@pytest.fixture
def moles(tmp_path) -> Path:
    """Ten images of "benign" (brightness 0 to 9) and of "malign" (100 to 109)."""
    folder = tmp_path / "moles"
    for number in range(10):
        save(folder / "benign" / f"b{number}.png", number)
        save(folder / "malign" / f"m{number}.png", 100 + number)
    return folder


def test_a_folder_tells_what_it_is(moles):
    info = from_folder(moles).info
    assert info.name == "moles"
    assert info.size == 28
    assert info.channels == 1
    assert info.task == "binary-class"
    assert info.class_names == ("benign", "malign")
    assert info.source == "folder moles"
    assert info.licence == "own images"


def test_three_folders_are_a_task_of_several_classes(moles):
    for number in range(3):
        save(moles / "other" / f"{number}.png", 200)
    info = from_folder(moles).info
    assert info.task == "multi-class"
    assert info.class_names == ("benign", "malign", "other")


def test_the_folder_where_python_was_started_has_its_name(moles, monkeypatch):
    monkeypatch.chdir(moles)
    assert from_folder(".").info.name == "moles"


def test_an_image_is_labelled_by_its_folder(moles):
    train = from_folder(moles).train
    is_malign = [value >= 100 for value in brightness(train)]
    assert is_malign == (train.labels == 1).tolist()
    assert train.labels.dtype == np.int64


def test_each_image_is_in_one_split(moles):
    own = from_folder(moles)
    counts = Counter(brightness(own.train))
    counts.update(brightness(own.val))
    counts.update(brightness(own.test))
    assert len(counts) == 20
    assert set(counts.values()) == {1}


def test_each_class_is_split_in_the_same_way(moles):
    own = from_folder(moles)
    assert per_class(own.train) == [7, 7]
    assert per_class(own.val) == [1, 1]
    assert per_class(own.test) == [2, 2]


def test_a_rare_class_has_its_share_in_each_split(moles):
    for number in range(10, 100):
        save(moles / "benign" / f"b{number}.png", number)
    own = from_folder(moles)
    assert per_class(own.train) == [70, 7]
    assert per_class(own.val) == [10, 1]
    assert per_class(own.test) == [20, 2]


def test_three_images_of_a_class_are_enough(moles):
    for number in range(3):
        save(moles / "rare" / f"{number}.png", 200)
    own = from_folder(moles)
    assert per_class(own.val) == [1, 1, 1]


def test_other_fractions_make_other_splits(moles):
    own = from_folder(moles, fractions=(0.5, 0.2, 0.3))
    assert per_class(own.train) == [5, 5]
    assert per_class(own.val) == [2, 2]
    assert per_class(own.test) == [3, 3]


def test_the_same_seed_makes_the_same_splits(moles):
    first = from_folder(moles, seed=1)
    second = from_folder(moles, seed=1)
    assert brightness(first.train) == brightness(second.train)


def test_another_seed_makes_other_splits(moles):
    first = from_folder(moles, seed=1)
    second = from_folder(moles, seed=2)
    assert brightness(first.train) != brightness(second.train)


@pytest.fixture
def patients(tmp_path) -> Path:
    """Three images each of ten patients in two classes; brightness tells the patient."""
    folder = tmp_path / "patients"
    for number in range(10):
        for image in range(3):
            save(folder / "benign" / f"p{number}" / f"p{number}_{image}.png", number)
            save(folder / "malign" / f"q{number}" / f"q{number}_{image}.png", 100 + number)
    return folder


def patient_of(path: Path) -> str:
    return path.name.partition("_")[0]


def divided(own: Dataset) -> set[int]:
    """The patients with images in several splits."""
    train = set(brightness(own.train))
    val = set(brightness(own.val))
    test = set(brightness(own.test))
    return (train & val) | (train & test) | (val & test)


@pytest.mark.parametrize("seed", range(5))
def test_a_patient_who_has_a_folder_is_in_one_split(patients, seed):
    own = from_folder(patients, groups="folder", seed=seed)
    assert divided(own) == set()


def test_a_function_can_tell_the_patient(patients):
    own = from_folder(patients, groups=patient_of)
    assert divided(own) == set()


def test_images_that_stand_alone_divide_patients(patients):
    own = from_folder(patients, groups=str)
    assert divided(own) != set()


def test_patients_are_split_alike_in_each_class(patients):
    own = from_folder(patients, groups="folder")
    assert per_class(own.train) == [21, 21]
    assert per_class(own.val) == [3, 3]
    assert per_class(own.test) == [6, 6]


def test_a_patient_in_two_classes_is_in_one_split(patients):
    for image in range(3):
        save(patients / "malign" / "p0" / f"p0_{image}.png", 0)
    own = from_folder(patients, groups="folder")
    assert divided(own) == set()


def test_where_patients_differ_in_size_splits_have_about_their_shares(patients):
    for number in range(10):
        for image in range(3 + 4 * number):
            save(patients / "malign" / f"q{number}" / f"more_{image}.png", 100 + number)
    own = from_folder(patients, groups="folder")
    assert divided(own) == set()
    assert min(per_class(own.test)) >= 6


@pytest.fixture
def ready(tmp_path) -> Path:
    """A folder with the splits train, val and test: brightness 10, 20 and 30."""
    folder = tmp_path / "ready"
    for split, value in zip(SPLITS, (10, 20, 30)):
        for class_name in ("benign", "malign"):
            save(folder / split / class_name / "p" / "a.png", value)
    return folder


def test_a_folder_can_have_its_own_splits(ready):
    own = from_folder(ready)
    assert own.info.class_names == ("benign", "malign")
    assert brightness(own.train) == [10, 10]
    assert brightness(own.val) == [20, 20]
    assert brightness(own.test) == [30, 30]


def add_image(folder: Path, image: Image.Image, suffix: str = "png") -> None:
    """One more training image, the first one by its name."""
    save_image(folder / "train" / "benign" / f"A.{suffix}", image)


SUFFIXES = ["png", "PNG", "jpg", "jpeg", "bmp", "tif", "tiff"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_these_formats_are_read(ready, suffix):
    image = Image.new("L", (8, 8), 99)
    add_image(ready, image, suffix)
    own = from_folder(ready)
    assert brightness(own.train) == [99, 10, 10]


@pytest.mark.parametrize("name", ["A.txt", ".A.png", ".cache/A.png", "A.png/B.txt"])
def test_other_and_hidden_files_are_ignored(ready, name):
    path = ready / "train" / "benign" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"no image")
    own = from_folder(ready)
    assert brightness(own.train) == [10, 10]


def test_one_image_in_colour_makes_all_so(ready):
    colour = (1, 2, 3)
    image = Image.new("RGB", (8, 8), colour)
    add_image(ready, image)
    own = from_folder(ready)
    assert own.info.channels == 3
    assert own.train.images[0, 0, 0].tolist() == [1, 2, 3]
    assert own.train.images[1, 0, 0].tolist() == [10, 10, 10]


def test_16_bits_become_8(ready):
    pixels = np.full((8, 8), 0x1234, np.uint16)
    image = Image.fromarray(pixels)
    add_image(ready, image)
    own = from_folder(ready)
    assert own.info.channels == 1
    assert brightness(own.train) == [0x12, 10, 10]


def test_black_and_white_is_grey(ready):
    image = Image.new("1", (8, 8), 1)
    add_image(ready, image)
    own = from_folder(ready)
    assert own.info.channels == 1
    assert brightness(own.train) == [255, 10, 10]


@pytest.fixture
def noise() -> Image.Image:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (28, 28), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_an_image_of_the_right_size_stays_as_it_is(ready, noise):
    add_image(ready, noise)
    own = from_folder(ready)
    np.testing.assert_array_equal(own.train.images[0], np.asarray(noise))


def test_the_central_square_is_kept(ready):
    pixels = np.zeros((20, 60), np.uint8)
    pixels[:, 20:40] = 255
    image = Image.fromarray(pixels)
    add_image(ready, image)
    own = from_folder(ready)
    assert own.train.images[0].min() == 255


def test_images_are_resized(ready):
    own = from_folder(ready, size=64)
    assert own.train.images.shape == (2, 64, 64)
    assert own.info.size == 64


def test_the_content_of_a_folder_names_the_split_of_each_image(ready):
    content = read_folder(ready, 28, None, (), 0)
    assert isinstance(content, FolderContent)
    assert content.split_of.tolist() == ["train", "train", "val", "val", "test", "test"]


def refused(folder: Path, message: str, **options) -> None:
    with pytest.raises(SwysError, match=message) as caught:
        from_folder(folder, **options)
    assert "\n" not in str(caught.value)


def test_a_missing_folder_is_named(tmp_path):
    refused(tmp_path / "nowhere", "no folder '.*nowhere'; give one that has one subfolder a class")


def test_one_class_is_not_enough(moles):
    shutil.rmtree(moles / "malign")
    refused(moles, "needs a subfolder for each of two or more classes; it has 1")


def test_a_folder_without_images_is_one_line(tmp_path):
    for name in ("benign", "malign"):
        (tmp_path / name).mkdir()
    refused(tmp_path, "has no images in its class folders; they end in .bmp, .jpeg")


@pytest.mark.parametrize("content", [b"", b"no image"])
def test_an_image_that_cannot_be_read_is_named(moles, content):
    (moles / "benign" / "b3.png").write_bytes(content)
    refused(moles, "cannot read the image '.*b3.png' .UnidentifiedImageError.*; replace it")


def test_an_image_that_was_cut_off_is_named(moles, noise):
    path = moles / "benign" / "b3.png"
    noise.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:400])
    refused(moles, "cannot read the image '.*b3.png'")


def test_12_bits_in_16_are_refused_because_they_would_be_black(moles):
    save_image(moles / "benign" / "f.tif", Image.fromarray(np.full((8, 8), 4095, np.uint16)))
    refused(moles, "cannot read the image '.*f.tif' .*16 bits, of which 12 are used")


def test_floating_point_pixels_are_refused(moles):
    image = Image.new("F", (8, 8), 0.5)
    save_image(moles / "benign" / "f.tif", image)
    refused(moles, "cannot read the image '.*f.tif' .*save it with 8 or 16 bits")


def test_a_class_with_two_images_is_named(moles):
    for number in range(2):
        save(moles / "rare" / f"{number}.png", 0)
    refused(moles, "class 'rare' has 2 images, none of them in test; each split needs")


def test_a_class_with_two_patients_is_named(patients):
    for number in range(2, 10):
        shutil.rmtree(patients / "malign" / f"q{number}")
    refused(patients, "class 'malign' has 6 images, none of them in test", groups="folder")


def test_folders_in_a_class_have_to_be_explained(patients):
    refused(patients, "p0_0.png' is in a folder within its class; give groups='folder'")


def test_an_image_outside_of_the_patients_folders_is_named(patients):
    save(patients / "benign" / "stray.png", 0)
    refused(patients, "stray.png' is in no patient's folder", groups="folder")


def test_groups_of_another_kind_are_refused(moles):
    refused(
        moles,
        "unknown groups 'patient'; give 'folder', or a function",
        groups="patient",
    )


TWO = (0.8, 0.2)
NONE_FOR_VAL = (0.8, 0.0, 0.2)
TOO_MANY = (0.7, 0.2, 0.2)


@pytest.mark.parametrize("fractions", [TWO, NONE_FOR_VAL, TOO_MANY])
def test_fractions_have_to_be_three_that_add_up_to_1(moles, fractions):
    refused(
        moles,
        "give three positive numbers for train, val and test",
        fractions=fractions,
    )


def test_a_size_of_no_pixel_is_refused(moles):
    refused(moles, "image side 0; give a number of pixels", size=0)


def test_two_of_three_splits_are_not_taken_for_classes(ready):
    shutil.rmtree(ready / "val")
    refused(ready, "ready' has train and test; it needs train, val and test")


def test_own_splits_need_the_same_classes(ready):
    save(ready / "val" / "other" / "a.png", 0)
    refused(ready, "val' has other class folders than train")


def test_own_splits_must_not_divide_a_patient(ready):
    refused(ready, "group 'p' has images in train and in val", groups="folder")
