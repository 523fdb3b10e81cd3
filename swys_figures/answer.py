"""The figure that answers the question of the series: what is kept when a model is shrunk?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import binomtest

from swys_utils.data import DEFAULT_DATASET
from swys_utils.models import SERIES, SeriesModel, lesson_models
from swys_utils.plots import GREY, colour
from swys_utils.shipped_results import SeriesResults, read_results, series_results

from .agreement import beyond_chance
from .benchmark import parameters_of
from .rows import write_beside

QUESTIONS = {  # way to explain -> the question that its row asks
    "occlusion": "SAME REASONS?\nhiding patches,\n% beyond chance,\nas Base",
    "grad_cam": "SAME MAP?\nGrad-CAM,\n% beyond chance,\nas Base",
}
BASE = SERIES["vit_base"].title
ROUNDED = f"{BASE}, int8"  # Base's own file, as `swys study deployed` measured it
LINES = "dashed:\na second Base,\ndotted:\ntwo Tinys"
NOTE: dict[str, Any] = {"at": 1.01, "color": GREY, "fontsize": 9}  # a remark right of a row
DOTS = 0.22  # how far apart the dots of one column may lie


@dataclass
class Column:
    """One model of the figure.

    Attributes:
        title: its name.
        accuracy: of each run, %.
        ece: calibration error of each run, points.
        cost: size of the weights and, where it was measured, the time of one image.
        same: % of the images with Base's answer, of each run.
        places: way to explain -> agreement with Base beyond chance of each run, %.
        siblings: "same", or a way to explain -> the same of two runs of this model with each other.
    """

    title: str
    accuracy: np.ndarray
    ece: np.ndarray
    cost: str
    same: np.ndarray
    places: dict[str, np.ndarray]
    siblings: dict[str, float] = field(default_factory=dict)


def answer_figure(
    dataset: str = DEFAULT_DATASET, milliseconds: Mapping[str, float] | None = None
) -> Figure:
    """What is kept: accuracy, calibration, the answers, their reasons, and the maps, at what cost.

    A dot is a run with another seed, and a dashed line a second Base, trained from other random
    weights. Beside Base stands its int8 file, where it was measured. Agreement of reasons and of
    maps is drawn beyond chance: 0 % is that of two different images with the same answer.

    Args:
        dataset: ``Info.results_name``; where it has no finished runs, the default one is shown.
        milliseconds: title of a model ("Base, int8" for the file) -> measured time of one image;
            that of "Tiny" stands below the other Tinys, too, because they are the same network.
    """
    results = series_results(dataset)
    names = [name for name in lesson_models() if name in results.runs]
    milliseconds = milliseconds or {}
    columns = [_column(results, name, milliseconds) for name in names]
    if columns[0].title == BASE:
        columns[1:1] = _rounded_columns(results.dataset, milliseconds)
    rows: list[tuple[float, Callable[[Axes], None]]] = [
        (1, lambda ax: _draw_accuracy(ax, columns, results.images)),
        (0.9, lambda ax: _draw_calibration(ax, columns)),
        (0.5, lambda ax: _draw_cost(ax, columns)),
        (1, lambda ax: _draw_same_answers(ax, columns)),
    ]
    for method in QUESTIONS:
        if method in results.agreement:
            rows.append((1.25, partial(_draw_places, columns=columns, method=method)))
    heights = [height for height, _ in rows]
    figure = plt.figure(figsize=(7.6, 1.25 * sum(heights) + 0.8), layout="constrained")
    grid = figure.subplots(len(rows), 1, sharex=True, squeeze=False, height_ratios=heights)
    axes = grid[:, 0]
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
    text = f"{results.dataset}, {results.images} test images; a dot is a training run or a file"
    figure.suptitle(text, x=0.01, ha="left", fontsize=10, color=GREY)


def _column(results: SeriesResults, name: str, milliseconds: Mapping[str, float]) -> Column:
    """What is known of a model of the series."""
    title = SERIES[name].title
    runs = results.runs[name]
    cost = f"{4 * parameters_of(name) / 1e6:.0f} MB"
    for network in _of_the_same_network(name):
        if network.title in milliseconds:
            cost += f", {milliseconds[network.title]:.1f} ms"
            break
    places = {}
    for method, models in results.agreement.items():
        if models.get(name):
            places[method] = beyond_chance(models[name])
    siblings = {}
    if name == "vit_tiny":
        if results.siblings_answers:
            siblings["same"] = 100 * float(np.mean(results.siblings_answers))
        for method, pairs in results.siblings.items():
            siblings[method] = float(beyond_chance(pairs).mean())
    return Column(
        title=title,
        accuracy=100 * np.array([run["last"]["accuracy"] for run in runs]),
        ece=100 * np.array([run["last"]["ece"] for run in runs]),
        cost=cost,
        same=100 * np.array(results.same_answers.get(name, ())),
        places=places,
        siblings=siblings,
    )


def _rounded_columns(dataset: str, milliseconds: Mapping[str, float]) -> list[Column]:
    """Base's int8 file; none where it was not measured."""
    content = read_results(dataset, "deployed") or {"models": []}
    columns = []
    for model in content["models"]:
        if model["title"] == ROUNDED:
            cost = f"{model['megabytes']:.0f} MB"
            if ROUNDED in milliseconds:
                cost += f", {milliseconds[ROUNDED]:.1f} ms, in ONNX"
            column = Column(
                title=ROUNDED,
                accuracy=100 * np.array([model["accuracy"]]),
                ece=100 * np.array([model["ece"]]),
                cost=cost,
                same=100 * np.array([model["same_answer"]]),
                places={method: beyond_chance([model[method]]) for method in QUESTIONS},
            )
            columns.append(column)
    return columns


