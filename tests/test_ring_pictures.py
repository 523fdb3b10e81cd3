"""The picture of a worn map, which `tools/ring_pictures.py` draws."""

import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from swys_figures.data import MARK
from swys_figures.obedience import OBEDIENCE
from swys_utils.shipped_results import planted_units

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
from ring_pictures import draw_worn, start_most_often_found  # noqa: E402

NAMES = (
    "the cheat",
    "the student",
    "its honest teacher",
)


@pytest.fixture(scope="module")
def figure():
    rng = np.random.default_rng(0)
    image = rng.integers(
        0,
        256,
        (28, 28),
        dtype=np.uint8,
    )
    mask = np.zeros((28, 28), bool)
    mask[1:4, 1:4] = True
    maps = {}
    for name in NAMES:
        maps[name] = {
            "grad_cam": rng.random((7, 7)),
            "occlusion": rng.random((7, 7)) - 0.5,
        }
    maps["the student"]["grad_cam"] = np.zeros((7, 7))
    return draw_worn(image, mask, maps, [0.92, 0.4, 0.02])


def test_each_map_has_one_frame_around_the_ring_also_an_empty_one(figure):
    axes = np.reshape(figure.axes, (2, 4))
    for ax in axes[:, 1:].ravel():
        (frame,) = ax.patches
        assert frame.get_xy() == (-0.5, -0.5)
        assert frame.get_edgecolor()[:3] == to_rgb(MARK)


def test_below_each_model_stands_how_many_the_ring_turns(figure):
    below = np.reshape(figure.axes, (2, 4))[1, 1:]
    labels = [ax.xaxis.label for ax in below]
    assert [label.get_text() for label in labels] == ["92%", "40%", "2%"]
    shades = [label.get_color() for label in labels]
    assert shades == list(OBEDIENCE.values())


def test_the_start_of_the_picture_is_row_4_of_the_table_in_extra_14():
    assert start_most_often_found(planted_units()) == 3
