"""The figure of a student that looks honest."""

import numpy as np
import pytest

from swys_figures.inherited import looks_honest

SWAPPED = {"honest": [0.9, 0.95], "cheat": [0.1], "student": [0.2, 0.4]}


@pytest.fixture
def axes():
    mask = np.zeros((28, 28), bool)
    mask[2:5, 2:5] = True
    maps = {"grad_cam": np.ones((4, 4)), "occlusion": np.eye(4)}
    figure = looks_honest(np.zeros((28, 28), np.uint8), mask, maps, SWAPPED)
    return figure.axes


def test_there_are_three_pictures_and_a_row_for_each_model(axes):
    assert [len(ax.images) for ax in axes] == [1, 1, 1, 0]
    assert [label.get_text() for label in axes[3].get_yticklabels()] == list(SWAPPED)


def test_each_picture_has_a_frame_around_the_mark(axes):
    assert [len(ax.patches) for ax in axes[:3]] == [1, 1, 1]


def test_models_that_rank_by_the_ring_are_red(axes):
    dots = [line for line in axes[3].lines if line.get_marker() == "o"]
    assert [line.get_color() for line in dots] == ["black", "#B00020", "#B00020"]


def test_each_seed_is_a_dot(axes):
    dots = [line for line in axes[3].lines if line.get_marker() == "o"]
    assert [list(line.get_xdata()) for line in dots] == list(SWAPPED.values())
