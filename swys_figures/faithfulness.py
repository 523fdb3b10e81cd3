"""Figures of extra 7: patches that are removed or put back, their curves, and empty maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from swys_utils.faithfulness import DeletionInsertion
from swys_utils.gradcam import overlay
from swys_utils.metrics import mean_interval
from swys_utils.plots import GREY, colour

from .data import show_image
from .rows import name_rows

LINES = ("-", "--", ":")  # of the first map and of its baselines


def removal_strip(
    image: np.ndarray, heat: np.ndarray, pictures: Mapping[str, Tensor], shares: Mapping
) -> Figure:
    """An image that loses its hottest patches step by step, and one that gets them back.

    Args:
        image: uint8 (H, W) or (H, W, 3).
        heat: its signed map, float (gh, gw).
        pictures: "deletion" and "insertion" -> model input, float (steps + 1, 3, S, S).
        shares: the same names -> probability of the class in each picture, float (steps + 1,).
    """
    steps = len(next(iter(pictures.values()))) - 1
    figure, axes = plt.subplots(
        2,
        steps + 2,
        figsize=(0.95 * (steps + 2), 3),
        layout="constrained",
    )
    marked = overlay(image[None], heat[None], size=224)[0]
    for row, (name, images) in zip(axes, pictures.items()):
        show_image(row[0], marked)
        row[0].set_title("the map", fontsize=9)
        row[0].set_ylabel(name)
        for step, (ax, picture) in enumerate(zip(row[1:], images)):
            pixels = (picture.permute(1, 2, 0) + 1) / 2  # from -1 ... 1
            show_image(ax, pixels.numpy(force=True))
            ax.set_title(f"p = {shares[name][step]:.2f}", fontsize=9)
            ax.set_xlabel(f"{step / steps:.0%}", fontsize=9)
    figure.supxlabel("patches removed (above) or put back (below), the hottest first", fontsize=10)
    return figure


def curves_figure(scores: Mapping[str, DeletionInsertion]) -> Figure:
    """Mean curves of deletion and insertion, and the interval of each map's score.

    The intervals are drawn as the curves are, so their rows name the curves, too.

    Args:
        scores: name of a map -> its curves; the first is the map in question, then baselines.
    """
    figure = plt.figure(figsize=(6.8, 5), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[1.5, 1])
    left, right = above.subplots(1, 2, sharey=True)
    last = below.subplots()
    for place, (name, score) in enumerate(scores.items()):
        style = LINES[min(place, len(LINES) - 1)]
        shade = GREY if place else colour(name)
        percent = 100 * score.fractions
        for ax, curves in ((left, score.deletion), (right, score.insertion)):
            mean = curves.mean(axis=0)
            ax.plot(
                percent,
                mean,
                style,
                color=shade,
            )
        _draw_interval(last, place, score.gap, shade, style)
    left.set(xlabel="patches removed (%)", ylabel="probability of the class")
    left.set_title("deletion: lower is better", fontsize=11, loc="left")
    right.set(xlabel="patches put back (%)")
    right.set_title("insertion: higher is better", fontsize=11, loc="left")
    last.axvline(0, color="black", linewidth=1)
    last.set_xlabel("insertion - deletion, 95 % interval")
    name_rows(last, list(scores))
    explained = next(iter(scores))
    last.get_yticklabels()[0].set(
        color=colour(explained),
        weight="bold",
    )
    last.set_title("score: further right is better", fontsize=11, loc="left")
    return figure


def _draw_interval(ax: Axes, place: int, gaps: np.ndarray, shade: str, style: str) -> None:
    """The mean of a score over images, and its interval, in a row of its own."""
    mean, low, high = mean_interval(gaps)
    ax.plot(
        [low, high],
        [place, place],
        style,
        color=shade,
        linewidth=3,
    )
    ax.plot(mean, place, "o", color=shade)


def empty_figure(name: str, rows: Sequence[Mapping]) -> Figure:
    """In which answers Grad-CAM's ReLU leaves nothing of the map.

    Args:
        name: title of the model.
        rows: of ``swys study explanations``: first all images, then a row for each answer and band
            of confidence; ``predicted``, ``confidence``, ``images``, ``empty`` and ``share``.
    """
    whole, *groups = [row for row in rows if row["images"]]
    height = 1.2 + 0.3 * len(groups)
    figure, ax = plt.subplots(figsize=(7, height), layout="constrained")
    names = []
    for place, row in enumerate(groups):
        names.append(f"{row['predicted']}, {row['confidence']}")
        percent = 100 * row["share"]
        ax.barh(place, percent, color=colour(name))
        ax.text(percent + 1, place, f"{row['empty']} of {row['images']}", va="center", fontsize=9)
    name_rows(ax, names)
    ax.set(xlabel="empty maps (%)", xlim=(0, 118))
    ax.set_ylabel("answer, its probability")
    title = f"{name}: {whole['empty']} of {whole['images']} maps are empty"
    ax.set_title(title, fontsize=11, loc="left")
    return figure
