"""What a comparison measures, one row each: the figure, its interval, the bound, the verdict."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.stats import rankdata

from swys_utils.benchmark import Timing, speedup
from swys_utils.explain import agreement, shuffled
from swys_utils.metrics import (
    area_under_roc,
    bootstrap_interval,
    calibration_error,
    is_correct,
    probabilities,
    wilson_interval,
)

from .calibration import rise_of_calibration_error
from .measure_rows import Row, untold
from .opened_models import OpenedModel
from .verdicts import (
    CANNOT_TELL,
    KEPT,
    LOST,
    Bounds,
    Estimate,
    at_least,
    at_most,
    mean_estimate,
    no_closer,
    paired_difference,
    unseen_share,
)

RESAMPLES = 300
# what to do where the maps of different images are as alike as those of one
MORE_DIFFERENCE = {
    "map": "choose a layer with more places (--layer)",
    "occlusion": "compare more varied images",
}
SAME_SIZE = 1.005  # what is printed as 1.00
MULTI_LABEL = "multi-label, binary-class"
ONE_LABEL = "multi-class"


@dataclass(frozen=True, eq=False)
class Answers:
    """What a model answers.

    Attributes:
        logits: float (N, C).
        scores: probabilities, float (N, C).
        predicted: int (N,), the most probable class.
        given: the answer as it is compared: int (N, 1), or 0/1 (N, L) of several labels.
    """

    logits: np.ndarray
    scores: np.ndarray
    predicted: np.ndarray
    given: np.ndarray

    @classmethod
    def of(cls, logits: np.ndarray, multi_label: bool) -> Answers:
        """The answers behind logits.

        Args:
            logits: float (N, C).
            multi_label: whether several labels can be true of an image.
        """
        scores = probabilities(logits, MULTI_LABEL if multi_label else ONE_LABEL)
        predicted = scores.argmax(axis=1)
        given = scores > 0.5 if multi_label else predicted[:, None]
        return cls(logits, scores, predicted, given)

    def right(self, labels: np.ndarray) -> np.ndarray:
        """Which images are answered right, bool (N,); of several labels, all of them.

        Args:
            labels: int (N,), or 0/1 (N, L).
        """
        correct = is_correct(self.scores, labels)
        return np.asarray(correct.reshape(len(labels), -1).all(axis=1))

    def area(self, labels: np.ndarray) -> float:
        """The AUC, mean over classes; nan where a class has no image, or all of them.

        Args:
            labels: int (N,).
        """
        return rank_area(np.eye(self.scores.shape[1], dtype=int)[labels], self.scores)


def label_rows(a: Answers, b: Answers, labels: np.ndarray, bounds: Bounds) -> list[Row]:
    """The measures that need labels and are means over images.

    Args:
        a: A's answers.
        b: B's answers to the same images.
        labels: int (N,), or 0/1 (N, L).
        bounds: what may be lost.

    Returns:
        Rows on accuracy, AUC, calibration and new errors.
    """
    return [
        _accuracy_row(a, b, labels, bounds),
        _auc_row(a, b, labels, bounds),
        _calibration_row(a, b, labels, bounds),
        _errors_row(a, b, labels, bounds),
    ]


def agreement_row(a: Answers, b: Answers, bounds: Bounds, ceiling: Answers | None) -> Row:
    """The share of images with the same answer.

    Args:
        a: A's answers.
        b: B's.
        bounds: what may be lost.
        ceiling: the second A's, if there is one.

    Returns:
        The row.
    """
    same = (a.given == b.given).all(axis=1)
    low, high = wilson_interval(same)
    estimate = Estimate(float(same.mean()), low, high)
    changed = int((~same).sum())
    return Row(
        id="agreement",
        verdict=at_least(estimate, bounds.min_agreement),
        estimate=estimate,
        unit="share",
        bound=bounds.min_agreement,
        images=len(same),
        ceiling=None if ceiling is None else float((a.given == ceiling.given).all(axis=1).mean()),
        note=f"{changed} of {len(same)} answers changed",
    )


def maps_row(
    row_id: str,
    maps: dict[str, np.ndarray],
    answers: np.ndarray,
    bound: float,
) -> Row:
    """How alike two models' maps of the same images are.

    Args:
        row_id: ``map`` or ``occlusion``.
        maps: "A", "B" and perhaps "ceiling" -> signed maps, float (n, gh, gw).
        answers: A's answers, int (n,); the maps explain them.
        bound: the smallest correlation that counts as kept.

    Returns:
        The row.
    """
    values = agreement(maps["A"], maps["B"])
    others = agreement(maps["A"], shuffled(maps["B"], answers))
    estimate = mean_estimate(values, span=2)
    ceiling = None
    if "ceiling" in maps:
        ceiling = _mean(agreement(maps["A"], maps["ceiling"]))
    count = int((~np.isnan(values)).sum())
    chance = _mean(others)
    verdict = CANNOT_TELL if count == 0 else at_least(estimate, bound)
    flat = len(values) - count
    note = f"{flat} of {len(values)} images have a map without any difference" if flat else ""
    remedy = ""
    if chance is not None and chance >= bound > 0:
        rows, columns = maps["A"].shape[1:]
        remedy = (
            f"maps of {rows} x {columns} places, and two different images agree by {chance:.2f}"
            f" already: they cannot tell; {MORE_DIFFERENCE[row_id]}"
        )
        note = remedy
        verdict = CANNOT_TELL
    return Row(
        id=row_id,
        verdict=verdict,
        estimate=estimate,
        unit="correlation",
        bound=bound,
        images=count,
        chance=chance,
        ceiling=ceiling,
        note=note,
        remedy=remedy,
    )


def speed_row(timings: dict[str, Timing], bounds: Bounds) -> Row:
    """How long B takes, as a multiple of A's time.

    Args:
        timings: "A" and "B" -> timings made in turns.
        bounds: what may be lost.

    Returns:
        The row.
    """
    estimate = Estimate(*speedup(timings["B"], timings["A"]))
    verdict = at_most(estimate, bounds.max_time)
    return Row(
        id="speed",
        verdict=verdict,
        estimate=estimate,
        unit="times",
        bound=bounds.max_time,
        a=f"{timings['A'].median:.3g} ms",
        b=f"{timings['B'].median:.3g} ms",
        remedy="time both for longer (--seconds)" if verdict == CANNOT_TELL else "",
    )


def size_row(a: OpenedModel, b: OpenedModel) -> Row:
    """How large B's weights are, as a multiple of A's.

    Args:
        a: the large model.
        b: the small one.

    Returns:
        The row.
    """
    if not a.size_bytes or not b.size_bytes:
        return untold("size", "times", 1.0, "the size of one of the two is not known")
    ratio = b.size_bytes / a.size_bytes
    return Row(
        id="size",
        verdict=KEPT if ratio < SAME_SIZE else LOST,
        estimate=Estimate(ratio, ratio, ratio),
        unit="times",
        bound=1.0,
        a=megabytes(a.size_bytes),
        b=megabytes(b.size_bytes),
    )


def megabytes(count: int) -> str:
    """A number of bytes as text.

    Args:
        count: of bytes.
    """
    return f"{count / 1e6:.3g} MB"


def rank_area(truth: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve by ranks (Mann & Whitney 1947), mean over columns.

    It is what scikit-learn's gives, forty times as fast, for the hundreds of resamples.

    Args:
        truth: 0/1 (N, C).
        scores: float (N, C).

    Returns:
        A fraction; nan where a column has one value only.
    """
    positive = truth.sum(axis=0)
    pairs = positive * (len(truth) - positive)
    if (pairs == 0).any():
        return np.nan
    ranks = rankdata(scores, axis=0)
    above = (ranks * truth).sum(axis=0) - positive * (positive + 1) / 2
    return float((above / pairs).mean())


