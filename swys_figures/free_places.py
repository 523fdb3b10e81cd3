"""Words in a panel where no curve runs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from matplotlib.axes import Axes

LETTER = 0.011  # half of a letter's width, as a share of a panel of some 3.5 inches
HALF_LINE = 0.045  # half of a line's height
AROUND = (0.0, -0.1, 0.1, -0.2, 0.2)


def curve_points(ax: Axes) -> np.ndarray:
    """Points along the curves of a panel, as shares of its width and height, float (N, 2).

    Args:
        ax: its limits are set.
    """
    points = [np.zeros((0, 2))]
    steps = np.linspace(0, 1, 60)[:, None]
    for line in ax.lines:
        to_shares = line.get_transform() + ax.transAxes.inverted()
        corners = to_shares.transform(line.get_xydata())
        for start, end in zip(corners, corners[1:]):
            points.append(start + steps * (end - start))
    return np.vstack(points)


def write_near(
    ax: Axes, text: str, end: Sequence[float], points: np.ndarray, shade: str
) -> np.ndarray:
    """Write right of the end of a curve, or around it if a curve runs there.

    Args:
        ax: the panel.
        text: what is written.
        end: of the curve, as shares of the panel's width and height.
        points: that the text keeps clear of, as ``curve_points`` gives them.
        shade: colour of the text.

    Returns:
        The points, and those of the text.
    """
    right = (LETTER * len(text) + 0.03, 0.0)
    places = [right, *product(AROUND, (-0.1, 0.1, -0.15, 0.15))]
    return write_in_one(ax, text, np.array(places) + end, points, shade)


def write_in_one(
    ax: Axes,
    text: str,
    places: Sequence[Sequence[float]] | np.ndarray,
    points: np.ndarray,
    shade: str,
) -> np.ndarray:
    """Write in the first of some places that is in the panel and clear of all points.

    Args:
        ax: the panel.
        text: what is written.
        places: for the middle of the text, as shares of the panel's width and height. If none is
            clear, the one with the fewest points is taken.
        points: as in ``write_near``.
        shade: colour of the text.

    Returns:
        The points, and those of the text.
    """
    half = np.array([LETTER * len(text) + 0.01, HALF_LINE])

    def crossed(place: np.ndarray) -> int:
        outside = (place - half < 0).any() or (place + half > 1).any()
        return 10_000 * outside + (abs(points - place) < half).all(axis=1).sum()

    place = min(np.array(places), key=crossed)
    x, y = place.tolist()
    ax.text(
        x,
        y,
        text,
        transform=ax.transAxes,
        ha="center",
        va="center",
        color=shade,
    )
    grid = np.array(list(product(np.linspace(-1, 1, 9), repeat=2)))
    return np.vstack([points, place + half * grid])
