"""The rise of the calibration error: its interval on cases whose truth is known."""

import numpy as np
import pytest

from swys import calibration
from swys.calibration import error_by_chance, image_differences, rise_of_calibration_error
from swys_utils.metrics import calibration_error


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(calibration, "RESAMPLES", 60)


def shares(log_odds):
    """Probabilities of two classes, (N, 2)."""
    of_one = 1 / (1 + np.exp(-log_odds))
    return np.stack([1 - of_one, of_one], axis=1)


def drawn(count, seed):
    """Log-odds, and labels for which they are exactly right."""
    rng = np.random.default_rng(seed)
    log_odds = rng.normal(0.7, 2.2, count)
    labels = (rng.random(count) < shares(log_odds)[:, 1]).astype(int)
    return log_odds, labels


def over_sure(log_odds):
    """The same answers with too much confidence."""
    return shares(1.4 * log_odds)


def true_rise():
    """In each bin the over-sure model is right as often as the other, and surer."""
    log_odds, _ = drawn(400_000, seed=99)
    surer = over_sure(log_odds).max(axis=1) - shares(log_odds).max(axis=1)
    return surer.mean()


def test_two_equal_models_differ_by_nothing():
    log_odds, labels = drawn(624, seed=0)
    estimate = rise_of_calibration_error(shares(log_odds), shares(log_odds), labels)
    assert estimate.value == 0
    assert -0.01 < estimate.low < 0 < estimate.high < 0.01


def test_rounding_leaves_the_interval_short():
    log_odds, labels = drawn(624, seed=0)
    rounded = shares(np.round(log_odds, 2))
    estimate = rise_of_calibration_error(shares(log_odds), rounded, labels)
    assert estimate.high - estimate.low < 0.03


def test_the_interval_contains_the_true_rise():
    truth = true_rise()
    contained = 0
    widths = []
    for seed in range(20):
        log_odds, labels = drawn(624, seed)
        estimate = rise_of_calibration_error(shares(log_odds), over_sure(log_odds), labels)
        contained += estimate.low <= truth <= estimate.high
        widths.append(estimate.high - estimate.low)
    assert contained >= 18  # of a bootstrap alone about six
    assert np.mean(widths) < 0.1


def test_a_better_calibrated_model_is_seen_in_the_same_way():
    log_odds, labels = drawn(624, seed=3)
    rise = rise_of_calibration_error(shares(log_odds), over_sure(log_odds), labels)
    fall = rise_of_calibration_error(over_sure(log_odds), shares(log_odds), labels)
    assert fall.value == pytest.approx(-rise.value)
    assert fall.low == pytest.approx(-rise.high, abs=0.01)
    assert fall.high == pytest.approx(-rise.low, abs=0.01)


def test_chance_alone_gives_a_perfect_model_this_error():
    errors = []
    by_chance = []
    for seed in range(200):
        log_odds, labels = drawn(300, seed)
        errors.append(calibration_error(shares(log_odds), labels))
        by_chance.append(error_by_chance(shares(log_odds), labels))
    assert np.mean(by_chance) == pytest.approx(np.mean(errors), rel=0.1)


def test_images_are_apart_by_confidence_and_by_being_right():
    a = np.array([[0.2, 0.8], [0.4, 0.6]])
    b = np.array([[0.3, 0.7], [0.6, 0.4]])
    np.testing.assert_allclose(image_differences(a, b, np.array([1, 1])), [0.1, 1.0])


def test_several_labels_are_answers_of_their_own():
    labels = np.array([[1, 0], [0, 1]])
    a = np.array([[0.9, 0.2], [0.1, 0.8]])
    b = np.array([[0.7, 0.2], [0.1, 0.4]])
    np.testing.assert_allclose(image_differences(a, b, labels), [0.1, 0.2])
    assert rise_of_calibration_error(a, b, labels).value == pytest.approx(0.15)
