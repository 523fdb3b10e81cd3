"""What is named in the difference of two mean X-rays of the chest."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke


def name_places(ax: Axes, difference: np.ndarray) -> None:
    """Write "lung" where the sick are brighter left and right of the middle, and name the border.

    Args:
        ax: shows the difference.
        difference: mean of the sick minus mean of the healthy, float (H, W).
    """
    height, width = difference.shape
    rows = difference[height // 2 : height // 2 + 4]
    brighter = rows.sum(axis=0).clip(min=0)
    brighter[: width // 7] = 0
    brighter[-width // 7 :] = 0
    columns = np.arange(width)
    left = columns < width / 2
    for side in (left, ~left):
        weights = brighter * side
        if weights.any():
            x = np.average(columns, weights=weights)
            _name_lung(ax, x, height / 2 + 1.5)
    row = int(difference[:, 0].argmax())
    if difference[row, 0] > 0.3 * difference.max():
        ax.annotate(
            "border, too",
            (0, row),
            (width / 2, 0.84 * height),
            fontsize=11,
            ha="center",
            va="center",
            arrowprops={"arrowstyle": "->", "linewidth": 1.5},
        )


def _name_lung(ax: Axes, x: float, y: float) -> None:
    word = ax.text(
        x,
        y,
        "lung",
        fontsize=11,
        ha="center",
        va="center",
    )
    border = withStroke(linewidth=3, foreground="white")
    word.set_path_effects([border])
