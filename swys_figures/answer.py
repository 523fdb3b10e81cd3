"""The figure that answers the question of the series: what is kept when a model is shrunk?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import binomtest

from swys_utils.data import DEFAULT_DATASET
from swys_utils.models import SERIES, count_parameters, create_model, lesson_models
from swys_utils.plots import GREY, colour
from swys_utils.shipped_results import SeriesResults, series_results

QUESTIONS = {  # way to explain -> the question that its row asks
    "grad_cam": "SAME MAP?\nGrad-CAM,\nagreement\nwith Base",
    "occlusion": "SAME REASONS?\nhidden patches,\nagreement\nwith Base",
}
DOTS = 0.22  # how far apart the dots of one column may lie


@dataclass
class Column:
    """One model of the figure.

    Attributes:
        title: its name.
        accuracy: of each run, a fraction.
        ece: calibration error of each run, a fraction.
        megabytes: size of its weights.
        milliseconds: of one image; None where it was not measured.
        places: way to explain -> agreement with Base of each run.
        chance: way to explain -> agreement by chance, of two images with the same answer.
        siblings: "same", or a way to explain -> the same answers, or the agreement, of two runs of
            this model with each other, where that was measured.
        remarks: "same", or a way to explain -> a text in the place of its dots.
        same: share of the images with Base's answer, of each run.
        cleared: of two classes, share of the images of the first (the healthy) that are named so,
            of each run.
    """

    title: str
    accuracy: Sequence[float]
    ece: Sequence[float]
    megabytes: float
    milliseconds: float | None = None
    places: dict[str, list[float]] = field(default_factory=dict)
    chance: dict[str, float] = field(default_factory=dict)
    siblings: dict[str, float] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict)
    same: Sequence[float] = ()
    cleared: Sequence[float] = ()


def answer_figure(
    dataset: str = DEFAULT_DATASET,
    milliseconds: Mapping[str, float] | None = None,
    more: Sequence[Column] = (),
) -> Figure:
    """What is kept: accuracy, calibration, cost, the answers, and where a model looks.

    A dot is a run with another seed. The bars of the last rows begin at chance, the agreement of
    two different images with the same answer, and end at the mean; the dashed line is a second
    Base, trained from other random weights, and the short one in Tiny's column how alike two Tinys
    are.

    Args:
        dataset: ``Info.results_name``; where it has no finished runs, the default one is shown.
        milliseconds: title of a model -> measured time of one image.
        more: further columns of the same data, such as a file of int8 weights; left out where
            another data set is shown.

    Returns:
        A figure that pyplot does not know.
    """
    results = series_results(dataset)
    columns = [_column(results, name) for name in lesson_models() if name in results.runs]
    columns += more if results.dataset == dataset else []
    for column in columns:
        column.milliseconds = (milliseconds or {}).get(column.title, column.milliseconds)
    places = [method for method in QUESTIONS if method in results.agreement]
    rows: list[tuple[float, Callable[[Axes], None]]] = []
    rows.append((1, lambda ax: _draw_scores(ax, columns, "accuracy", results.images)))
    if any(len(column.cleared) for column in columns):
        rows.append((0.9, lambda ax: _draw_cleared(ax, columns)))
    rows.append((0.9, lambda ax: _draw_scores(ax, columns, "ece", results.images)))
    rows.append((1, lambda ax: _draw_cost(ax, columns)))
    rows.append((0.9, lambda ax: _draw_same_answers(ax, columns)))
    for method in places:
        rows.append((1.25, partial(_draw_places, columns=columns, method=method)))
    heights = [height for height, _ in rows]
    figure = Figure(figsize=(8.4, 1.25 * sum(heights) + 0.6), layout="constrained", dpi=90)
    axes = figure.subplots(len(rows), 1, sharex=True, height_ratios=heights)
    for ax, (_, draw) in zip(axes, rows):
        draw(ax)
    axes[0].set_xlim(-0.5, len(columns) - 0.3)
    _draw_headings(axes[0], columns)
    _draw_title(figure, results)
    return figure


def _draw_headings(top: Axes, columns: Sequence[Column]) -> None:
    """The name of each model above its column."""
    for place, column in enumerate(columns):
        title = column.title.replace(", ", ",\n").replace(" + ", "\n+ ")
        above = top.text(
            place, 1.05, title, transform=top.get_xaxis_transform(), ha="center", fontsize=9
        )
        above.set(color=colour(column.title), weight="bold")


def _draw_title(figure: Figure, results: SeriesResults) -> None:
    """Which data and how many images."""
    text = f"{results.dataset}, {results.images} test images; a dot is a training run"
    figure.suptitle(text, x=0.01, ha="left", fontsize=10, color=GREY)


def _column(results: SeriesResults, name: str) -> Column:
    """What is known of a model of the series."""
    runs = results.runs[name]
    model = create_model(name, num_classes=2)
    places = {}
    chance = {}
    for method, rows in results.agreement.items():
        if name in rows:
            places[method] = [row["spearman"] for row in rows[name]]
            chance[method] = float(np.mean([row["chance_in_class"] for row in rows[name]]))
    siblings = {}
    if name == "vit_tiny":
        if results.siblings_answers:
            siblings["same"] = 100 * float(np.mean(results.siblings_answers))
        for method, pairs in results.siblings.items():
            siblings[method] = float(np.mean([pair["spearman"] for pair in pairs]))
    return Column(
        title=SERIES[name].title,
        accuracy=[run["last"]["accuracy"] for run in runs],
        ece=[run["last"]["ece"] for run in runs],
        megabytes=4 * count_parameters(model) / 1e6,
        same=results.same_answers.get(name, ()),
        cleared=[run["recall"][0] for run in runs if len(run["recall"]) == 2],
        places=places,
        chance=chance,
        siblings=siblings,
    )


def _draw_scores(ax: Axes, columns: Sequence[Column], key: str, images: int) -> None:
    """A dot for each run, the mean as a number, and Base's interval as a band (of accuracy)."""
    for place, column in enumerate(columns):
        values = 100 * np.asarray(getattr(column, key))
        _dots(ax, place, values, colour(column.title))
        ax.text(
            place + 0.2,
            values.mean(),
            f"{values.mean():.1f}",
            va="center",
            weight="bold",
        )
    if key == "accuracy":
        mean = np.mean(columns[0].accuracy)
        interval = binomtest(round(mean * images), images).proportion_ci(method="wilson")
        ax.axhspan(
            100 * interval.low,
            100 * interval.high,
            color="#0072B2",
            alpha=0.1,
            lw=0,
        )
        every = np.concatenate([column.accuracy for column in columns])
        ax.set_ylim(
            100 * min(every.min(), interval.low) - 1, 100 * max(every.max(), interval.high) + 1
        )
        _row_title(ax, "ACCURACY\n% of test\nimages right")
        note = f"shaded: Base,\n95 % interval of\n{images} images"
        _note(ax, note)
    else:
        highest = max(max(column.ece) for column in columns)
        ax.set_ylim(0, 100 * highest + 2)
        _row_title(ax, "CALIBRATION\nerror, points\n(0 is perfect)")