def _of_the_same_network(name: str) -> list[SeriesModel]:
    """The models of the series with the architecture and the geometry of this one, it among them.

    They differ in how they were taught, so that all of them take the same time.
    """
    model = SERIES[name]
    network = (model.timm_name, model.img_size, model.patch_size)
    return [
        other
        for other in SERIES.values()
        if (other.timm_name, other.img_size, other.patch_size) == network
    ]


def _draw_accuracy(ax: Axes, columns: Sequence[Column], images: int) -> None:
    """A dot for each run, and as a band the interval of one run as right as Base's mean."""
    shown = [column.accuracy for column in columns]
    if columns[0].title == BASE:
        mean = columns[0].accuracy.mean()
        interval = binomtest(round(mean / 100 * images), images).proportion_ci(method="wilson")
        ends = 100 * np.array([interval.low, interval.high])
        ax.axhspan(*ends, color=colour(BASE), alpha=0.1, lw=0)
        shown.append(ends)
        write_beside(ax, f"shaded: luck\nof {images} images", **NOTE)
    every = np.concatenate(shown)
    ax.set_ylim(every.min() - 1, every.max() + 1)
    for place, column in enumerate(columns):
        _draw_runs(ax, place, column.accuracy, column.title, ".1f")
    _row_title(ax, "ACCURACY\n% of test\nimages right")


def _draw_calibration(ax: Axes, columns: Sequence[Column]) -> None:
    """The calibration error of each run."""
    for place, column in enumerate(columns):
        _draw_runs(ax, place, column.ece, column.title, ".1f")
    ax.set_ylim(0, max(column.ece.max() for column in columns) + 2)
    _row_title(ax, "CALIBRATION\nerror, points\n(0 is perfect)")


def _draw_cost(ax: Axes, columns: Sequence[Column]) -> None:
    """Size and time as numbers."""
    for place, column in enumerate(columns):
        ax.text(
            place,
            0.5,
            column.cost.replace(", ", "\n"),
            ha="center",
            va="center",
        )
    ax.set_ylim(0, 1)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    _row_title(ax, "COST")


def _draw_same_answers(ax: Axes, columns: Sequence[Column]) -> None:
    """The share of the images with Base's answer; of Base, that of a second Base."""
    measured = [column.same for column in columns if len(column.same)]
    for place, column in enumerate(columns):
        if len(column.same):
            _draw_runs(ax, place, column.same, column.title, ".1f")
            _draw_yardsticks(ax, place, column, column.same.mean(), "same")
    if measured:
        ax.set_ylim(np.concatenate(measured).min() - 3, 100.5)
        write_beside(ax, LINES, **NOTE)
    _row_title(ax, "SAME ANSWERS?\n% of images,\nas Base")


def _draw_places(ax: Axes, columns: Sequence[Column], method: str) -> None:
    """A bar to the mean agreement with Base beyond chance, a dot for each run."""
    for place, column in enumerate(columns):
        if method in column.places:
            values = column.places[method]
            ax.bar(
                place,
                values.mean(),
                width=0.3,
                color=colour(column.title),
                alpha=0.35,
            )
            _draw_runs(ax, place, values, column.title, ".0f")
            _draw_yardsticks(ax, place, column, values.mean(), method)
    ax.axhline(0, color=GREY, lw=1)
    drawn = [column.places[method].min() for column in columns if method in column.places]
    ax.set_ylim(min([0, *drawn]) - 12, 105)
    ax.set_yticks([0, 50, 100])
    _row_title(ax, QUESTIONS[method])


def _draw_yardsticks(ax: Axes, place: float, column: Column, mean: float, row: str) -> None:
    """The line of a second Base through the row, and a short one of two runs of this model."""
    if column.title == BASE:
        ax.annotate(
            "a second\nBase",
            (place, mean),
            (0, -6),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=8,
        )
        ax.axhline(
            mean,
            color=colour(column.title),
            ls="--",
            lw=1,
            zorder=0,
        )
    if row in column.siblings:
        height = column.siblings[row]
        ends = [place - 0.3, place + 0.15]
        ax.plot(
            ends,
            [height, height],
            ":",
            color="black",
            lw=1.5,
        )


def _draw_runs(ax: Axes, place: float, values: np.ndarray, title: str, form: str) -> None:
    """A dot for each run of a model, and the mean as a number that no line crosses."""
    _dots(ax, place, values, colour(title))
    mean = values.mean()
    label = ax.text(
        place + 0.22,
        mean,
        f"{mean:{form}}",
        va="center",
        weight="bold",
    )
    label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5})


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
