"""Scores with intervals, and paired tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from medmnist.evaluator import getAUC
from scipy import stats
from scipy.special import expit, softmax
from torchmetrics.functional.classification import (
    binary_calibration_error,
    multiclass_calibration_error,
)

from .config import SwysError

Interval = tuple[float, float]  # (low, high)
PERCENTILES = [2.5, 97.5]  # the middle 95 %
CALIBRATION_BINS = 15
MIN_RESAMPLED = 5  # of fewer values a bootstrap interval is far too narrow


@dataclass(frozen=True)
class Metrics:
    """Scores on n images, as fractions in [0, 1]; intervals are (low, high), 95 %.

    Attributes:
        accuracy: share of right answers; of several labels, mean over images and labels.
        accuracy_interval: of the accuracy.
        auc: area under the ROC curve, mean over classes or labels.
        auc_interval: of the area.
        ece: expected calibration error.
        ece_interval: of the calibration error.
        n: number of images.
        correct: bool (N,), or (N, L) of L labels.
    """

    accuracy: float
    accuracy_interval: Interval
    auc: float
    auc_interval: Interval
    ece: float
    ece_interval: Interval
    n: int
    correct: np.ndarray = field(repr=False, compare=False)

    def __str__(self) -> str:
        low, high = self.accuracy_interval
        accuracy = f"accuracy {self.accuracy:.1%} [{low:.1%}, {high:.1%}]"
        low, high = self.auc_interval
        auc = f"AUC {self.auc:.3f} [{low:.3f}, {high:.3f}]"
        low, high = self.ece_interval
        ece = f"ECE {self.ece:.3f} [{low:.3f}, {high:.3f}]"
        return f"{accuracy}  {auc}  {ece}"


def evaluate(
    logits: np.ndarray,
    labels: np.ndarray,
    task: str,
    n_resamples: int = 500,
) -> Metrics:
    """Accuracy and AUC as ``medmnist.Evaluator`` computes them, ECE, and their 95 % intervals.

    Accuracy's interval is Wilson's (of several labels: bootstrap over images); AUC's and ECE's are
    bootstrap over images. With few images an ECE is too high, which its interval does not mend; and
    the interval of AUC is too narrow where a class has but a few.

    Args:
        logits: float (N, C).
        labels: int (N,), or 0/1 (N, C) of several labels.
        task: MedMNIST's name of it, for example ``binary-class``.
        n_resamples: number of bootstrap resamples.

    Returns:
        The scores.

    Raises:
        SwysError: labels of another shape.
    """
    point = point_scores(logits, labels, task)
    scores = probabilities(logits, task)
    correct = is_correct(scores, labels)
    interval = partial(bootstrap_interval, n_resamples=n_resamples)
    area = partial(area_under_roc, task=task)
    multi_label = labels.ndim == 2
    return Metrics(
        accuracy=point["accuracy"],
        accuracy_interval=interval(np.mean, correct) if multi_label else wilson_interval(correct),
        auc=point["auc"],
        auc_interval=interval(area, labels, scores),
        ece=point["ece"],
        ece_interval=interval(calibration_error, scores, labels),
        n=len(labels),
        correct=correct,
    )


def point_scores(logits: np.ndarray, labels: np.ndarray, task: str) -> dict[str, float]:
    """Accuracy, AUC and ECE without intervals.

    Args:
        logits: float (N, C).
        labels: int (N,), or 0/1 (N, C) of several labels.
        task: MedMNIST's name of it.

    Returns:
        ``accuracy``, ``auc`` and ``ece``, fractions.

    Raises:
        SwysError: labels of another shape.
    """
    if labels.shape not in (logits.shape, logits.shape[:1]):
        raise SwysError(
            f"labels {labels.shape} of predictions {logits.shape}; give (N,), or (N, L) of several"
        )
    scores = probabilities(logits, task)
    return {
        "accuracy": float(is_correct(scores, labels).mean()),
        "auc": area_under_roc(labels, scores, task),
        "ece": calibration_error(scores, labels),
    }


def is_correct(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether each answer is right: the most probable class, or "yes" to a label above 0.5.

    Args:
        scores: probabilities (N, C).
        labels: int (N,), or 0/1 (N, C) of several labels.

    Returns:
        bool, in the shape of the labels.
    """
    if labels.ndim == 2:
        return (scores > 0.5) == labels
    return scores.argmax(axis=1) == labels


def probabilities(logits: np.ndarray, task: str) -> np.ndarray:
    """Softmax over classes, or a sigmoid for each label of a multi-label task.

    Args:
        logits: float (N, C).
        task: MedMNIST's name of it.

    Returns:
        float64 (N, C).
    """
    logits = np.asarray(logits, dtype=np.float64)
    if task.startswith("multi-label"):
        return expit(logits)
    return softmax(logits, axis=1)


