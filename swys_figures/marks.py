"""Words, arrows and frames that point at something in a panel."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, Rectangle

from swys_utils.plots import GREY, colour

from .data import MARK, WARNING

Point = tuple[float, float]


def number_in_circle(ax: Axes, place: Point, number: int) -> None:
    """The number of a part of a drawing.

    Args:
        ax: the panel.
        place: of its middle.
        number: from 1.
    """
    text = ax.text(
        *place,
        str(number),
        fontsize=11,
        color="white",
        weight="bold",
        ha="center",
        va="center",
    )
    text.set_bbox(
        {
            "boxstyle": "circle,pad=0.18",
            "facecolor": "black",
            "edgecolor": "none",
        }
    )


def frame_row(ax: Axes, row: int, columns: int) -> None:
    """A frame around a row of a matrix.

    Args:
        ax: shows the matrix, each number as a square of side 1.
        row: its number, from 0.
        columns: how many the matrix has.
    """
    frame = Rectangle(
        (-0.5, row - 0.5),
        columns,
        1,
        fill=False,
        edgecolor=MARK,
        linewidth=3,
        clip_on=False,
        zorder=3,
    )
    ax.add_patch(frame)


def double_arrow(ax: Axes, x: float, low: float, high: float) -> None:
    """A vertical arrow with two heads.

    Args:
        ax: the panel.
        x: where it stands.
        low: its lower end.
        high: its upper end.
    """
    arrow = FancyArrowPatch(
        (x, low),
        (x, high),
        arrowstyle="<->",
        mutation_scale=14,
        linewidth=1.8,
        shrinkA=0,
        shrinkB=0,
        zorder=3,
    )
    ax.add_patch(arrow)


def write_shares(
    ax: Axes,
    group: str,
    shares: Mapping[str, float],
    before: Mapping[str, float],
) -> None:
    """How probable a class is, below a picture; a frame where an answer has changed.

    Args:
        ax: shows the picture.
        group: what images of the class are called.
        shares: name of a model -> probability.
        before: the same of the picture that it is compared with.
    """
    for line, (name, share) in enumerate(shares.items()):
        model = f"{name}: " if len(shares) > 1 else ""
        alarm = share > 0.5
        ax.annotate(
            f"{model}{100 * share:.0f} % {group}",
            (0.5, 0),
            (0, -5 - 14 * line),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=10.5,
            color=WARNING if alarm else "black",
            weight="bold" if alarm else "normal",
            annotation_clip=False,
        )
        if alarm != (before[name] > 0.5):
            ax.patch.set(
                edgecolor=MARK,
                linewidth=5,
                clip_on=False,
            )
            ax.set_frame_on(True)
            ax.spines[:].set_visible(False)


def name_dot(ax: Axes, name: str, dot: Point, to_the_left: bool) -> None:
    """What a threshold of one half brings, right below a dot or left above it.

    Args:
        ax: the panel.
        name: of the model.
        dot: (false alarms, found), %.
        to_the_left: whether the words stand left above it.
    """
    false_alarms, found = dot
    words = [
        f"{name} at 0.5:",
        f"finds {found:.1f}%,",
        f"clears {100 - false_alarms:.1f}%",
    ]
    below = -44 if false_alarms > 12 else -90  # where few are false, curves run close below
    ax.annotate(
        "\n".join(words),
        dot,
        (-26, 34) if to_the_left else (44, below),
        textcoords="offset points",
        arrowprops={"arrowstyle": "-", "color": colour(name)},
        color=colour(name),
        ha="right" if to_the_left else "left",
        va="center",
    )


def point_along(ax: Axes, curve: tuple[np.ndarray, np.ndarray]) -> None:
    """An arrow below a curve, in the direction of a lower threshold.

    Args:
        ax: the panel; its limits are set.
        curve: sensitivity and specificity at each threshold, fractions.
    """
    sensitivity, specificity = curve
    false_alarms = 1 - specificity
    order = np.lexsort((sensitivity, false_alarms))
    _, right = ax.get_xlim()
    x = np.array([0.68, 0.9]) * right
    y = np.interp(
        x,
        100 * false_alarms[order],
        100 * sensitivity[order],
    )
    start, end = zip(x, y - 2.5)
    ax.annotate(
        "",
        end,
        start,
        arrowprops={"arrowstyle": "->", "linewidth": 1.5},
    )
    ax.text(
        x.mean(),
        y.mean() - 3.5,
        "lower threshold",
        va="top",
    )


def bracket(ax: Axes, dots: Mapping[str, Point], healthy: str) -> None:
    """How many more false alarms one of two models raises, above their dots.

    Args:
        ax: the panel.
        dots: name -> (false alarms, found), %.
        healthy: what the others than the sick are called.
    """
    if len(dots) != 2:
        return
    first, second = sorted(dots.values())
    more = second[0] - first[0]
    if round(more) < 1:
        return
    height = max(first[1], second[1]) + 6
    for x, found in (first, second):
        ax.vlines(
            x,
            found,
            height,
            color=GREY,
            linestyle=":",
            linewidth=1,
        )
    ax.annotate(
        "",
        (first[0], height),
        (second[0], height),
        arrowprops={
            "arrowstyle": "|-|,widthA=0.3,widthB=0.3",
            "shrinkA": 0,
            "shrinkB": 0,
        },
    )
    ax.text(
        first[0] + more / 2,
        height + 0.7,
        f"{more:.0f} more false alarms\nof 100 {healthy}",
        ha="center",
        va="bottom",
    )
