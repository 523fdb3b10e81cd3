"""By how much the calibration error rises, with an interval that knows how the error is biased.

The calibration error of a sample is too high, because chance moves the share of right answers in
each bin, and absolute values do not cancel. A well calibrated model suffers most. So the bootstrap
interval of the rise from such a model to another lies too low, and is too narrow.
"""

from __future__ import annotations

import numpy as np

from swys_utils.metrics import (
    CALIBRATION_BINS,
    bootstrap_interval,
    calibration_error,
    certainty,
)

from .verdicts import Estimate, not_narrower

RESAMPLES = 300


def rise_of_calibration_error(
    scores_a: np.ndarray, scores_b: np.ndarray, labels: np.ndarray
) -> Estimate:
    """The calibration error of B minus that of A, on the same images.

    Each end of the bootstrap interval is moved outwards by ``error_by_chance`` of the model whose
    bias would hide it. But the error hardly rises by more than the models differ image by image, so
    for two models with nearly the same answers the interval stays short. (By simulation it contains
    the true rise in 94 % of the cases or more, see RESEARCH_LOG.md.)

    Args:
        scores_a: probabilities of A, (N, C).
        scores_b: probabilities of B, (N, C).
        labels: int (N,), or 0/1 (N, C) of several labels.

    Returns:
        The estimate, a difference of fractions.
    """

    def rise(labels: np.ndarray, scores_a: np.ndarray, scores_b: np.ndarray) -> float:
        return calibration_error(scores_b, labels) - calibration_error(scores_a, labels)

    low, high = bootstrap_interval(rise, labels, scores_a, scores_b, n_resamples=RESAMPLES)
    low -= error_by_chance(scores_b, labels)
    high += error_by_chance(scores_a, labels)
    _, furthest = bootstrap_interval(np.mean, image_differences(scores_a, scores_b, labels))
    interval = (max(low, -furthest), min(high, furthest))
    return not_narrower(rise(labels, scores_a, scores_b), interval, len(labels), span=1)


def error_by_chance(scores: np.ndarray, labels: np.ndarray) -> float:
    """The calibration error to expect of so many images if these probabilities were perfect.

    The number of right answers in a bin would have the variance of independent draws, and of a
    normal deviation the mean absolute value is the square root of 2 / pi.

    Args:
        scores: probabilities (N, C).
        labels: int (N,), or 0/1 (N, C) of several labels.

    Returns:
        A fraction.
    """
    confidence, _ = certainty(scores, labels)
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    variance = np.bincount(bins, weights=confidence * (1 - confidence))
    return float(np.sqrt(2 / np.pi) * np.sqrt(variance).sum() / len(confidence))


def image_differences(scores_a: np.ndarray, scores_b: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How far two models are apart on each image: in confidence, and in being right.

    Args:
        scores_a: probabilities of A, (N, C).
        scores_b: probabilities of B, (N, C).
        labels: int (N,), or 0/1 (N, C) of several labels.

    Returns:
        float (N,), from 0 to 2. Its mean is the largest change of the error that is possible while
        no image changes its bin; those that do mostly cancel.
    """
    confidence_a, right_a = certainty(scores_a, labels)
    confidence_b, right_b = certainty(scores_b, labels)
    apart = np.abs(confidence_a - confidence_b) + (right_a != right_b)
    return apart.reshape(len(labels), -1).mean(axis=1)
