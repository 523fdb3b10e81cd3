"""Folders of picture files, as far as test_own_images does not say it."""

import numpy as np
import pytest
from PIL import ExifTags, Image

from swys_utils.config import SwysError
from swys_utils.data import Dataset
from swys_utils.image_files import image_paths, read_image


@pytest.fixture
def folder(tmp_path):
    """Two classes of ten grey images each, which have an alpha channel."""
    for name in ("healthy", "ill"):
        (tmp_path / name).mkdir()
        for number in range(10):
            pixels = np.full((30, 30, 2), 20 * number, dtype=np.uint8)
            Image.fromarray(pixels, mode="LA").save(tmp_path / name / f"{number}.png")
    return tmp_path


def test_grey_images_with_alpha_are_grey(folder):
    assert Dataset.from_folder(folder).info.channels == 1


def test_a_folder_in_a_class_may_be_a_link(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (folder / "ill" / "3.png").rename(elsewhere / "3.png")
    (folder / "ill" / "patient").symlink_to(elsewhere)
    assert len(image_paths(folder / "ill")) == 10


def test_a_link_that_leads_back_is_not_followed_for_ever(folder):
    (folder / "ill" / "again").symlink_to(folder / "ill")
    assert len(image_paths(folder / "ill")) == 10


def test_a_link_to_a_folder_above_brings_no_other_class(folder):
    (folder / "ill" / "up").symlink_to(folder)
    assert len(image_paths(folder / "ill")) == 10


def test_a_link_to_nothing_is_named(folder):
    (folder / "ill" / "A.png").symlink_to(folder / "nothing.png")
    with pytest.raises(SwysError, match="cannot read the image '.*A.png'"):
        Dataset.from_folder(folder)


def test_a_photo_is_turned_as_its_file_says(tmp_path):
    pixels = np.zeros((8, 8), np.uint8)
    pixels[:4] = 255
    quarter_turn = Image.Exif()
    quarter_turn[ExifTags.Base.Orientation] = 6  # show it turned to the right
    path = tmp_path / "photo.jpg"
    Image.fromarray(pixels).save(path, exif=quarter_turn)
    image = np.asarray(read_image(path, 8))
    assert image[:, 4:].min() > 200
    assert image[:, :4].max() < 50


def test_a_file_of_several_pages_is_refused(tmp_path):
    page = Image.new("L", (8, 8))
    path = tmp_path / "pages.tif"
    page.save(path, save_all=True, append_images=[page])
    with pytest.raises(SwysError, match="2 pages; save each as an image"):
        read_image(path, 8)
