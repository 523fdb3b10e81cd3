"""How scores of several models are drawn: with intervals and seeds, by threshold, by certainty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.special import logit

from swys_utils.metrics import Metrics
from swys_utils.plots import GREY, SCORES, Scores, colour

from .data import GROUPS
from .free_places import curve_points, write_in_one, write_near
from .marks import bracket, name_dot, point_along

HEALTHY = "#56B4E9"
SICK = "#882255"
FEW = 10  # answers, whose share of right ones says little
LOWEST_AUC = 0.78  # of the curves by images and seconds: below it all models look alike


def scores_with_seeds(
    scores: Mapping[str, Metrics],
    runs: Mapping[str, Sequence[Scores]],
    keys: Sequence[str] = tuple(SCORES),
) -> Figure:
    """Each score of each model as a bar, its interval over test images, and a circle for each run.

    Args:
        scores: name -> scores of one model.
        runs: name -> scores of its runs with other seeds, fractions; may be empty.
        keys: which scores have a panel, of ``plots.SCORES``.
    """
    figure, axes = plt.subplots(
        1,
        len(keys),
        figsize=(2 + 2.9 * len(keys), 2.9),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for ax, key in zip(axes[0], keys):
        label, factor = SCORES[key]
        for place, (name, score) in enumerate(scores.items()):
            interval = getattr(score, f"{key}_interval")
            shade = colour(name)
            ends = [factor * end for end in interval]
            ax.plot(ends, [place, place], color=shade, lw=7, alpha=0.35)
            ax.plot(factor * getattr(score, key), place, "D", color=shade, markersize=8)
            seeds = [factor * run[key] for run in runs.get(name, ())]
            ax.plot(seeds, [place + 0.3] * len(seeds), "o", color=shade, markerfacecolor="none")
            if ax is axes[0, 0]:
                _name_marks(ax, name, place, ends, seeds)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        better = ", lower is better" if key == "ece" else ""
        ax.set(xlabel=f"test {label}{better}", ylim=(len(scores) - 0.4, -0.5))
    axes[0, 0].set_yticks(range(len(scores)), list(scores))
    return figure


def _name_marks(
    ax: Axes, name: str, place: int, interval: Sequence[float], seeds: Sequence[float]
) -> None:
    """Above the bar whose it is, and beside the circles that they are other seeds."""
    shade = colour(name)
    ax.text(
        sum(interval) / 2,
        place - 0.14,
        f"our {name}, 95 % interval",
        ha="center",
        va="bottom",
        color=shade,
    )
    if seeds:
        words = "other seed" if len(seeds) == 1 else "other seeds"
        ax.annotate(
            words,
            (min(seeds), place + 0.3),
            (-8, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            color=shade,
        )


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
        longest = max(history[-1][key] for history in histories.values())
        ax.set_xlim(0, 1.25 * longest)
        ax.axhline(line, color="black", linestyle="--", linewidth=1)
        ax.set_xlabel(label)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.xaxis.set_major_formatter("{x:,.0f}")
    axes[0].set_ylabel("test AUC")
    if np.isfinite(line):  # some images have only one class, and no AUC
        top = max(line + 0.04, axes[0].get_ylim()[1] + 0.01)
        axes[0].set_ylim(min(LOWEST_AUC, top - 0.2), top)
    for ax, key in zip(axes, words):
        _name_curves(ax, histories, key, line)
    return figure


def _name_curves(
    ax: Axes, histories: Mapping[str, Sequence[Scores]], key: str, line: float
) -> None:
    """The name of each model near the end of its curve, and of the line; no curve crosses them."""
    points = curve_points(ax)
    to_shares = ax.transData + ax.transAxes.inverted()
    for name, history in histories.items():
        last = history[-1]
        if np.isfinite(last["auc"]):
            x, y = to_shares.transform((last[key], last["auc"]))
            points = write_near(ax, name, (x, y), points, colour(name))
    if np.isfinite(line):
        _, height = to_shares.transform((0, line))
        places = product((0.84, 0.7, 0.5, 0.3, 0.16), (height + 0.055, height - 0.055))
        write_in_one(ax, "linear model", list(places), points, "black")


def roc_figure(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    at_half: Mapping[str, Sequence[float]],
    seeds: Mapping[str, Sequence[Sequence[float]]],
    groups: tuple[str, str] = GROUPS,
) -> Figure:
    """Sensitivity against false alarms at all thresholds, and where 0.5 lies for each run.

    Args:
        curves: name -> sensitivity and specificity at each threshold, fractions.
        at_half: name -> (sensitivity, specificity) of that model at the threshold of 0.5.
        seeds: name -> the same of its runs with other seeds; may be empty.
        groups: of ``data.group_names``.
    """
    figure, ax = plt.subplots(figsize=(6.8, 4.6), layout="constrained")
    dots = {name: _as_dot(pair) for name, pair in at_half.items()}
    leftmost = min(dots, key=lambda name: dots[name][0])
    furthest, _ = max(dots.values())
    lowest = min(found for _, found in dots.values())
    highest = max(found for _, found in dots.values())
    right = max(45, 10 + furthest)
    for name, (sensitivity, specificity) in curves.items():
        shade = colour(name)
        ax.plot(100 * (1 - specificity), 100 * sensitivity, color=shade, linewidth=2)
        others = [_as_dot(pair) for pair in seeds.get(name, ())]
        for other in others:
            ax.plot(*other, "o", color=shade, markerfacecolor="white")
        ax.plot(*dots[name], "o", color=shade, markersize=11)
        to_the_left = name == leftmost and dots[name][0] > 0.22 * right
        name_dot(ax, name, dots[name], to_the_left)
    sick, healthy = groups
    ax.set(
        xlabel=f"{healthy} who are called {sick} (%): 100 - specificity",
        ylabel=f"{sick} who are found (%): sensitivity",
        xlim=(0, right),
        ylim=(min(70, lowest - 10), max(103, highest + 12)),
    )
    ax.set_yticks([tick for tick in ax.get_yticks() if tick <= 100])
    point_along(ax, next(iter(curves.values())))
    bracket(ax, dots, healthy)
    _name_circles(ax, {name: [_as_dot(pair) for pair in pairs] for name, pairs in seeds.items()})
    return figure


def _name_circles(ax: Axes, circles: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """Beside the circles of other runs whose they are, clear of the curves and of all circles."""
    to_shares = ax.transData + ax.transAxes.inverted()
    points = [curve_points(ax)]
    points += [to_shares.transform(dots) for dots in circles.values() if len(dots)]
    taken = np.vstack(points)
    for name, dots in circles.items():
        if len(dots):
            words = f"other {name}s" if len(dots) > 1 else f"other {name}"
            furthest = to_shares.transform(max(dots)).tolist()  # to the right
            taken = write_near(ax, words, furthest, taken, colour(name))


def _as_dot(pair: Sequence[float]) -> tuple[float, float]:
    """False alarms and found, %, of a sensitivity and a specificity."""
    found, cleared = pair
    return 100 * (1 - cleared), 100 * found


def right_about(correct: np.ndarray, label: int) -> np.ndarray:
    """Which answers are right; where an image can have several labels, those about one of them.

    Args:
        correct: bool (N,), or (N, L) of several labels.
        label: the one that is asked about.

    Returns:
        bool (N,).
    """
    return correct if correct.ndim == 1 else correct[:, label]


def recall_of_runs(
    runs: Mapping[str, Sequence[Mapping[str, Any]]],
) -> dict[str, list[tuple[float, float]]]:
    """Sensitivity and specificity of runs with two classes, at the threshold of 0.5.

    Args:
        runs: name -> entries of runs.json; those of more classes are left out.
    """
    pairs: dict[str, list[tuple[float, float]]] = {}
    for name, entries in runs.items():
        pairs[name] = []
        for entry in entries:
            shares = entry.get("recall") or []
            if len(shares) == 2:
                specificity, sensitivity = shares
                pairs[name].append((sensitivity, specificity))
    return pairs


def reliability_figure(points: Mapping[str, Sequence[np.ndarray]], answers: int) -> Figure:
    """How sure a model is of its answers against how often they are right, a panel for each.

    The title says the calibration error.

    Args:
        points: name -> (mean certainty of each group of answers, share of them that is right, share
            of all answers that the group is); the area of a dot goes with the last.
        answers: of each model; a group of fewer than ``FEW`` is faint, and no line goes to it.
    """
    figure, axes = plt.subplots(
        1, len(points), figsize=(3 * len(points), 3.3), squeeze=False, layout="constrained"
    )
    left = _tenth_below([sure for sure, _, _ in points.values()])
    low = _tenth_below([right for _, right, _ in points.values()])
    for ax, (name, (sure, right, size)) in zip(axes[0], points.items()):
        diagonal = [left, 1]
        ax.plot(diagonal, diagonal, color=GREY, linewidth=1)
        ax.fill_between(
            diagonal,
            diagonal,
            low,
            color="#F3D9D9",
            linewidth=0,
        )
        ax.text(
            0.98,
            low + 0.03,
            "too sure",
            ha="right",
            fontsize=10,
            color="#9A4A4A",
        )
        few = np.round(np.asarray(size) * answers) < FEW
        _draw_groups(ax, np.array([sure, right, size]), few, colour(name))
        error = np.sum(np.asarray(size) * abs(np.asarray(sure) - right))
        title = f"{name}\ncalibration error {error:.3f}"
        ax.set_title(title, color=colour(name), fontsize=11, loc="left")
        ax.set(
            xlabel="how sure (mean of a group)",
            xlim=(left - 0.04, 1.04),
            ylim=(low - 0.04, 1.04),
        )
    axes[0, 0].set_ylabel("share that is right")
    return figure


def _draw_groups(ax: Axes, groups: np.ndarray, few: np.ndarray, shade: str) -> None:
    """A dot for each group of answers; those with few are faint and on no line."""
    sure, right, size = groups
    ax.plot(sure, np.where(few, np.nan, right), color=shade, linewidth=1)
    dots = ax.scatter(
        sure,
        right,
        30 + 600 * size,
        color=shade,
        edgecolor="white",
        zorder=3,
    )
    dots.set_alpha(np.where(few, 0.3, 1.0).tolist())


def _tenth_below(groups: Sequence[np.ndarray]) -> float:
    """The lowest value, rounded down to a tenth; at most one half."""
    lowest = min(np.min(values) for values in groups)
    return min(0.5, np.floor(10 * lowest) / 10)


def probability_histograms(
    panels: Mapping[str, tuple[np.ndarray, np.ndarray]],
    name: str,
    groups: tuple[str, str] = GROUPS,
) -> Figure:
    """The probabilities that a model gives to the sick (upwards) and to the healthy (downwards).

    Above each panel stand how many sick ones the model expects and how many there are.

    Args:
        panels: title -> (probability of being sick (N,), whether that is true, bool (N,)).
        name: of the sickness.
        groups: what images with it are called, and what all others.
    """
    figure, axes = plt.subplots(
        1,
        len(panels),
        figsize=(3.1 * len(panels), 3.1),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    ticks = np.array([0.01, 0.1, 0.5, 0.9, 0.99])
    bins = np.linspace(logit(0.002), logit(0.9995), 28)
    for ax, (title, (probability, sick)) in zip(axes[0], panels.items()):
        evidence = logit(probability.astype(float)).clip(bins[0], bins[-1])
        share = 100 / len(sick)
        for members, sign, shade in ((sick, 1, SICK), (~sick, -1, HEALTHY)):
            weights = np.full(members.sum(), sign * share)
            ax.hist(evidence[members], bins, weights=weights, color=shade)
        expected = f"expects {100 * probability.mean():.0f} of 100 {groups[0]}"
        ax.set_title(f"{title}\n{expected}, {100 * sick.mean():.0f} are", fontsize=10, loc="left")
        ax.axvline(0, color=GREY, linewidth=1)
        ax.axhline(0, color=GREY, linewidth=1)
        names = [f"{tick:.0%}" for tick in ticks]
        ax.set_xticks(logit(ticks), names)
        ax.set_xlabel(f"probability of {name}")
    axes[0, 0].set_ylabel("of 100 images")
    axes[0, 0].yaxis.set_major_formatter(lambda height, place: f"{abs(height):.0f}")
    first = axes[0, 0]
    inside = first.transAxes
    first.text(0.04, 0.92, groups[0], color=SICK, transform=inside)
    first.text(0.7, 0.04, groups[1], color=HEALTHY, transform=inside)
    return figure
