"""The figure of a student that looks honest: an honest map, and answers by the mark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from swys_utils.gradcam import overlay
from swys_utils.plots import GREY

from .obedience import OBEDIENCE
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
        A figure of three pictures above a panel.
    """
    figure = plt.figure(figsize=(6.4, 4.9), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[1.2, 1])
    axes = above.subplots(1, 3)
    titles = [
        "the planted ring",
        "what the student\nmarks: Grad-CAM",
        "what its answer\nrests on: hiding",
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
        ax.set_title(title, fontsize=11)
        frame_mark(ax, mask)
    _draw_swapped(below.subplots(), swapped)
    return figure


def _draw_swapped(ax: Axes, swapped: Mapping[str, Sequence[float]]) -> None:
    """A row for each model: a dot for each seed, a line at their mean; red where the ring ranks."""
    for place, values in enumerate(swapped.values()):
        mean = float(np.mean(values))
        shade = OBEDIENCE[50] if mean < 0.5 else OBEDIENCE[0]
        ax.plot(
            values,
            [place] * len(values),
            "o",
            color=shade,
            alpha=0.5,
        )
        ax.plot(
            [mean, mean],
            [place - 0.25, place + 0.25],
            color=shade,
            linewidth=3,
        )
        ax.text(
            mean,
            place - 0.32,
            f"{mean:.2f}",
            color=shade,
            ha="center",
        )
    ax.axvspan(0, 0.5, color=GREY, alpha=0.15, linewidth=0)
    ax.text(0.25, -0.8, "ranks by the ring", ha="center")
    ax.text(0.75, -0.8, "ranks by the image", ha="center")
    ax.set(xlim=(-0.03, 1), ylim=(len(swapped) - 0.5, -1.2))
    ax.set_yticks(range(len(swapped)), list(swapped))
    *_, student = ax.get_yticklabels()
    student.set_fontweight("bold")  # whose pictures stand above
    ax.set_xlabel("AUC with the ring on images of the other class (0.5: guessing)")
