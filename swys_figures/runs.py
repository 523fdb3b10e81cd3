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

ANOTHER = "another teacher"  # group of the runs that are the teacher's kind with another seed


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
) -> Figure:
    """A panel for each data set, in it a row for each group, a circle for each run, a bar: mean.

    Args:
        studies: data set -> content of agreement.json.
        values: data set -> id of a run -> number.
        label: of the horizontal axis.
        chance: as ``values``; a grey tick marks the mean of a group.
        lines: data set -> name of a vertical line, at most two -> where it is.
    """
    groups = _groups(studies)
    figure, axes = _panels(studies, height=0.5 * len(groups) + 0.9)
    for ax, (name, study) in zip(axes, studies.items()):
        for place, group in enumerate(groups):
            found = _of_group(study, group, values[name])
            _circles(ax, found, place, _shade(group), fill="none")
            _bar(ax, found, place, _shade(group))
            if chance:
                _bar(ax, _of_group(study, group, chance[name]), place, GREY)
        if lines:
            _named_lines(ax, lines[name])
        ax.set(title=name, xlabel=label)
    _name_rows(axes, [_title(group) for group in groups])
    if lines:
        handles, texts = axes[0].get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside upper right", ncols=2, frameon=False)
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
            _circles(ax, seeds, place, shade, fill="white")
        ax.axvline(0, color="black", lw=1)
        ax.set(title=name, xlabel=label)
    pairs = next(iter(differences.values()))
    titles = [f"{group}\nminus {subtracted}" for group, subtracted in pairs]
    _name_rows(axes, titles)
    return figure


def kinds_of_maps(studies: Mapping[str, Mapping]) -> Figure:
    """Agreement with the teacher by each way to explain: a line spans the runs, a dot is the mean.

    A grey tick is the mean of the agreement by chance.

    Args:
        studies: data set -> content of agreement.json.
    """
    groups = _groups(studies)
    figure, axes = _panels(studies, height=4.4)
    for ax, (name, study) in zip(axes, studies.items()):
        for place, method in enumerate(METHODS):
            measured = study["maps"].get(method, {"runs": {}})
            _draw_kind(ax, place, study, measured["runs"], groups)
        ax.set(title=name, xlabel="agreement with the teacher")
        ax.set_xlim(-0.12, 1.02)
    _name_rows(axes, [entry.title for entry in METHODS.values()])
    position = list(METHODS).index("grad_cam")  # it was in the loss of answers + maps
    axes[0].get_yticklabels()[position].set_fontweight("bold")
    for group in groups:
        (line,) = axes[0].plot(
            [],
            [],
            "o-",
            color=_shade(group),
        )
        line.set_label(_title(group))
    (tick,) = axes[0].plot(
        [],
        [],
        "|",
        color=GREY,
    )
    tick.set(label="chance", markersize=9, markeredgewidth=2)
    figure.legend(loc="outside upper center", ncols=5, frameon=False, fontsize=9)
    return figure


def _draw_kind(
    ax: Axes, place: int, study: Mapping, rows: Mapping[str, Mapping], groups: Sequence[str]
) -> None:
    """One way to explain: below each other the groups that have been measured."""
    if not rows:
        note = ax.text(0.02, place, "not measured")
        note.set(color=GREY, va="center", fontsize=9)
    offsets = np.linspace(-0.27, 0.27, len(groups))
    for offset, group in zip(offsets, groups):
        height = place + offset
        shade = _shade(group)
        found = _of_group(study, group, _column(rows, "spearman"))
        if not found:
            continue
        chance = _of_group(study, group, _column(rows, "chance_in_class"))
        (tick,) = ax.plot(
            np.mean(chance),
            height,
            "|",
            color=GREY,
        )
        tick.set(markersize=9, markeredgewidth=2)
        ends = [min(found), max(found)]
        ax.plot(
            ends,
            [height, height],
            color=shade,
            lw=2,
        )
        ax.plot(np.mean(found), height, "o", color=shade)


def _circles(ax: Axes, values: Sequence[float], place: float, shade: str, fill: str) -> None:
    """A circle for each value of a row."""
    (circles,) = ax.plot(values, [place] * len(values), "o")
    circles.set(color=shade, markerfacecolor=fill, markersize=8)


def _named_lines(ax: Axes, lines: Mapping[str, float]) -> None:
    """At most two vertical lines, dashed and dotted, with their names for a legend."""
    for (text, x), style in zip(lines.items(), ["--", ":"]):
        line = ax.axvline(x, color="black", lw=1.3)
        line.set(linestyle=style, label=text, zorder=1)


def _name_rows(axes: Sequence[Axes], titles: Sequence[str]) -> None:
    """Names of the rows, from above; the panels share their vertical axis."""
    axes[0].set_yticks(range(len(titles)), titles)
    axes[0].set_ylim(len(titles) - 0.5, -0.5)


def _panels(named: Mapping[str, object], height: float) -> tuple[Figure, Sequence[Axes]]:
    """A figure with a panel for each data set, side by side."""
    figure, axes = plt.subplots(
        1,
        len(named),
        figsize=(8.4, height),
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
    return "another Base" if group == ANOTHER else group


def _shade(group: str) -> str:
    return colour("Base" if group == ANOTHER else group)


def _of_group(study: Mapping, group: str, values: Mapping[str, float]) -> list[float]:
    """The values of the runs of a group, as far as they have one."""
    ids = [run["id"] for run in study["runs"] if run["group"] == group]
    return [values[run_id] for run_id in ids if run_id in values]


def _column(rows: Mapping[str, Mapping], key: str) -> dict[str, float]:
    return {run_id: row[key] for run_id, row in rows.items()}


def _bar(ax: Axes, values: Sequence[float], place: float, shade: str) -> None:
    """A vertical bar at the mean of some values of one row; none without values."""
    if len(values):
        mean = np.mean(values)
        (bar,) = ax.plot([mean, mean], [place - 0.38, place + 0.38])
        bar.set(color=shade, linewidth=2.5, zorder=1)
