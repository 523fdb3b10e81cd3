"""How much two models agree, by two rulers: the figures of notebooks 4 and 5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from swys_utils.models import SERIES, lesson_models
from swys_utils.plots import GREY, colour
from swys_utils.shipped_results import SeriesResults, read_results

from .scores import AS_LONG_AS_BASE

QUESTIONS = {  # way to explain -> the question that it answers
    "grad_cam": "SAME MAP?\nGrad-CAM,\nagreement",
    "occlusion": "SAME REASONS?\nhidden patches,\nagreement",
}


class Measure(NamedTuple):
    """What a panel of notebook 4 shows of each pair of models.

    Attributes:
        title: of the panel.
        ruler: way to explain.
        value: field of a row of agreement.json.
        chance: its field for the maps of two different images.
        form: how a value is written.
    """

    title: str
    ruler: str
    value: str
    chance: str
    form: str


MEASURES = (
    Measure("Grad-CAM:\nsame order of patches", "grad_cam", "spearman", "chance_in_class", ".2f"),
    Measure("hiding:\nsame order of patches", "occlusion", "spearman", "chance_in_class", ".2f"),
    Measure("hiding:\nsame hottest patch", "occlusion", "same_top", "same_top_chance", ".0%"),
)


def agreement_figure(results: SeriesResults) -> Figure:
    """Tiny's and another Base's maps with Base's, and those of two Tinys: a dot for each run.

    At the right end of a row stand the mean and, in brackets, chance, and below them how far the
    mean has come on the way from chance to 1.

    Args:
        results: of ``shipped_results.series_results``; what was not measured is left out.
    """
    measures = [measure for measure in MEASURES if measure.ruler in results.agreement]
    figure, axes = plt.subplots(
        1,
        max(1, len(measures)),
        figsize=(8.8, 3.9),
        sharey=True,
        squeeze=False,
    )
    figure.set_layout_engine("constrained")
    for ax, measure in zip(axes[0], measures):
        compared = results.agreement[measure.ruler]
        rows = {
            "Tiny\nwith Base": compared.get("vit_tiny", []),
            "Tiny, 12 passes,\nwith Base": _after_equal_passes(results.dataset, measure.ruler),
            "another Base\nwith Base": compared.get("vit_base", []),
            "two Tinys": results.siblings.get(measure.ruler, []),
        }
        for place, (title, runs) in enumerate(rows.items()):
            shade = colour("Base" if title.startswith("another") else "Tiny")
            _draw_agreement(ax, place, runs, shade, measure)
            _write_agreement(ax, place, runs, measure)
        ax.set_title(measure.title, loc="left", fontsize=10)
        ax.set_xlim(-0.1, 1.9)
        ax.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.set_yticks(range(len(rows)), rows)
    axes[0, 0].set_xlabel("grey line and brackets: chance")
    return figure


def _after_equal_passes(dataset: str, ruler: str) -> list[dict]:
    """What was measured of the Tinys that saw the images as often as Base did."""
    content = read_results(dataset, "agreement")
    if content is None or ruler not in content["maps"]:
        return []
    runs = content["maps"][ruler]["runs"]
    return [row for run_id, row in runs.items() if run_id.startswith(AS_LONG_AS_BASE)]


def _write_agreement(ax: Axes, place: float, runs: Sequence[Mapping], measure: Measure) -> None:
    """Two lines at the right end of a row: the mean and chance, and the way from there to 1."""
    measured = [run for run in runs if measure.value in run]
    if not measured:
        return
    mean = np.mean([run[measure.value] for run in measured])
    chance = np.mean([run[measure.chance] for run in measured])
    way = (mean - chance) / (1 - chance)
    text = f"{mean:{measure.form}} ({chance:{measure.form}})\n{way:.0%} of the way"
    ax.text(1.9, place, text, ha="right", va="center", fontsize=9)


def three_questions(results: SeriesResults) -> Figure:
    """Same answers, same maps, same reasons as Base: a dot for each complete run.

    Args:
        results: of ``shipped_results.series_results``.
    """
    rulers = [ruler for ruler in QUESTIONS if ruler in results.agreement]
    figure, axes = plt.subplots(
        1,
        1 + len(rulers),
        figsize=(8.4, 3.4),
        sharey=True,
    )
    figure.set_layout_engine("constrained")
    teacher, *students = lesson_models()
    names = [name for name in (teacher, *students) if name in results.same_answers]
    for place, name in enumerate(names):
        shade = colour(SERIES[name].title)
        row_of_dots(
            axes[0],
            place,
            100 * np.array(results.same_answers[name]),
            shade,
        )
        for ax, ruler in zip(axes[1:], rulers):
            _draw_agreement(
                ax,
                place,
                results.agreement[ruler].get(name, []),
                shade,
            )
    titles = [SERIES[name].title for name in names]
    titles = ["another Base" if title == "Base" else title for title in titles]
    if results.siblings:
        _draw_siblings(axes, len(titles), results, rulers)
        titles.append("(two Tinys)")
    axes[0].set_title("SAME ANSWERS?\n% of the images,\nas Base", fontsize=10, loc="left")
    for ax, ruler in zip(axes[1:], rulers):
        ax.set_title(QUESTIONS[ruler], fontsize=10, loc="left")
        ax.set_xlim(min(0, ax.get_xlim()[0]), 1.02)
        ax.set_xlabel("grey line: chance")
    axes[0].set(
        xlim=(85, 100),
        yticks=range(len(titles)),
        ylim=(len(titles) - 0.5, -0.5),
    )
    axes[0].set_yticklabels(titles)
    return figure


def _draw_siblings(
    axes: Sequence[Axes], place: float, results: SeriesResults, rulers: Sequence[str]
) -> None:
    """The row of two Tinys that differ in their random weights only."""
    shade = colour("Tiny")
    row_of_dots(axes[0], place, 100 * np.array(results.siblings_answers), shade)
    for ax, ruler in zip(axes[1:], rulers):
        _draw_agreement(ax, place, results.siblings.get(ruler, []), shade)


def _draw_agreement(
    ax: Axes,
    place: float,
    rows: Sequence[Mapping],
    shade: str,
    measure: Measure = MEASURES[0],
) -> None:
    """A bar from chance to the mean, and a dot for each run."""
    measured = [row for row in rows if measure.value in row]
    if not measured:
        return
    values = np.array([row[measure.value] for row in measured])
    chance = np.mean([row[measure.chance] for row in measured])
    ax.barh(place, values.mean() - chance, left=chance, color=shade, alpha=0.3)
    ax.plot([chance, chance], [place - 0.4, place + 0.4], color=GREY, lw=2)
    row_of_dots(ax, place, values, shade)


def row_of_dots(ax: Axes, place: float, values: np.ndarray, shade: str) -> None:
    """Values of one row, a little below each other.

    Args:
        ax: where they are drawn.
        place: of the row on the vertical axis.
        values: float (N,), on the horizontal axis.
        shade: colour of the dots.
    """
    offsets = np.zeros(1)
    if len(values) > 1:
        offsets = np.linspace(-0.2, 0.2, len(values))
    ax.plot(values, place + offsets, "o", ms=6, color=shade, mec="white")