def in_points(share: Estimate) -> Estimate:
    """A share in points of a hundred.

    Args:
        share: the estimate as a fraction.
    """
    return Estimate(100 * share.value, 100 * share.low, 100 * share.high)


def _accuracy_row(a: Answers, b: Answers, labels: np.ndarray, bounds: Bounds) -> Row:
    correct_a = is_correct(a.scores, labels)
    correct_b = is_correct(b.scores, labels)
    if labels.ndim == 2:
        losses = correct_a.mean(axis=1) - correct_b.mean(axis=1)
        drop = mean_estimate(losses, span=1)
    else:
        drop = paired_difference(correct_a, correct_b)
    estimate = in_points(drop)
    return Row(
        id="accuracy",
        verdict=at_most(estimate, bounds.max_drop),
        estimate=estimate,
        unit="points",
        bound=bounds.max_drop,
        a=f"{correct_a.mean():.1%}",
        b=f"{correct_b.mean():.1%}",
        images=len(labels),
        note="the share of labels, not of images" if labels.ndim == 2 else "",
    )


def _auc_row(a: Answers, b: Answers, labels: np.ndarray, bounds: Bounds) -> Row:
    task = MULTI_LABEL if labels.ndim == 2 else ONE_LABEL
    area = partial(area_under_roc, task=task)
    areas = [area(labels, a.scores), area(labels, b.scores)]
    drop = areas[0] - areas[1]
    bound = bounds.max_drop
    if np.isnan(drop):
        why = "a class has no image, or all of them"
        return untold("auc", "points", bound, why, absent=True)

    truth = labels if labels.ndim == 2 else np.eye(a.scores.shape[1], dtype=int)[labels]

    def difference(truth, scores_a, scores_b):
        return rank_area(truth, scores_a) - rank_area(truth, scores_b)

    interval = bootstrap_interval(difference, truth, a.scores, b.scores, n_resamples=RESAMPLES)
    # it rests on the images of the rarer side of each class; one that is ranked at random costs a
    # half of its pairs
    rarer = np.minimum(truth.sum(axis=0), (1 - truth).sum(axis=0))
    unseen = float(np.mean([unseen_share(count) for count in rarer]))
    estimate = in_points(no_closer(drop, interval, reach=0.5 * unseen))
    return Row(
        id="auc",
        verdict=at_most(estimate, bound),
        estimate=estimate,
        unit="points",
        bound=bound,
        a=f"{areas[0]:.3f}",
        b=f"{areas[1]:.3f}",
        images=len(labels),
    )


