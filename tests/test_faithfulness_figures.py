"""Figures of extra 7."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from swys_figures import faithfulness as faithfulness_figures
from swys_utils.faithfulness import DeletionInsertion
from swys_utils.metrics import mean_interval

FRACTIONS = np.linspace(0, 1, 5)


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def curves(seed):
    rng = np.random.default_rng(seed)
    return DeletionInsertion(FRACTIONS, rng.random((6, 5)), rng.random((6, 5)))


def test_a_strip_shows_each_step_with_its_probability():
    image = np.zeros((28, 28), dtype=np.uint8)
    pictures = {name: torch.zeros(4, 3, 28, 28) for name in ("deletion", "insertion")}
    shares = {name: torch.tensor([0.9, 0.5, 0.25, 0.125]) for name in pictures}
    figure = faithfulness_figures.removal_strip(image, np.eye(7), pictures, shares)
    titles = [ax.get_title() for ax in figure.axes[:5]]
    assert titles == ["the map", "p = 0.90", "p = 0.50", "p = 0.25", "p = 0.12"]


def test_each_map_has_its_interval():
    scores = {"Grad-CAM": curves(0), "centred bump": curves(1), "random": curves(2)}
    figure = faithfulness_figures.curves_figure(scores)
    names = [text.get_text() for text in figure.axes[2].get_yticklabels()]
    assert names == list(scores)


def test_the_interval_of_a_map_is_that_of_its_mean_score():
    scores = {"Grad-CAM": curves(0), "random": curves(1)}
    ax = faithfulness_figures.curves_figure(scores).axes[2]
    for place, score in enumerate(scores.values()):
        interval, dot = ax.lines[2 * place : 2 * place + 2]
        mean, low, high = mean_interval(score.gap)
        assert list(interval.get_xdata()) == [low, high]
        assert list(dot.get_xdata()) == [mean]


def test_a_band_without_images_has_no_bar():
    rows = [
        {"predicted": "all", "confidence": "all", "images": 4, "empty": 3, "share": 0.75},
        {"predicted": "sick", "confidence": "low", "images": 4, "empty": 3, "share": 0.75},
        {"predicted": "sick", "confidence": "high", "images": 0, "empty": 0, "share": np.nan},
    ]
    (ax,) = faithfulness_figures.empty_figure("Base", rows).axes
    assert ax.get_title(loc="left") == "Base: 3 of 4 maps are empty"
    assert [bar.get_width() for bar in ax.patches] == [75]
