"""Scores against medmnist's own evaluator, intervals and tests against their closed forms."""

from types import SimpleNamespace

import numpy as np
import pytest
from medmnist import Evaluator
from scipy import stats

from swys_studies.intervals import accuracy_interval
from swys_utils.config import SwysError
from swys_utils.data import load_dataset
from swys_utils.metrics import (
    Metrics,
    area_under_roc,
    bootstrap_interval,
    calibration_error,
    certainty,
    evaluate,
    is_correct,
    mcnemar,
    mean_interval,
    point_scores,
    probabilities,
    t_interval,
    wilson_interval,
)

NAMES = ["pneumoniamnist", "bloodmnist", "retinamnist", "chestmnist"]
BINARY = "binary-class"


def mean_difference(a, b):
    return a.mean() - b.mean()


# scores


@pytest.fixture(scope="module", params=NAMES)
def answers(request, drawn_data_dir):
    """Noisy logits for the test images of a data set, their labels and their task."""
    data = load_dataset(request.param, root=drawn_data_dir)
    labels = data.test.labels
    classes = data.info.num_classes
    right = labels if data.info.multi_label else np.eye(classes)[labels]
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(len(labels), classes))
    return SimpleNamespace(
        name=request.param,
        logits=noise + 1.5 * right,
        labels=labels,
        task=data.info.task,
    )


@pytest.fixture(scope="module")
def scores(answers):
    return evaluate(answers.logits, answers.labels, answers.task, n_resamples=20)


@pytest.fixture(scope="module")
def medmnist_scores(answers, drawn_data_dir):
    evaluator = Evaluator(answers.name, "test", root=drawn_data_dir)
    return evaluator.evaluate(probabilities(answers.logits, answers.task))


def test_accuracy_is_that_of_medmnist(scores, medmnist_scores):
    assert scores.accuracy == pytest.approx(medmnist_scores.ACC)


def test_auc_is_that_of_medmnist(scores, medmnist_scores):
    assert scores.auc == pytest.approx(medmnist_scores.AUC)


def test_every_image_has_an_answer(scores, answers):
    assert scores.n == len(answers.labels)
    assert scores.correct.shape == answers.labels.shape


def test_an_interval_holds_the_accuracy(scores):
    low, high = scores.accuracy_interval
    assert low < scores.accuracy < high


def test_an_interval_holds_the_auc(scores):
    low, high = scores.auc_interval
    assert low <= scores.auc <= high


def test_point_scores_are_those_with_intervals(scores, answers):
    point = point_scores(answers.logits, answers.labels, answers.task)
    assert point == {
        "accuracy": scores.accuracy,
        "auc": scores.auc,
        "ece": scores.ece,
    }


def test_one_image_is_enough(scores, answers):
    logits = answers.logits[:1]
    labels = answers.labels[:1]
    first = evaluate(logits, labels, answers.task, n_resamples=2)
    assert first.accuracy == scores.correct[0].mean()


def test_scores_print_with_their_intervals():
    scores = Metrics(
        accuracy=0.5,
        accuracy_interval=(0.4, 0.6),
        auc=0.75,
        auc_interval=(0.7, 0.8),
        ece=0.1,
        ece_interval=(0.05, 0.2),
        n=1,
        correct=np.array([True]),
    )
    accuracy = "accuracy 50.0% [40.0%, 60.0%]"
    assert str(scores) == f"{accuracy}  AUC 0.750 [0.700, 0.800]  ECE 0.100 [0.050, 0.200]"


def test_labels_of_another_shape_are_refused():
    logits = np.zeros((10, 2))
    labels = np.zeros((10, 1), int)
    with pytest.raises(SwysError, match=r"labels \(10, 1\) of predictions \(10, 2\)"):
        evaluate(logits, labels, BINARY)


@pytest.fixture
def confident():
    """Ten answers that are 90 % sure of class 1; six of them are right."""
    scores = np.tile([0.1, 0.9], (10, 1))
    labels = np.repeat([1, 0], [6, 4])
    return scores, labels


def test_calibration_error_is_confidence_minus_accuracy(confident):
    error = calibration_error(*confident)
    assert error == pytest.approx(0.9 - 0.6, abs=1e-6)


def test_the_most_probable_class_is_the_answer(confident):
    correct = is_correct(*confident)
    assert correct.tolist() == [True] * 6 + [False] * 4


def test_each_of_several_labels_is_an_answer():
    scores = np.array([[0.9, 0.4]])
    labels = np.array([[1, 1]])
    correct = is_correct(scores, labels)
    assert correct.tolist() == [[True, False]]


def test_an_area_without_a_second_class_is_undefined(confident):
    scores, _ = confident
    labels = np.ones(10, int)
    area = area_under_roc(labels, scores, BINARY)
    assert np.isnan(area)


# intervals


def test_wilson_interval_is_the_closed_form():
    correct = np.repeat([1, 0], [90, 10])
    n = 100
    z = stats.norm.ppf(0.975)
    shrink = 1 + z**2 / n
    centre = (0.9 + z**2 / (2 * n)) / shrink
    variance = 0.9 * 0.1 / n + z**2 / (4 * n**2)
    half = z * np.sqrt(variance) / shrink
    interval = wilson_interval(correct)
    assert interval == pytest.approx((centre - half, centre + half))


