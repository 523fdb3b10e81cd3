"""The figure of a student that looks honest: an honest map, and answers by the mark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from swys_utils.gradcam import overlay
from swys_utils.plots import GREY, colour

from .planted import frame_mark


def looks_honest(
    image: np.ndarray,
    mask: np.ndarray,
    maps: Mapping[str, np.ndarray],
    swapped: Mapping[str, Sequence[float]],
) -> Figure:
    """A marked image, what a student marks in it, what its answer rests on, and who is fooled.

    Args:
        image: with the mark, uint8 (S, S) or (S, S, 3).
        mask: where the mark is, bool (S, S).
        maps: the student's "grad_cam" and "occlusion", float (gh, gw).
        swapped: name of a model -> its AUC of each seed where the mark sits on other classes; the
            student is the last one.

    Returns:
        A figure of four panels.
    """
    figure = plt.figure(figsize=(10.5, 2.7), layout="constrained")
    axes = figure.subplots(1, 4, width_ratios=[1, 1, 1, 1.3])
    titles = [
        "the planted ring",
        "what the student marks\n(Grad-CAM)",
        "what its answer rests on\n(hiding patches)",
    ]
    heat = [np.zeros((1, 1)), maps["grad_cam"], maps["occlusion"]]
    for ax, title, heatmap in zip(axes, titles, heat):
        ax.imshow(
            overlay(
                image[None],
                heatmap[None],
                alpha=0.7,
            )[0]
        )
        ax.set(xticks=[], yticks=[], frame_on=False)
        ax.set_title(title, fontsize=10)
        frame_mark(ax, mask)
    _draw_swapped(axes[3], swapped)
    return figure


def _draw_swapped(ax: Axes, swapped: Mapping[str, Sequence[float]]) -> None:
    """A row for each model: a dot for each seed, a line at their mean."""
    for place, values in enumerate(swapped.values()):
        is_student = place == len(swapped) - 1
        shade = colour("occlusion") if is_student else "black"
        ax.plot(
            values,
            [place] * len(values),
            "o",
            color=shade,
            alpha=0.5,
        )
        mean = float(np.mean(values))
        ax.plot(
            [mean, mean],
            [place - 0.25, place + 0.25],
            color=shade,
            linewidth=3,
        )
        ax.text(
            mean,
            place + 0.42,
            f"{mean:.2f}",
            color=shade,
            ha="center",
            fontsize=9,
        )
    ax.axvspan(0, 0.5, color=GREY, alpha=0.15, linewidth=0)
    ax.text(0.25, -0.55, "ranks by the ring", ha="center", fontsize=9)
    ax.text(0.75, -0.55, "ranks by the image", ha="center", fontsize=9)
    ax.set(xlim=(-0.03, 1), ylim=(len(swapped) - 0.3, -0.8))
    ax.set_yticks(range(len(swapped)), list(swapped))
    ax.set_xlabel("AUC (0.5: guessing)")
    ax.set_title("the ring moved to images\nof the other class", fontsize=10)
