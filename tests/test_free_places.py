"""Words in a panel where no curve runs."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from swys_figures.free_places import curve_points, write_in_one, write_near


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    ax.set(xlim=(0, 10), ylim=(0, 1))
    yield ax
    plt.close(figure)


def test_points_of_a_curve_are_shares_of_the_panel(ax):
    ax.plot([0, 10], [0.5, 1.0])
    points = curve_points(ax)
    assert points.min(axis=0) == pytest.approx([0, 0.5])
    assert points.max(axis=0) == pytest.approx([1, 1])


def test_a_name_stands_right_of_an_end(ax):
    write_near(ax, "Tiny", (0.5, 0.5), np.zeros((0, 2)), "black")
    x, y = ax.texts[0].get_position()
    assert x > 0.5
    assert y == 0.5


def test_a_name_keeps_clear_of_a_curve(ax):
    ax.plot([5, 10], [0.5, 0.5])
    points = curve_points(ax)
    write_near(ax, "Tiny", (0.5, 0.5), points, "black")
    _, y = ax.texts[0].get_position()
    assert y != 0.5


def test_two_texts_keep_clear_of_each_other(ax):
    places = [(0.5, 0.5), (0.5, 0.9)]
    points = np.zeros((0, 2))
    for text in ("a", "b"):
        points = write_in_one(ax, text, places, points, "black")
    heights = [text.get_position()[1] for text in ax.texts]
    assert heights == [0.5, 0.9]
