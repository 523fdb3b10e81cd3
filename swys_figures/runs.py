"""Figures of extra 8: what many runs of the same students say, and one pair of them would not.

They take *studies*: name of a data set -> content of its agreement.json, in which each of the
"runs" has an "id", a "group" and a "seed".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from swys_utils.gradcam import METHODS
from swys_utils.metrics import t_interval
from swys_utils.plots import GREY, colour

from .agreement import SECOND_BASE
from .rows import name_rows, row_of_dots, write_in_row

# group of further runs of the teacher's kind; any other run's group is the title of its kind
ANOTHER = "another teacher"
IMAGES = {"pneumoniamnist": "X-rays", "bloodmnist": "blood cells"}  # data set -> its images
HIDING = "hiding"  # occlusion, as the notebooks call it
TAUGHT = "grad_cam"  # the maps in the loss of the students of maps


def agreement_histogram(agreements: Mapping[str, np.ndarray]) -> Figure:
    """How often two maps agree how much, for several kinds of pairs; the last kind stands out.

    Args:
        agreements: kind of pair -> rank correlations, float (N,) in [-1, 1], nan for none; at
            most three kinds.
    """
    figure, ax = plt.subplots(figsize=(8, 2.8), layout="constrained")
    shades = ["#BBBBBB", "#555555", colour("maps")][-len(agreements) :]
    for (name, values), shade in zip(agreements.items(), shades, strict=True):
        mean = np.nanmean(values) if np.isfinite(values).any() else np.nan
        ax.hist(
            values,
            bins=np.linspace(-1, 1, 31),
            color=shade,
            alpha=0.8,
            label=f"{name}: mean {mean:.2f}",
        )
    ax.set(xlabel="rank correlation of two maps", ylabel="images", xlim=(-1, 1))
    ax.legend(frameon=False, loc="upper left")
    return figure


def runs_figure(
    studies: Mapping[str, Mapping],
    values: Mapping[str, Mapping[str, float]],
    label: str,
    chance: Mapping[str, Mapping[str, float]] | None = None,
    lines: Mapping[str, Mapping[str, float]] | None = None,
    form: str = ".2f",
) -> Figure:
    """A panel for each data set, in it a row for each group, a dot for each run, and their mean.

    Args:
        studies: data set -> content of agreement.json.
        values: data set -> id of a run -> number.
        label: of the horizontal axis.
        chance: as ``values``; a grey stroke marks the mean of a group.
        lines: data set -> name of a vertical line, at most two -> where it is.
        form: of the means, which stand right of their rows.
    """
    groups = _groups(studies)
    figure, axes = _panels(studies, height=0.5 * len(groups) + 1.1)
    for ax, (name, study) in zip(axes, studies.items()):
        for place, group in enumerate(groups):
            if chance:
                _stroke(ax, _of_group(study, group, chance[name]), place, GREY)
            found = _of_group(study, group, values[name])
            _dots_and_stroke(ax, found, place, _shade(group))
            if found:
                mean = f"{np.mean(found):{form}}"
                write_in_row(ax, place, mean, at=1.02)
        _named_lines(ax, lines[name] if lines else {})
        ax.set(xlabel=label)
        ax.set_title(IMAGES.get(name, name), pad=22 if lines else 6)
    name_rows(axes[0], [_title(group) for group in groups])
    return figure


def differences_figure(
    differences: Mapping[str, Mapping[tuple[str, str], Sequence[float]]], label: str
) -> Figure:
    """What each pair of runs says, a circle, and the 95 % interval of the mean over seeds, a bar.

    Args:
        differences: data set -> (one group, the group that is subtracted) -> number of each seed.
        label: of the horizontal axis.
    """
    figure, axes = _panels(differences, height=2.9)
    for ax, (name, pairs) in zip(axes, differences.items()):
        for place, ((group, _), seeds) in enumerate(pairs.items()):
            shade = _shade(group)
            if len(seeds) > 1:
                ends = t_interval(seeds)
                (bar,) = ax.plot(ends, [place, place], color=shade)
                bar.set(linewidth=8, alpha=0.35)
            (circles,) = ax.plot(seeds, [place] * len(seeds), "o")
            circles.set(color=shade, markerfacecolor="white", markersize=8)
        ax.axvline(0, color="black", lw=1)
        ax.set(title=IMAGES.get(name, name), xlabel=label)
    pairs = next(iter(differences.values()))
    titles = [f"{group}\nminus {subtracted}" for group, subtracted in pairs]
    name_rows(axes[0], titles)
    return figure


def kinds_of_maps(studies: Mapping[str, Mapping]) -> Figure:
    """Agreement with the teacher by each way to explain, which has a panel: a dot for each run.

    A grey stroke is the mean of the agreement by chance.

    Args:
        studies: data set, which has a row of panels -> content of agreement.json.
    """
    groups = _groups(studies)
    figure, axes = plt.subplots(
        len(studies),
        len(METHODS),
        figsize=(8, (0.32 * len(groups) + 0.4) * len(studies) + 0.9),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    figure.set_layout_engine("constrained")
    for row, (name, study) in zip(axes, studies.items()):
        for ax, method in zip(row, METHODS):
            measured = study["maps"].get(method, {"runs": {}})
            _draw_kind(ax, study, measured["runs"], groups)
        row[0].set_ylabel(IMAGES.get(name, name), fontsize=11)
    for ax, entry in zip(axes[0], METHODS.values()):
        title = HIDING if entry.id == "occlusion" else entry.title.replace(" ", "\n")
        ax.set_title(f"{title}\n(taught)" if entry.id == TAUGHT else title, fontsize=10)
    name_rows(axes[0, 0], [_title(group) for group in groups])
    axes[0, 0].set(xlim=(-0.15, 1.08), xticks=[0, 0.5, 1])
    figure.supxlabel("agreement with the teacher; grey: chance", fontsize=10)
    return figure


def _draw_kind(
    ax: Axes, study: Mapping, rows: Mapping[str, Mapping], groups: Sequence[str]
) -> None:
    """One way to explain: below each other the groups that have been measured."""
    if not rows:
        words = ax.text(0.5, 0.5, "not\nmeasured", transform=ax.transAxes, color=GREY, fontsize=9)
        words.set(ha="center", va="center")
    for place, group in enumerate(groups):
        _stroke(ax, _of_group(study, group, _column(rows, "chance_in_class")), place, GREY)
        agreed = _of_group(study, group, _column(rows, "spearman"))
        _dots_and_stroke(ax, agreed, place, _shade(group))


def _dots_and_stroke(ax: Axes, values: Sequence[float], place: float, shade: str) -> None:
    """A dot for each value of a row, and a stroke at their mean; nothing without values."""
    if len(values):
        _stroke(ax, values, place, shade)
        row_of_dots(ax, place, np.array(values), shade)


def _named_lines(ax: Axes, lines: Mapping[str, float]) -> None:
    """At most two vertical lines, dashed and dotted, with their names above."""
    leftmost = min(lines.values(), default=0)
    for (text, x), style in zip(lines.items(), ["--", ":"]):
        ax.axvline(x, color="black", lw=1.3, ls=style, zorder=1)
        side = "right" if x == leftmost and len(lines) > 1 else "left"
        ax.text(x, 1.02, text, transform=ax.get_xaxis_transform(), ha=side, fontsize=9)


def _panels(named: Mapping[str, object], height: float) -> tuple[Figure, Sequence[Axes]]:
    """A figure with a panel for each data set, side by side."""
    figure, axes = plt.subplots(
        1,
        len(named),
        figsize=(7.4, height),
        sharey=True,
        squeeze=False,
    )
    figure.set_layout_engine("constrained")
    return figure, axes[0]


def _groups(studies: Mapping[str, Mapping]) -> list[str]:
    """Groups of runs in the order of their first appearance, the teacher's own kind last."""
    groups = []
    for study in studies.values():
        groups += [run["group"] for run in study["runs"]]
    unique = dict.fromkeys(groups)
    return sorted(unique, key=lambda group: group == ANOTHER)


def _title(group: str) -> str:
    return SECOND_BASE if group == ANOTHER else group


def _shade(group: str) -> str:
    return colour("Base" if group == ANOTHER else group)


def _of_group(study: Mapping, group: str, values: Mapping[str, float]) -> list[float]:
    """The values of the runs of a group, as far as they have one."""
    ids = [run["id"] for run in study["runs"] if run["group"] == group]
    return [values[run_id] for run_id in ids if run_id in values]


def _column(rows: Mapping[str, Mapping], key: str) -> dict[str, float]:
    return {run_id: row[key] for run_id, row in rows.items()}


def _stroke(ax: Axes, values: Sequence[float], place: float, shade: str) -> None:
    """A vertical stroke at the mean of some values of one row; none without values."""
    if len(values):
        mean = np.mean(values)
        (stroke,) = ax.plot([mean, mean], [place - 0.38, place + 0.38])
        stroke.set(color=shade, linewidth=2.5, zorder=1)
