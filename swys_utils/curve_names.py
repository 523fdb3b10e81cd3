"""Names beside the ends of curves, none of them over another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes


def _spread_out(values: Sequence[float], gap: float) -> list[float]:
    """Heights for labels near these values, in their order, at least ``gap`` apart."""
    order = np.argsort(values)
    heights = np.array(values, dtype=float)
    for below, above in zip(order, order[1:]):
        heights[above] = max(heights[above], heights[below] + gap)
    return heights.tolist()


def name_ends(ax: Axes, x: float, ends: Mapping[str, tuple[float, str]], gap: float) -> None:
    """Write a name right of the end of each curve.

    Args:
        ax: where the curves are.
        x: where the names begin, on the horizontal axis.
        ends: name -> where its curve ends on the vertical axis, and its colour.
        gap: least distance of two names, on the vertical axis.
    """
    heights = _spread_out([end for end, _ in ends.values()], gap)
    for (name, (_, shade)), height in zip(ends.items(), heights):
        ax.annotate(
            name,
            (x, height),
            xytext=(8, 0),
            textcoords="offset points",
            color=shade,
            va="center",
            annotation_clip=False,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )
