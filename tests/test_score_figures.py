"""How scores of several models are drawn."""

import numpy as np
import pytest

from swys_figures import scores as score_figures
from swys_utils.metrics import evaluate


@pytest.fixture
def score():
    logits = np.array(
        [
            [2.0, 0.0],
            [0.0, 2.0],
            [1.0, 0.0],
            [1.0, 0.0],
        ]
    )
    return evaluate(
        logits,
        np.array([0, 1, 0, 1]),
        "binary-class",
        n_resamples=20,
    )


def words(ax):
    return [text.get_text() for text in ax.texts]


def test_a_circle_for_each_run(score):
    runs = {"Base": [{"accuracy": 0.7, "auc": 0.8, "ece": 0.1}] * 3}
    figure = score_figures.scores_with_seeds({"Base": score}, runs)
    circles = figure.axes[0].lines[2]
    assert circles.get_xdata() == pytest.approx([70, 70, 70])


def test_the_bar_of_a_score_is_its_interval_in_percent(score):
    figure = score_figures.scores_with_seeds({"Base": score}, {})
    interval, point = figure.axes[0].lines[:2]
    assert interval.get_xdata() == pytest.approx([100 * end for end in score.accuracy_interval])
    assert point.get_xdata() == pytest.approx([100 * score.accuracy])


def test_a_model_without_other_runs(score):
    figure = score_figures.scores_with_seeds({"Base": score}, {})
    ax = figure.axes[0]
    assert len(ax.lines[2].get_xdata()) == 0
    assert words(ax) == ["our Base, 95 % interval"]


def test_a_score_can_be_left_out(score):
    runs = {"Base": [{"auc": 0.7}]}
    figure = score_figures.scores_with_seeds({"Base": score}, runs, ["auc"])
    (ax,) = figure.axes
    assert words(ax) == ["our Base, 95 % interval", "other seed"]


def test_curves_by_images_and_by_seconds():
    history = [{"images": 0, "seconds": 0, "auc": 0.5}, {"images": 8, "seconds": 2, "auc": 0.7}]
    figure = score_figures.curves_by({"Tiny": history}, 0.9)
    assert [ax.lines[0].get_xdata()[-1] for ax in figure.axes] == [8, 2]


def test_the_place_of_one_half_is_marked_for_each_run():
    sensitivity = np.array([1.0, 0.9, 0.5])
    specificity = np.array([0.2, 0.8, 1.0])
    figure = score_figures.roc_figure(
        {"Tiny": (sensitivity, specificity)},
        {"Tiny": (0.9, 0.8)},
        {"Tiny": [(0.95, 0.7)]},
    )
    ax = figure.axes[0]
    curve, seed, ours = ax.lines
    assert "other Tiny" in words(ax)
    assert "lower threshold" in words(ax)
    assert curve.get_xdata() == pytest.approx([80, 20, 0])
    assert seed.get_xdata() == pytest.approx([30])
    assert ours.get_xdata() == pytest.approx([20])


def test_the_more_false_alarms_of_one_of_two_models():
    curve = (np.array([1.0, 0.9]), np.array([0.2, 0.8]))
    at_half = {
        "Base": (0.9, 0.88),
        "Tiny": (0.92, 0.81),
    }
    figure = score_figures.roc_figure(
        dict.fromkeys(at_half, curve),
        at_half,
        {},
    )
    assert "7 more false alarms\nof 100 healthy" in words(figure.axes[0])


def test_a_panel_of_certainty_for_each_model():
    groups = np.array([[0.55, 0.9], [0.6, 0.8], [0.25, 0.75]])
    figure = score_figures.reliability_figure({"Base": groups, "Tiny": groups}, 20)
    titles = [ax.get_title("left") for ax in figure.axes]
    assert titles == ["Base\ncalibration error 0.087", "Tiny\ncalibration error 0.087"]
    (dots,) = figure.axes[0].collections[1:]
    assert list(dots.get_alpha()) == [0.3, 1]  # five answers, and fifteen
    line = figure.axes[0].lines[1]
    assert np.isnan(line.get_ydata()).tolist() == [True, False]
    assert dots.get_offsets().tolist() == [[0.55, 0.6], [0.9, 0.8]]


def test_curves_without_a_line_where_there_is_no_auc():
    history = [{"images": 8, "seconds": 2, "auc": 0.7}]
    figure = score_figures.curves_by({"Tiny": history}, np.nan)
    assert words(figure.axes[0]) == ["Tiny"]


def test_runs_of_more_than_two_classes_have_no_sensitivity():
    runs = {
        "Tiny": [
            {"recall": [0.8, 0.9]},
            {"recall": [0.1, 0.2, 0.3]},
            {"recall": None},
        ]
    }
    assert score_figures.recall_of_runs(runs) == {"Tiny": [(0.9, 0.8)]}


def test_a_histogram_says_how_many_sick_are_expected_and_how_many_there_are():
    probability = np.array([0.1, 0.3, 0.9, 0.7])
    sick = np.array([False, False, False, True])
    figure = score_figures.probability_histograms({"test": (probability, sick)}, "pneumonia")
    title = figure.axes[0].get_title(loc="left")
    assert "expects 50 of 100 sick, 25 are" in title
    heights = sum(abs(patch.get_height()) for patch in figure.axes[0].patches)
    assert heights == pytest.approx(100)


def test_of_several_labels_one_is_asked_about():
    correct = np.array([[True, False], [False, True]])
    assert score_figures.right_about(correct, 1).tolist() == [False, True]
    assert score_figures.right_about(correct[0], 1).tolist() == [True, False]