def test_t_interval_is_that_of_scipy():
    values = [0.1, 0.4, 0.2, 0.3]
    error = stats.sem(values)
    expected = stats.t.interval(0.95, df=3, loc=0.25, scale=error)
    assert t_interval(values) == pytest.approx(expected)


@pytest.fixture(scope="module")
def normal_values():
    return np.random.default_rng(0).normal(5, 2, 400)


def test_bootstrap_of_a_mean_is_near_the_normal_interval(normal_values):
    mean = normal_values.mean()
    half = 1.96 * 2 / np.sqrt(400)
    interval = bootstrap_interval(np.mean, normal_values)
    assert interval == pytest.approx((mean - half, mean + half), abs=0.01)


def test_bootstrap_resamples_its_arrays_together(normal_values):
    shifted = normal_values + 1
    interval = bootstrap_interval(mean_difference, shifted, normal_values)
    assert interval == pytest.approx((1, 1))


def test_bootstrap_of_an_undefined_statistic_is_undefined():
    values = np.arange(5)
    interval = bootstrap_interval(lambda values: np.nan, values)
    assert np.isnan(interval).all()


def test_bootstrap_leaves_out_resamples_where_the_statistic_is_undefined():
    def ones_or_undefined(values):
        return 1.0 if values.any() else np.nan

    values = np.array([0, 0, 0, 1])
    interval = bootstrap_interval(ones_or_undefined, values)
    assert interval == (1, 1)


def test_mean_interval_leaves_out_what_is_undefined(normal_values):
    values = np.append(normal_values, np.nan)
    assert mean_interval(values) == mean_interval(normal_values)


def test_mean_interval_is_the_bootstrap_of_the_mean(normal_values):
    mean, *interval = mean_interval(normal_values)
    low, high = bootstrap_interval(np.mean, normal_values)
    assert mean == normal_values.mean()
    assert interval == [low, high]


def test_few_values_have_a_mean_without_an_interval():
    mean, low, high = mean_interval([1, 2, 2, 3])
    assert mean == 2
    assert np.isnan([low, high]).all()


def test_no_value_has_no_mean():
    interval = mean_interval([np.nan])
    assert np.isnan(interval).all()


# the interval over seeds and images


def width(values) -> float:
    """Of the interval over the seeds and images of ``values``."""
    low, high = accuracy_interval(values)
    return high - low


@pytest.fixture(scope="module")
def equal_seeds():
    """Four runs that answer 500 images alike, 80 % of them rightly."""
    rng = np.random.default_rng(0)
    right = rng.random(500) < 0.8
    return np.tile(right, (4, 1))


WIDTH_OVER_IMAGES = 2 * 1.96 * np.sqrt(0.8 * 0.2 / 500)


def test_equal_seeds_leave_the_interval_over_images(equal_seeds):
    assert width(equal_seeds) == pytest.approx(WIDTH_OVER_IMAGES, rel=0.15)


def test_one_seed_has_the_interval_over_images(equal_seeds):
    assert width(equal_seeds[:1]) == pytest.approx(WIDTH_OVER_IMAGES, rel=0.15)


def test_seeds_that_differ_widen_the_interval(equal_seeds):
    rng = np.random.default_rng(0)
    rows = [rng.random(500) < accuracy for accuracy in (0.6, 0.75, 0.85, 1.0)]
    varied = np.stack(rows)
    assert width(varied) > 2 * width(equal_seeds)


def test_two_seeds_have_at_least_the_t_interval():
    means = [[0.8], [0.9]]
    values = np.repeat(means, 500, axis=1)
    half = 12.706 * 0.05  # t quantile of one degree of freedom, times the standard error
    interval = accuracy_interval(values)
    assert interval == pytest.approx((0.85 - half, 0.85 + half), abs=1e-3)


# a paired test


def test_mcnemar_is_the_binomial_test_of_the_discordant_answers():
    counts = [8, 2, 50]
    right_a = np.repeat([True, False, True], counts)
    right_b = np.repeat([False, True, True], counts)
    tail = stats.binom.pmf([8, 9, 10], n=10, p=0.5)
    p = mcnemar(right_a, right_b)
    assert p == pytest.approx(2 * tail.sum())


def test_mcnemar_of_equal_answers_is_one():
    right = np.repeat([True, False], [8, 2])
    assert mcnemar(right, right) == 1.0


def test_the_certainty_of_an_answer_is_that_of_the_class_it_names():
    scores = np.array([[0.3, 0.7], [0.6, 0.4]])
    sure, right = certainty(scores, np.array([1, 1]))
    assert sure.tolist() == [0.7, 0.6]
    assert right.tolist() == [True, False]


def test_of_several_labels_each_has_its_own_certainty():
    sure, right = certainty(np.array([[0.3, 0.7]]), np.array([[1, 0]]))
    assert sure.tolist() == [0.3, 0.7]
    assert right.tolist() == [True, False]


def test_a_certainty_that_rounds_to_1_has_no_bin_of_its_own():
    labels = np.array([1] * 40 + [0] * 10 + [1] * 50)
    errors = []
    for margin in (17, 18):
        logits = np.array([[0, margin]] * 50 + [[0, 3]] * 50, float)
        errors.append(calibration_error(probabilities(logits, "binary-class"), labels))
    assert errors[0] == pytest.approx(errors[1], abs=1e-4)
