"""How scores of several models are drawn: with intervals and seeds, by threshold, by certainty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from swys_utils.metrics import Metrics
from swys_utils.plots import GREY, SCORES, Scores, colour


def scores_with_seeds(
    scores: Mapping[str, Metrics], runs: Mapping[str, Sequence[Scores]]
) -> Figure:
    """Each score of each model as a bar, its interval over test images, and a circle for each run.

    Args:
        scores: name -> scores of one model.
        runs: name -> scores of its runs with other seeds, fractions; may be empty.
    """
    figure, axes = plt.subplots(1, 3, figsize=(8.6, 2.5), sharey=True, layout="constrained")
    for ax, (key, (label, factor)) in zip(axes, SCORES.items()):
        for place, (name, score) in enumerate(scores.items()):
            low, high = getattr(score, f"{key}_interval")
            value = factor * getattr(score, key)
            shade = colour(name)
            ax.plot([factor * low, factor * high], [place, place], color=shade, lw=7, alpha=0.35)
            ax.plot(value, place, "D", color=shade, markersize=8)
            seeds = [factor * run[key] for run in runs.get(name, ())]
            ax.plot(seeds, [place + 0.3] * len(seeds), "o", color=shade, markerfacecolor="none")
        ax.set(xlabel=f"test {label}", ylim=(len(scores) - 0.4, -0.5))
    axes[0].set_yticks(range(len(scores)), list(scores))
    return figure


def curves_by(histories: Mapping[str, Sequence[Scores]], line: float) -> Figure:
    """The AUC of models that were trained live, by images seen and by seconds.

    Args:
        histories: name -> rows with "images", "seconds" and "auc".
        line: AUC of the linear model.
    """
    figure, axes = plt.subplots(
        1,
        2,
        figsize=(8.4, 3.1),
        sharey=True,
        layout="constrained",
    )
    words = {"images": "training images seen", "seconds": "training time (s)"}
    for ax, (key, label) in zip(axes, words.items()):
        for name, history in histories.items():
            x = [row[key] for row in history]
            y = [row["auc"] for row in history]
            ax.plot(
                x,
                y,
                marker=".",
                linewidth=2.2,
                color=colour(name),
            )
            ax.annotate(
                f" {name}",
                (x[-1], y[-1]),
                color=colour(name),
                va="center",
                fontsize=11,
            )
        ax.axhline(line, color="black", linestyle="--", linewidth=1)
        ax.set_xlabel(label)
        longest = max(history[-1][key] for history in histories.values())
        ax.set_xlim(0, 1.2 * longest)
    axes[0].set_ylabel("test AUC")
    if np.isfinite(line):  # some images have only one class, and no AUC
        right = axes[0].get_xlim()[1]
        axes[0].text(right, line + 0.005, "linear model", ha="right", va="bottom")
        axes[0].set_ylim(None, line + 0.07)
    return figure


def threshold_figure(curves: Mapping[str, np.ndarray], thresholds: np.ndarray) -> Figure:
    """Accuracy at each threshold, with the best one marked.

    Args:
        curves: name -> accuracy at each threshold, fractions.
        thresholds: as many probabilities.
    """
    figure, ax = plt.subplots(figsize=(7, 3), layout="constrained")
    for name, accuracy in curves.items():
        best = accuracy.argmax()
        ax.plot(
            thresholds,
            100 * accuracy,
            color=colour(name),
            linewidth=2,
            label=name,
        )
        ax.plot(
            thresholds[best],
            100 * accuracy[best],
            "v",
            color=colour(name),
            markersize=10,
        )
    ax.axvline(0.5, color=GREY, linestyle="--", linewidth=1)
    ax.set(xlabel="threshold: from this probability on, the answer is yes")
    ax.set_ylabel("right answers (%)")
    ax.legend(frameon=False)
    return figure


def reliability_figure(points: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Figure:
    """Predicted probability against what came true, a panel for each model.

    Args:
        points: name -> (mean probability of each group of images, share of the group that is it).
    """
    figure, axes = plt.subplots(
        1, len(points), figsize=(3 * len(points), 3.1), squeeze=False, layout="constrained"
    )
    for ax, (name, (predicted, true)) in zip(
        axes[0],
        points.items(),
    ):
        _draw_honest_line(ax)
        ax.plot(predicted, true, "o-", color=colour(name), linewidth=2)
        ax.set_title(name, color=colour(name), fontsize=11, loc="left")
        ax.set(
            xlabel="probability that was predicted",
            xlim=(0, 1),
            ylim=(0, 1),
            aspect="equal",
        )
    axes[0, 0].set_ylabel("share that came true")
    return figure


def _draw_honest_line(ax: Axes) -> None:
    """The diagonal, and where a model is surer than it may be."""
    ax.plot(
        [0, 1],
        [0, 1],
        color=GREY,
        linewidth=1,
    )
    ax.fill_between(
        [0.5, 1],
        [0.5, 1],
        [0, 0],
        color="#F3D9D9",
        linewidth=0,
    )
    ax.fill_between(
        [0, 0.5],
        [0, 0.5],
        [1, 1],
        color="#F3D9D9",
        linewidth=0,
    )
    for x, y in ((0.76, 0.1), (0.24, 0.9)):
        ax.text(
            x,
            y,
            "too sure",
            ha="center",
            va="center",
            fontsize=10,
            color="#9A4A4A",
        )
