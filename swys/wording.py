"""Figures of a comparison as text, and its result in one sentence."""

from __future__ import annotations

import math
from collections.abc import Callable

from .comparison import Measured
from .measure_rows import Row
from .verdicts import CANNOT_TELL, KEPT, LOST, Bounds

MINUS = "\N{MINUS SIGN}"
GLYPHS = {KEPT: "\N{CHECK MARK}", LOST: "\N{MULTIPLICATION X}", CANNOT_TELL: "?"}
AT_MOST = ("accuracy", "auc", "calibration", "errors", "class", "speed", "size")


def number_text(row: Row, value: float) -> str:
    """A value in the unit of a measure.

    Args:
        row: the measure.
        value: in its unit.

    Returns:
        Such as ``0.3 points`` without the unit: ``0.3``.
    """
    if math.isnan(value):
        return "\N{EM DASH}"
    formats: dict[str, Callable[[float], str]] = {
        "points": "{:.1f}".format,
        "share": "{:.1%}".format,
        "correlation": "{:.2f}".format,
        "error": "{:.3f}".format,
        "times": "{:.2f}".format,
    }
    text = formats[row.unit](value)
    if float(text.strip("%")) == 0:
        text = text.lstrip("-")
    return text.replace("-", MINUS)


def unit_text(row: Row) -> str:
    """What stands behind a figure: its unit, where the number does not show it.

    Args:
        row: the measure.
    """
    return {"points": " points", "times": "\N{MULTIPLICATION SIGN}"}.get(row.unit, "")


def figure_text(row: Row) -> str:
    """The figure with its interval.

    Args:
        row: the measure.

    Returns:
        Such as ``0.3 points [-0.4, 0.9]``.
    """
    figure = number_text(row, row.estimate.value) + unit_text(row)
    return f"{figure} {interval_text(row)}".strip()


def row_text(row: Row) -> str:
    """A measure in one line: its figure and its bound, or why there is none.

    Args:
        row: the measure.

    Returns:
        Such as ``31.2 points [24.1, 38.0], at most 1.0 points; A 81.2%, B 50.0%``; of a single
        class its name stands before.
    """
    if not row.measured:
        return row.note
    text = f"{figure_text(row)}, {bound_text(row)}"
    if row.subject:
        text = f"'{row.subject}' {text}"
    if row.a and row.b:
        text += f"; A {row.a}, B {row.b}"
    if row.ceiling is not None:
        text += f"; second A {number_text(row, row.ceiling)}"
    return text


def interval_text(row: Row) -> str:
    """The interval alone; empty where there is none.

    Args:
        row: the measure.
    """
    low = row.estimate.low
    high = row.estimate.high
    if math.isnan(low) or low == high:
        return ""
    return f"[{number_text(row, low)}, {number_text(row, high)}]"


def bound_text(row: Row) -> str:
    """What the figure has to stay within.

    Args:
        row: the measure.

    Returns:
        Such as ``at most 1.0 points``.
    """
    word = "at most" if row.id in AT_MOST else "at least"
    return f"{word} {number_text(row, row.bound)}{unit_text(row)}"


def headline(measured: Measured) -> str:
    """The result in one sentence: answers first, then what they rest on.

    Args:
        measured: the comparison.
    """
    text = _in_a_sentence(measured)
    return text if measured.bounds == Bounds() else f"By the limits that were set: {text}"


def _in_a_sentence(measured: Measured) -> str:
    """The result by the verdicts."""
    answers = _word(measured, "agreement")
    if answers == CANNOT_TELL:
        return "These images are too few to say whether B answers as A does."
    reasons = _word(measured, "occlusion")
    worst = measured.row("class")
    if answers == KEPT and worst is not None and worst.verdict == LOST:
        return f"B gives the answers that A gives, but loses the class '{worst.subject}'."
    if answers == KEPT:
        endings = {
            KEPT: ", and rests them on nearly the same patches",
            LOST: ", but for other reasons",
            CANNOT_TELL: "; whether for the same reasons, these images do not tell",
        }
        return f"B gives the answers that A gives{endings.get(reasons, '')}."
    quality = _word(measured, "accuracy")
    accuracy = measured.row("accuracy")
    starts = {
        KEPT: "B is right as often as A, but gives other answers",
        LOST: "B is right less often than A, and gives other answers",
    }
    start = starts.get(quality, "B gives other answers than A")
    if quality == KEPT and accuracy is not None:
        if accuracy.estimate.high < 0:
            start = "B is right more often than A, and gives other answers"
        elif accuracy.estimate.low > 0:
            start = "B is right nearly as often as A, but gives other answers"
    return start + (", for other reasons." if reasons == LOST else ".")


def _word(measured: Measured, row_id: str) -> str:
    """The verdict of a measure; empty where it was not made."""
    row = measured.row(row_id)
    return row.verdict if row is not None and row.measured else ""
