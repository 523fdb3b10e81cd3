"""What panels with a row for each group share: dots, their mean, texts, names of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes


def row_of_dots(ax: Axes, place: float, values: np.ndarray, shade: str) -> None:
    """Values of one row, a little below each other.

    Args:
        ax: where they are drawn.
        place: of the row on the vertical axis.
        values: float (N,), on the horizontal axis.
        shade: colour of the dots.
    """
    offsets = np.zeros(1)
    if len(values) > 1:
        offsets = np.linspace(-0.2, 0.2, len(values))
    ax.plot(values, place + offsets, "o", ms=6, color=shade, mec="white")


def dots_and_mean(
    ax: Axes,
    place: float,
    values: np.ndarray,
    shade: str,
    stroke: float = 18,
    right: float = 65 / 66,
) -> None:
    """A dot for each value of a row, a stroke at their mean, and the mean as a number.

    Args:
        ax: where they are drawn.
        place: of the row on the vertical axis.
        values: float (N,), N > 0.
        shade: colour of the dots and of the stroke.
        stroke: its length, points.
        right: where the number ends, as a share of the panel's width.
    """
    row_of_dots(ax, place, values, shade)
    mean = values.mean()
    ax.plot(mean, place, "|", ms=stroke, mew=2, color=shade)
    write_in_row(
        ax,
        place,
        f"{mean:.0f}",
        right,
        ha="right",
    )


def write_in_row(ax: Axes, place: float, text: str, at: float, **style: Any) -> None:
    """A text in a row, or beside it.

    Args:
        ax: the panel.
        place: of the row on the vertical axis.
        text: what is written.
        at: where it begins, as a share of the panel's width: from 1 on it is right of the panel.
        **style: for matplotlib's ``text``.
    """
    ax.text(
        at,
        place,
        text,
        transform=ax.get_yaxis_transform(),
        va="center",
        **style,
    )


def write_beside(ax: Axes, text: str, at: float, **style: Any) -> None:
    """A text beside a panel, at half of its height.

    Args:
        ax: the panel.
        text: what is written.
        at: where it begins, as a share of the panel's width: above 1 it is right of the panel.
        **style: for matplotlib's ``text``.
    """
    ax.text(
        at,
        0.5,
        text,
        transform=ax.transAxes,
        va="center",
        **style,
    )


def name_rows(ax: Axes, titles: Sequence[str]) -> None:
    """Names of the rows, the first one at the top.

    Args:
        ax: the panel at the left; the others share its vertical axis.
        titles: of the rows at 0, 1, 2, ...
    """
    ax.set_yticks(range(len(titles)), titles)
    ax.set_ylim(max(len(titles), 1) - 0.5, -0.5)


def percent_axis(ax: Axes, left: float, right: float, lowest: float = 0.0) -> None:
    """A horizontal axis in percent, with room for numbers at the right; no value is cut off.

    Args:
        ax: the panel.
        left: where it begins, unless a value is lower.
        right: where it ends.
        lowest: the lowest value that is drawn, %; the highest one is at most 100.
    """
    ax.set_xlim(min(left, lowest - 2), right)
    ax.set_xticks([0, 50, 100])
