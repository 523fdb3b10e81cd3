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


@dataclass(frozen=True)
class Metrics:
    """Scores on n images, fractions in [0, 1]; intervals are 95 %; ``correct``: bool (N,) or (N, L)."""

    accuracy: float
    accuracy_interval: tuple[float, float]
    auc: float
    auc_interval: tuple[float, float]
    ece: float
    ece_interval: tuple[float, float]
    n: int
    correct: np.ndarray = field(repr=False, compare=False)

    def __str__(self) -> str:
        (a, b), (c, d), (e, f) = self.accuracy_interval, self.auc_interval, self.ece_interval
        accuracy = f"accuracy {self.accuracy:.1%} [{a:.1%}, {b:.1%}]"
        return f"{accuracy}  AUC {self.auc:.3f} [{c:.3f}, {d:.3f}]  ECE {self.ece:.3f} [{e:.3f}, {f:.3f}]"


def evaluate(logits: np.ndarray, labels: np.ndarray, task: str, n_resamples: int = 500) -> Metrics:
    """Accuracy and AUC as ``medmnist.Evaluator`` computes them, ECE, and 95 % intervals.

    Accuracy's interval is Wilson's (multi-label: bootstrap); AUC's and ECE's are bootstrap over images.
    ``logits``: float (N, C). ``labels``: int (N,) or (N, L), else SwysError. ``task``: MedMNIST's name of it.
    """
    point, scores = point_scores(logits, labels, task), probabilities(logits, task)
    correct, interval = (
        is_correct(scores, labels),
        partial(bootstrap_interval, n_resamples=n_resamples),
    )
    accuracy = interval(np.mean, correct) if labels.ndim == 2 else wilson_interval(correct)
    auc = interval(lambda y, s: area_under_roc(y, s, task), labels, scores)
    ece = interval(calibration_error, scores, labels)
    return Metrics(
        point["accuracy"], accuracy, point["auc"], auc, point["ece"], ece, len(labels), correct
    )


def point_scores(logits: np.ndarray, labels: np.ndarray, task: str) -> dict[str, float]:
    """Accuracy, AUC and ECE, fractions, of logits (N, C) without intervals; raises as ``evaluate`` does."""
    if labels.shape not in (logits.shape, logits.shape[:1]):
        raise SwysError(
            f"labels {labels.shape} of predictions {logits.shape}; give (N,), or (N, L) of several"
        )
    scores = probabilities(logits, task)
    accuracy, auc = float(is_correct(scores, labels).mean()), area_under_roc(labels, scores, task)
    return {"accuracy": accuracy, "auc": auc, "ece": calibration_error(scores, labels)}


def is_correct(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Is the most probable class, or each label's answer at 0.5, true? bool (N,) or, multi-label, (N, L)."""
    return (scores > 0.5) == labels if labels.ndim == 2 else scores.argmax(axis=1) == labels


def probabilities(logits: np.ndarray, task: str) -> np.ndarray:
    """Softmax over classes, or a sigmoid a label for multi-label tasks; float64 (N, C)."""
    logits = np.asarray(logits, dtype=np.float64)
    return expit(logits) if task.startswith("multi-label") else softmax(logits, axis=1)


def area_under_roc(labels: np.ndarray, scores: np.ndarray, task: str) -> float:
    """Area under the ROC curve as medmnist has it, mean over classes or labels; nan where one is absent."""
    columns = labels if labels.ndim == 2 else np.eye(scores.shape[1], dtype=int)[labels]
    if (columns.min(axis=0) == columns.max(axis=0)).any():
        return float("nan")
    return float(getAUC(labels, scores, task))


def calibration_error(scores: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error, 15 equal bins of confidence, L1 (Guo et al. 2017), by torchmetrics."""
    p, y = torch.as_tensor(scores), torch.as_tensor(labels)
    if y.ndim == 2:
        return binary_calibration_error(p.flatten(), y.flatten(), n_bins=15).item()
    return multiclass_calibration_error(p, y, num_classes=p.shape[1], n_bins=15).item()


def wilson_interval(correct: np.ndarray) -> tuple[float, float]:
    """95 % Wilson score interval (Wilson 1927) of an accuracy, from bool (N,); fractions."""
    interval = stats.binomtest(int(np.sum(correct)), len(correct)).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_interval(
    statistic: Callable[..., float], *arrays: np.ndarray, n_resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile bootstrap interval (Efron & Tibshirani 1993) of ``statistic(*arrays)`` over images.

    All arrays share their first axis (images) and are resampled together, so that a difference between two
    models is a *paired* comparison. Resamples on which the statistic is undefined (nan) are left out.
    """
    arrays = tuple(np.asarray(a) for a in arrays)
    rng, n = np.random.default_rng(seed), len(arrays[0])
    draws = (rng.integers(0, n, n) for _ in range(n_resamples))
    values = np.array([statistic(*(a[rows] for a in arrays)) for rows in draws])
    if np.isnan(values).all():
        return float("nan"), float("nan")
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def mean_interval(values: np.ndarray) -> tuple[float, float, float]:
    """(mean, low, high): the mean of all values but nan, and its 95 % bootstrap interval (of 5 or more)."""
    values = np.array([value for value in values if not np.isnan(value)], float)
    mean = float(values.mean()) if len(values) else float("nan")
    # resampling two or three images gives an interval of almost no width: precise-looking and wrong
    return mean, *(bootstrap_interval(np.mean, values) if len(values) >= 5 else (float("nan"),) * 2)


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % t interval (Student 1908) for the mean of a few independent runs, at least two.

    Resampling a handful of runs would give too narrow an interval; this one assumes nearly normal values.
    """
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return float(np.mean(values) - half), float(np.mean(values) + half)


def accuracy_interval(values: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean over seeds and images (of one seed: over images alone): percentile bootstrap,
    both drawn anew, images together for all seeds; at least as wide as the t interval over seeds.

    Args:
        values: (S, N), 0/1 for right, or the difference of two such.
    """
    values, rng = np.asarray(values, dtype=float), np.random.default_rng(0)
    seeds, n = values.shape
    seed_share = rng.multinomial(seeds, [1 / seeds] * seeds, size=4000) / seeds
    image_share = rng.multinomial(n, [1 / n] * n, size=4000) / n
    low, high = np.percentile(((seed_share @ values) * image_share).sum(axis=1), [2.5, 97.5])
    if seeds == 1:
        return float(low), float(high)
    a, b = t_interval(values.mean(axis=1))  # few seeds: the bootstrap alone is too narrow
    return float(min(low, a)), float(max(high, b))


def mcnemar(correct_a: np.ndarray, correct_b: np.ndarray) -> float:
    """Two-sided p of the exact McNemar test (1947) that two classifiers err equally often; bool (N,) each."""
    a, b = np.asarray(correct_a, bool), np.asarray(correct_b, bool)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return float(stats.binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0
