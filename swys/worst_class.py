"""Which class pays: the most that any one class loses from A to B.

A mean over all images hides a loss in a rare class, and shrinking a model often costs the rare
classes most (Hooker et al. 2019, What do compressed deep neural networks forget?).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from swys_utils.metrics import is_correct

from .measure_rows import Row, untold
from .measures import Answers, in_points
from .verdicts import CANNOT_TELL, LOST, Bounds, Estimate, at_most, paired_difference


@dataclass(frozen=True)
class ClassLoss:
    """What one class loses.

    Attributes:
        name: of the class.
        images: number of images that have it.
        a: the share of them that A gets right (recall).
        b: the same of B.
        loss: a - b in points. The lower ends of all classes hold at once; the upper end is that of
            this class alone.
    """

    name: str
    images: int
    a: float
    b: float
    loss: Estimate


def class_losses(
    a: Answers, b: Answers, labels: np.ndarray, names: Sequence[str]
) -> list[ClassLoss]:
    """What each class with images loses.

    With one 95 % interval for each of eight classes, every sixth comparison would have a class that
    seems to lose surely and does not. So the lower ends are further down (Bonferroni): all of
    them together hold in 97.5 %. The upper ends need no correction where the largest loss is
    asked for: it lies above all of them only where that of the very class misses.

    Args:
        a: A's answers.
        b: B's answers to the same images.
        labels: int (N,), or 0/1 (N, L); of several labels, those that are there count.
        names: C names.

    Returns:
        One of each class that has images.
    """
    correct_a = is_correct(a.scores, labels)
    correct_b = is_correct(b.scores, labels)
    members = labels == 1
    if labels.ndim == 1:
        members = labels[:, None] == np.arange(len(names))
        correct_a = np.repeat(correct_a[:, None], len(names), axis=1)
        correct_b = np.repeat(correct_b[:, None], len(names), axis=1)
    present = np.flatnonzero(members.any(axis=0))
    strict = float(norm.ppf(1 - 0.025 / max(len(present), 1)))
    losses = []
    for number in present.tolist():
        chosen = members[:, number]
        right_a = correct_a[chosen, number]
        right_b = correct_b[chosen, number]
        loss = paired_difference(right_a, right_b)
        low = paired_difference(right_a, right_b, strict).low
        losses.append(
            ClassLoss(
                name=names[number],
                images=int(chosen.sum()),
                a=float(right_a.mean()),
                b=float(right_b.mean()),
                loss=in_points(Estimate(loss.value, low, loss.high)),
            )
        )
    return losses


def class_row(
    a: Answers, b: Answers, labels: np.ndarray, names: Sequence[str], bounds: Bounds
) -> Row:
    """The most that any class loses.

    The largest loss lies between the highest of all lower ends and the highest of all upper ends.
    If a class is surely lost, the row is about that one, else about the one with the largest loss.

    Args:
        a: A's answers.
        b: B's answers to the same images.
        labels: int (N,), or 0/1 (N, L).
        names: C names.
        bounds: what may be lost.

    Returns:
        The row.
    """
    bound = bounds.max_class_drop
    losses = class_losses(a, b, labels, names)
    if not losses:
        return untold("class", "points", bound, "no image has a label", absent=True)
    surest = max(losses, key=lambda each: each.loss.low)
    worst = max(losses, key=lambda each: (each.loss.value, each.loss.high))
    if surest.loss.low > bound:
        worst = surest
    high = max(each.loss.high for each in losses)
    estimate = Estimate(worst.loss.value, surest.loss.low, high)
    verdict = at_most(estimate, bound)
    note = f"'{worst.name}', {worst.images} images"
    if verdict == LOST:
        lost = [f"'{each.name}'" for each in losses if each.loss.low > bound]
        note += f"; surely lost: {', '.join(lost)}"
    return Row(
        id="class",
        verdict=verdict,
        estimate=estimate,
        unit="points",
        bound=bound,
        a=f"{worst.a:.1%}",
        b=f"{worst.b:.1%}",
        images=worst.images,
        subject=worst.name,
        note=note,
        remedy=_remedy(losses, bound) if verdict == CANNOT_TELL else "",
    )


def _remedy(losses: Sequence[ClassLoss], bound: float) -> str:
    """Which class lacks images: of those that may have lost too much, the one with the fewest."""
    unsure = [each for each in losses if each.loss.high > bound]
    fewest = min(unsure, key=lambda each: each.images)
    return f"compare more images of '{fewest.name}'; these are {fewest.images}"
