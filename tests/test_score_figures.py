"""How scores of several models are drawn."""

import numpy as np
import pytest

from swys_figures import scores as score_figures
from swys_utils.metrics import evaluate


@pytest.fixture
def score():
    logits = np.array([[2.0, 0.0], [0.0, 2.0], [1.0, 0.0], [1.0, 0.0]])
    return evaluate(logits, np.array([0, 1, 0, 1]), "binary-class", n_resamples=20)


def test_a_circle_for_each_run(score):
    runs = {"Base": [{"accuracy": 0.7, "auc": 0.8, "ece": 0.1}] * 3}
    figure = score_figures.scores_with_seeds({"Base": score}, runs)
    circles = figure.axes[0].lines[2]
    assert circles.get_xdata() == pytest.approx([70, 70, 70])


def test_a_model_without_other_runs(score):
    figure = score_figures.scores_with_seeds({"Base": score}, {})
    assert len(figure.axes[0].lines[2].get_xdata()) == 0


def test_curves_by_images_and_by_seconds():
    history = [{"images": 0, "seconds": 0, "auc": 0.5}, {"images": 8, "seconds": 2, "auc": 0.7}]
    figure = score_figures.curves_by({"Tiny": history}, 0.9)
    assert [ax.lines[0].get_xdata()[-1] for ax in figure.axes] == [8, 2]


def test_the_best_threshold_is_marked():
    thresholds = np.array([0.2, 0.5, 0.8])
    curves = {
        "right answers": np.array([0.6, 0.7, 0.9]),
        "sick who are found": np.array([0.9, 0.7, 0.5]),
        "healthy left in peace": np.array([0.5, 0.7, 0.9]),
    }
    figure = score_figures.threshold_figure({"Tiny": curves}, thresholds)
    assert figure.axes[0].lines[1].get_xdata() == pytest.approx([0.8])


def test_a_panel_of_certainty_for_each_model():
    points = {"Base": ([0.1, 0.9], [0.2, 0.8]), "Tiny": ([0.1, 0.9], [0.1, 0.9])}
    figure = score_figures.reliability_figure(points)
    assert [ax.get_title("left") for ax in figure.axes] == ["Base", "Tiny"]


def test_curves_without_a_line_where_there_is_no_auc():
    history = [{"images": 8, "seconds": 2, "auc": 0.7}]
    figure = score_figures.curves_by({"Tiny": history}, np.nan)
    assert len(figure.axes[0].texts) == 1