def _draw_cleared(ax: Axes, columns: Sequence[Column]) -> None:
    """Of the images of the first class, how many each run names so."""
    for place, column in enumerate(columns):
        if len(column.cleared):
            values = 100 * np.asarray(column.cleared)
            _dots(ax, place, values, colour(column.title))
            _number(ax, place + 0.2, values.mean(), f"{values.mean():.0f}")
    every = 100 * np.concatenate([column.cleared for column in columns])
    ax.set_ylim(every.min() - 2, every.max() + 2)
    _row_title(ax, "HEALTHY CLEARED\n% of the images\nwithout disease")


def _draw_cost(ax: Axes, columns: Sequence[Column]) -> None:
    """Bars of the size of the weights; sizes and times as numbers."""
    largest = max(column.megabytes for column in columns)
    for place, column in enumerate(columns):
        ax.bar(
            place,
            column.megabytes,
            width=0.3,
            color=colour(column.title),
            alpha=0.8,
        )
        text = f"{column.megabytes:.0f} MB"
        if column.milliseconds is not None:
            text += f"\n{column.milliseconds:.1f} ms"
        height = column.megabytes + 0.05 * largest
        ax.text(place, height, text, ha="center", va="bottom", weight="bold")
    is_timed = any(column.milliseconds is not None for column in columns)
    ax.set_ylim(0, (1.7 if is_timed else 1.4) * largest)
    _row_title(ax, "COST\nMB of weights" + (",\nms an image" if is_timed else ""))


