"""Folders of picture files, as far as test_own_images does not say it."""

import numpy as np
import pytest
from PIL import Image

from swys_utils.data import Dataset


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
