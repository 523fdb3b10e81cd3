"""Intervals and paired tests: what turns a difference between two numbers into a finding, or into noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats


def wilson_interval(correct: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of an accuracy (Wilson 1927).

    Args:
        correct: (N,) bool or 0/1, one entry an image.

    Returns:
        (low, high) as fractions in [0, 1].
    """
    correct = np.asarray(correct)
    interval = stats.binomtest(int(correct.sum()), len(correct)).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_interval(
    statistic: Callable[..., float],
    *arrays: np.ndarray,
    n_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of ``statistic(*arrays)``, resampling images (Efron & Tibshirani 1993).

    All arrays share their first axis (images) and are resampled together, so that a difference between two
    models is a *paired* comparison. Resamples on which the statistic is undefined (nan) are left out.

    Returns:
        (low, high) in the statistic's own unit.
    """
    arrays = tuple(np.asarray(a) for a in arrays)
    rng = np.random.default_rng(seed)
    n = len(arrays[0])
    values = []
    for _ in range(n_resamples):
        rows = rng.integers(0, n, n)
        values.append(statistic(*(a[rows] for a in arrays)))
    if np.isnan(values).all():
        return float("nan"), float("nan")
    tail = 100 * (1 - confidence) / 2
    low, high = np.nanpercentile(values, [tail, 100 - tail])
    return float(low), float(high)


def t_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Student's t interval for the mean of a few independent runs (Student 1908), at least two.

    Resampling a handful of runs would give too narrow an interval; this one assumes nearly normal values.
    """
    half = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * stats.sem(values)
    return float(np.mean(values) - half), float(np.mean(values) + half)


def mcnemar(correct_a: np.ndarray, correct_b: np.ndarray) -> float:
    """Exact McNemar test that two classifiers have the same error rate on the same images (McNemar 1947).

    Args:
        correct_a, correct_b: (N,) bool, in the same order of images.

    Returns:
        Two-sided p value; 1.0 when the two never differ.
    """
    a, b = np.asarray(correct_a, bool), np.asarray(correct_b, bool)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    if only_a + only_b == 0:
        return 1.0
    return float(stats.binomtest(only_a, only_a + only_b, 0.5).pvalue)