def _draw_same_answers(ax: Axes, columns: Sequence[Column]) -> None:
    """The share of the images with Base's answer; of Base, that of a second Base."""
    lowest = 100.0
    for place, column in enumerate(columns):
        if "same" in column.remarks:
            _remark(ax, place, column.remarks["same"])
        if not len(column.same):
            continue
        values = 100 * np.asarray(column.same)
        lowest = min(lowest, values.min())
        _dots(ax, place, values, colour(column.title))
        _number(ax, place + 0.2, values.mean(), f"{values.mean():.1f}")
        if place == 0:
            ax.axhline(
                values.mean(),
                color=colour(column.title),
                ls="--",
                lw=1,
                zorder=0,
            )
            _second_base(ax, values.mean() - 0.5)
        _draw_siblings(ax, place, column, "same")
    ax.set_ylim(lowest - 3, 101)
    _row_title(ax, "SAME ANSWERS?\n% of images,\nas Base")


def _number(ax: Axes, x: float, y: float, text: str) -> None:
    """A mean beside its dots; no line crosses it."""
    label = ax.text(x, y, text, va="center", weight="bold")
    label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5})


def _remark(ax: Axes, place: float, text: str) -> None:
    """A text in the place of dots."""
    label = ax.text(place, 0.45, text, transform=ax.get_xaxis_transform())
    label.set(ha="center", va="center")
    label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1})


def _second_base(ax: Axes, height: float) -> None:
    """What the dashed line of a row is."""
    shade = colour("Base")
    ax.text(
        -0.48,
        height,
        "a second\nBase",
        va="top",
        color=shade,
        fontsize=8,
    )


def _draw_places(ax: Axes, columns: Sequence[Column], method: str) -> None:
    """A bar from chance to the mean agreement with Base, a dot for each run."""
    for place, column in enumerate(columns):
        if method in column.remarks:
            _remark(ax, place, column.remarks[method])
        if method not in column.places:
            continue
        values = np.asarray(column.places[method])
        low = column.chance[method]
        mean = values.mean()
        shade = colour(column.title)
        ax.bar(
            place,
            mean - low,
            bottom=low,
            width=0.3,
            color=shade,
            alpha=0.35,
        )
        ax.plot(
            [place - 0.22, place + 0.22],
            [low, low],
            color=GREY,
            lw=2,
        )
        _dots(ax, place, values, shade)
        _number(ax, place + 0.25, mean, f"{mean:.2f}")
        if place == 0:
            ax.axhline(mean, color=shade, ls="--", lw=1, zorder=0)
            _second_base(ax, mean - 0.04)
        _draw_siblings(ax, place, column, method)
    ax.set_ylim(min(0, ax.get_ylim()[0]), 1.05)
    _row_title(ax, QUESTIONS[method])
    _note(ax, "grey line:\ntwo images,\nsame answer\n(chance)")


def _draw_siblings(ax: Axes, place: float, column: Column, row: str) -> None:
    """A short line where two runs of a model stand that differ in their random weights only."""
    if row not in column.siblings:
        return
    height = column.siblings[row]
    shade = colour(column.title)
    ax.plot([place - 0.3, place + 0.3], [height, height], "--", color=shade, lw=1)
    words = ax.text(place - 0.33, height, "two\nTinys", va="top", ha="right")
    words.set(color=shade, fontsize=8)


def _dots(ax: Axes, place: float, values: np.ndarray, shade: str) -> None:
    """Values side by side around a place."""
    offsets = np.zeros(1)
    if len(values) > 1:
        offsets = np.linspace(-DOTS / 2, DOTS / 2, len(values))
    ax.plot(
        place + offsets,
        values,
        "o",
        ms=6,
        color=shade,
        mec="white",
        mew=0.8,
    )


def _row_title(ax: Axes, text: str) -> None:
    """The question of a row, left of it."""
    ax.set_ylabel(text, rotation=0, ha="right", va="center", labelpad=12)
    ax.set_xticks([])
    ax.spines["bottom"].set_visible(False)


def _note(ax: Axes, text: str) -> None:
    """A remark at the right end of a row."""
    ax.text(
        1.01,
        0.5,
        text,
        transform=ax.transAxes,
        va="center",
        color=GREY,
        fontsize=8,
    )