def area_under_roc(labels: np.ndarray, scores: np.ndarray, task: str) -> float:
    """Area under the ROC curve as medmnist has it, mean over classes or labels.

    Args:
        labels: int (N,), or 0/1 (N, C) of several labels.
        scores: probabilities (N, C).
        task: MedMNIST's name of it.

    Returns:
        A fraction; nan where a class (a label) has no image, or has all.
    """
    columns = labels
    if labels.ndim == 1:
        classes = scores.shape[1]
        columns = np.eye(classes, dtype=int)[labels]
    is_constant = columns.min(axis=0) == columns.max(axis=0)
    if is_constant.any():
        return np.nan
    return float(getAUC(labels, scores, task))


def certainty(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How sure each answer is, and whether it is right; what calibration compares.

    Args:
        scores: probabilities (N, C).
        labels: int (N,), or 0/1 (N, C) of several labels.

    Returns:
        Float and bool (N,); of several labels (N x C,), the probability of each and whether it is
        true.
    """
    if labels.ndim == 2:
        return scores.ravel(), labels.ravel() == 1
    return scores.max(axis=1), is_correct(scores, labels)


def calibration_error(scores: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error (Guo et al. 2017), 15 equal bins of confidence, by torchmetrics.

    Args:
        scores: probabilities (N, C).
        labels: int (N,), or 0/1 (N, C) of several labels.

    Returns:
        A fraction; 0 is perfect.
    """
    preds = torch.as_tensor(scores).clamp(max=1 - 2**-24)  # 1 would have a bin of its own
    target = torch.as_tensor(labels)
    if target.ndim == 2:
        # each label of each image is an answer of its own
        preds = preds.flatten()
        target = target.flatten()
        error = binary_calibration_error(preds, target, n_bins=CALIBRATION_BINS)
    else:
        classes = preds.shape[1]
        error = multiclass_calibration_error(preds, target, classes, n_bins=CALIBRATION_BINS)
    return error.item()


def wilson_interval(correct: np.ndarray) -> Interval:
    """95 % Wilson score interval (Wilson 1927) of an accuracy.

    Args:
        correct: bool (N,).

    Returns:
        (low, high), fractions.
    """
    test = stats.binomtest(int(np.sum(correct)), len(correct))
    interval = test.proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_interval(
    statistic: Callable[..., float],
    *arrays: np.ndarray,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """95 % percentile bootstrap interval (Efron & Tibshirani 1993) of a statistic, over images.

    All arrays are resampled together, so that a difference between two models is a *paired*
    comparison. Resamples on which the statistic is undefined (nan) are left out.

    Args:
        statistic: ``statistic(*arrays)`` is a number.
        *arrays: each (N, ...), the same N images in the same order.
        n_resamples: how many times N images are drawn, with replacement.
        seed: of the draws.

    Returns:
        (low, high); nan where the statistic is undefined on every resample.
    """
    columns = [np.asarray(array) for array in arrays]
    n = len(columns[0])
    rng = np.random.default_rng(seed)
    statistics = []
    for _ in range(n_resamples):
        indices = rng.integers(0, n, n)
        resampled = [column[indices] for column in columns]
        statistics.append(statistic(*resampled))
    if np.isnan(statistics).all():
        return np.nan, np.nan
    low, high = np.nanpercentile(np.array(statistics), PERCENTILES)
    return float(low), float(high)


def mean_interval(values: np.ndarray) -> tuple[float, float, float]:
    """The mean of all values that are not nan, and its 95 % bootstrap interval.

    Args:
        values: float (N,), one value an image.

    Returns:
        (mean, low, high); low and high are nan for fewer than five values, the mean for none.
    """
    values = np.asarray(values, dtype=float)
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return np.nan, np.nan, np.nan
    mean = float(values.mean())
    # two or three images give an interval of almost no width: precise-looking and wrong
    if len(values) < MIN_RESAMPLED:
        return mean, np.nan, np.nan
    low, high = bootstrap_interval(np.mean, values)
    return mean, low, high


def t_interval(values: Sequence[float] | np.ndarray) -> Interval:
    """95 % t interval (Student 1908) for the mean of a few independent runs.

    Resampling a handful of runs would give too narrow an interval; this one assumes nearly normal
    values.

    Args:
        values: one number a run, at least two.

    Returns:
        (low, high).
    """
    quantile = stats.t.ppf(0.975, len(values) - 1)
    half = quantile * stats.sem(values)
    mean = np.mean(values)
    return float(mean - half), float(mean + half)


def mcnemar(correct_a: np.ndarray, correct_b: np.ndarray) -> float:
    """Exact McNemar test (1947) of whether two classifiers are wrong equally often.

    Args:
        correct_a: bool (N,), the answers of one classifier.
        correct_b: bool (N,), those of the other to the same images.

    Returns:
        The two-sided p; 1 where they never differ.
    """
    a = np.asarray(correct_a, bool)
    b = np.asarray(correct_b, bool)
    only_a = int((a & ~b).sum())
    only_b = int((b & ~a).sum())
    if only_a + only_b == 0:
        return 1.0
    return float(stats.binomtest(only_a, only_a + only_b, 0.5).pvalue)