def _calibration_row(a: Answers, b: Answers, labels: np.ndarray, bounds: Bounds) -> Row:
    errors = [calibration_error(answers.scores, labels) for answers in (a, b)]
    estimate = rise_of_calibration_error(a.scores, b.scores, labels)
    return Row(
        id="calibration",
        verdict=at_most(estimate, bounds.max_ece_rise),
        estimate=estimate,
        unit="error",
        bound=bounds.max_ece_rise,
        a=f"{errors[0]:.3f}",
        b=f"{errors[1]:.3f}",
        images=len(labels),
    )


def _errors_row(a: Answers, b: Answers, labels: np.ndarray, bounds: Bounds) -> Row:
    right_a = a.right(labels)
    right_b = b.right(labels)
    new = right_a & ~right_b
    repeated = int((~right_a & (a.given == b.given).all(axis=1)).sum())
    errors_a = int((~right_a).sum())
    low, high = wilson_interval(new)
    estimate = Estimate(float(new.mean()), low, high)
    bound = 1 - bounds.min_agreement
    return Row(
        id="errors",
        verdict=at_most(estimate, bound),
        estimate=estimate,
        unit="share",
        bound=bound,
        a=f"{errors_a} errors",
        b=f"{int((~right_b).sum())} errors",
        images=len(labels),
        note=f"B repeats {repeated} of A's {errors_a} errors and makes {int(new.sum())} new ones",
    )


def _mean(values: np.ndarray) -> float | None:
    """The mean of all values that are not nan; None where there is none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None
