"""Complete runs of both sizes after each way to train them: what comes with which?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from swys_utils.curve_names import name_ends
from swys_utils.plots import GREY, colour
from swys_utils.shipped_results import SeriesResults, read_results, todays_id

from .agreement import AS_LONG_AS_BASE
from .rows import name_rows, row_of_dots, write_in_row

# how the complete runs of Base and Tiny were trained -> what their ids begin with
WAYS = {
    "blurred views": (
        "vit_base/labels/",
        "vit_base/labels_30/",
        AS_LONG_AS_BASE,
        "vit_tiny/labels/",
    ),
    "sharp views": ("vit_base/labels_sharp/", "vit_tiny/labels_sharp/"),
}
# rows of ``scores_figure`` -> what the ids of their runs begin with
VIEWS = {
    "Base, blurred": "vit_base/labels/",
    "Base, sharp": "vit_base/labels_sharp/",
    "Tiny, blurred": "vit_tiny/labels/",
    "Tiny, sharp": "vit_tiny/labels_sharp/",
}
RECIPES = {
    "Base": "vit_base/labels/",
    "Tiny": "vit_tiny/labels/",
    "Tiny, mixed": "vit_tiny/labels_strong/",
    "Tiny, whole": "vit_tiny/labels_whole/",
    "Tiny, mixed and whole": "vit_tiny/labels_strong_whole/",
}
MASKED = {
    "Base, sharp": "vit_base/labels_sharp/",
    "Base, sharp, masked": "vit_base/labels_sharp_masked/",
    "Tiny, blurred": "vit_tiny/labels/",
    "Tiny, blurred, masked": "vit_tiny/labels_masked/",
    "Tiny, sharp": "vit_tiny/labels_sharp/",
    "Tiny, sharp, masked": "vit_tiny/labels_sharp_masked/",
}
# scores of a complete run with two classes -> the form of their mean
SCORES = {
    "validation: right (%)": ".0f",
    "test: right (%)": ".0f",
    "test: healthy cleared (%)": ".0f",
    "test: sick found (%)": ".0f",
    "validation: AUC": ".3f",
    "test: AUC": ".3f",
}


def scores_figure(results: SeriesResults, rows: Mapping[str, str], scores: Sequence[str]) -> Figure:
    """Complete runs after several ways to train: a panel for each score, a dot for each run.

    Args:
        results: of ``shipped_results.series_results``; two classes.
        rows: such as ``VIEWS``; one without runs is left out.
        scores: of ``SCORES``. The healthy are cleared, and the sick found, at a threshold of 0.5.
    """
    found = {title: _runs_of(results, prefix) for title, prefix in rows.items()}
    shown = {title: runs for title, runs in found.items() if runs and _has_two_classes(runs[0])}
    figure, axes = plt.subplots(
        1,
        len(scores),
        figsize=(7.6, 0.42 * max(len(shown), 1) + 0.9),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for ax, score in zip(axes[0], scores):
        for place, (title, runs) in enumerate(shown.items()):
            values = np.array([_scores_of(run)[score] for run in runs])
            row_of_dots(ax, place, values, colour(title))
            mean = f"{values.mean():{SCORES[score]}}"
            write_in_row(ax, place, mean, at=1.03, color=colour(title), weight="bold")
            ax.axhline(place + 0.5, color=GREY, lw=0.4)
        ax.spines["left"].set_visible(False)
        ax.tick_params(left=False)
        ax.xaxis.set_major_locator(MaxNLocator(3))
        ax.margins(x=0.1)
        ax.set_xlabel(score)
    name_rows(axes[0, 0], list(shown))
    return figure


def _scores_of(run: Mapping[str, Any]) -> dict[str, float]:
    """The ``SCORES`` of a complete run."""
    cleared, found = run["recall"]
    return {
        "validation: right (%)": 100 * run["val_accuracy"],
        "test: right (%)": 100 * run["last"]["accuracy"],
        "test: healthy cleared (%)": 100 * cleared,
        "test: sick found (%)": 100 * found,
        "validation: AUC": run["val_auc"],
        "test: AUC": run["last"]["auc"],
    }


def cleared_figure(results: SeriesResults, ways: Sequence[str]) -> Figure:
    """How many of the healthy are cleared at 0.5: a dot for each complete run.

    Args:
        results: of ``shipped_results.series_results``; two classes.
        ways: which are shown, of ``WAYS``; one that was not trained has no row.
    """
    trained = [row for row in _trained(results, ways) if _has_two_classes(row[2][0])]
    titles: list[str] = []
    bands: list[str] = []
    figure, ax = plt.subplots(figsize=(7.5, 1 + 0.42 * (len(trained) + len(ways))))
    figure.set_layout_engine("constrained")
    for way, model, runs in trained:
        if way not in bands:
            bands.append(way)
            _begin_band(ax, len(titles), way)
            titles.append("")
        place = len(titles)
        titles.append(f"{model}, {len(runs[0]['history'])} passes")
        cleared = np.array([100 * run["recall"][0] for run in runs])
        row_of_dots(ax, place, cleared, colour(model))
        write_in_row(
            ax,
            place,
            f"{cleared.mean():.0f}",
            at=1.01,
            color=colour(model),
            weight="bold",
            fontsize=12,
        )
    ax.set_xlim(right=100)
    name_rows(ax, titles)
    ax.tick_params(axis="y", length=0)
    ax.set_title("healthy children cleared at 0.5, of 100", fontsize=11, loc="left")
    return figure


def _begin_band(ax: Axes, place: int, title: str) -> None:
    """The title of a band of rows, with a line above it unless it is the first one."""
    if place:
        ax.axhline(place - 0.5, color="black", lw=0.8)
    write_in_row(ax, place, title, at=0.01, weight="bold")


def by_passes(results: SeriesResults) -> Figure:
    """Training loss and test AUC of complete runs of both sizes, after each pass.

    Args:
        results: of ``shipped_results.series_results``.
    """
    figure, axes = plt.subplots(
        1,
        2,
        figsize=(7.4, 3.2),
        layout="constrained",
    )
    trained = list(_trained(results, ["blurred views"]))
    panels = {
        "train_loss": "training loss",
        "test_auc": "test AUC",
    }
    for ax, (key, label) in zip(axes, panels.items()):
        for _, model, runs in trained:
            for run in runs:
                values = [row[key] for row in run["history"]]
                _curve_to_its_end(ax, values, model)
        ax.set_xlabel("passes through the training images")
        ax.set_ylabel(label)
    starts = [run["history"][0]["test_auc"] for _, _, runs in trained for run in runs]
    axes[1].set_ylim(bottom=min(starts, default=0.9) - 0.01)
    _name_longest(axes[0], trained)
    return figure


def _name_longest(ax: Axes, trained: Iterable[tuple[str, str, list[dict[str, Any]]]]) -> None:
    """Beside the curves of the loss stands each model's name, where its longest run ends."""
    longest: dict[str, list[dict[str, Any]]] = {}
    for _, model, runs in trained:
        for run in runs:
            longest[model] = max(longest.get(model, []), run["history"], key=len)
    low, high = ax.get_ylim()
    passes = {len(history) for history in longest.values()}
    for count in passes:
        ends = {}
        for model, history in longest.items():
            if len(history) == count:
                ends[model] = (history[-1]["train_loss"], colour(model))
        name_ends(
            ax,
            count,
            ends,
            gap=0.09 * (high - low),
        )


@dataclass
class AmountCurve:
    """Runs of one model that were shown as many images in all, from few different ones to all.

    Attributes:
        title: the model and how many it was shown.
        shade: colour of the model.
        style: of the line.
        images: of each run, the number of different training images.
        scores: "right" and "loss" -> that of each run.
    """

    title: str
    shade: str
    style: str
    images: list[int]
    scores: dict[str, list[float]]

    def means(self, score: str) -> dict[int, float]:
        """Number of images, from the fewest -> mean over its runs.

        Args:
            score: a key of ``scores``.
        """
        groups: dict[int, list[float]] = {count: [] for count in sorted(self.images)}
        for count, value in zip(self.images, self.scores[score]):
            groups[count].append(value)
        return {count: float(np.mean(values)) for count, values in groups.items()}


def by_amount(dataset: str = "bloodmnist") -> Figure:
    """Test accuracy and training loss of both sizes, from few images to all: a dot for each run.

    Args:
        dataset: MedMNIST's name; its amount.json is shown. Runs that were shown more images in all
            than others have a dashed line.
    """
    content = read_results(dataset, "amount") or {"runs": []}
    curves = _amount_curves(content["runs"])
    figure, axes = plt.subplots(1, 2, figsize=(7.4, 3.2), layout="constrained")
    counts = sorted({run["images"] for run in content["runs"]})
    panels = {"right": "right on test images (%)", "loss": "training loss at the end"}
    for ax, (score, label) in zip(axes, panels.items()):
        for curve in curves:
            _draw_amounts(ax, curve, score)
        ax.set_xscale("log")
        ax.set_xticks(counts, [f"{count:,}" for count in counts])
        ax.minorticks_off()
        ax.set_xlabel("different training images")
        ax.set_ylabel(label)
    if counts:
        ends = {}
        for curve in curves:
            *_, end = curve.means("loss").values()
            ends[curve.title.replace(", ", ",\n")] = (end, curve.shade)
        low, high = axes[1].get_ylim()
        height = high - low
        axes[1].set_ylim(low - 0.08 * height, high)  # room for the name of the lowest curve
        name_ends(
            axes[1],
            counts[-1],
            ends,
            gap=0.16 * height,
        )
    return figure


def _amount_curves(runs: Sequence[Mapping[str, Any]]) -> list[AmountCurve]:
    """A curve for each model and number of images that it was shown, of the runs in amount.json."""
    curves = []
    fewest = min([run["shown"] for run in runs], default=0)
    for name, title in (("vit_base", "Base"), ("vit_tiny", "Tiny")):
        of_model = [run for run in runs if run["model"] == name]
        for shown in sorted({run["shown"] for run in of_model}):
            chosen = [run for run in of_model if run["shown"] == shown]
            curve = AmountCurve(
                title=f"{title}, {shown:,} shown",
                shade=colour(title),
                style="-" if shown == fewest else "--",
                images=[run["images"] for run in chosen],
                scores={
                    "right": [100 * run["test"]["accuracy"] for run in chosen],
                    "loss": [run["train_loss"] for run in chosen],
                },
            )
            curves.append(curve)
    return curves


def _draw_amounts(ax: Axes, curve: AmountCurve, score: str) -> None:
    """A dot for each run, and a line through the means of those with as many images."""
    means = curve.means(score)
    ax.plot(
        list(means),
        list(means.values()),
        curve.style,
        color=curve.shade,
        label=curve.title,
    )
    ax.plot(
        curve.images,
        curve.scores[score],
        "o",
        color=curve.shade,
    )


def _curve_to_its_end(ax: Axes, values: Sequence[float], model: str) -> None:
    """A curve over the passes, with a dot at its end; Base's is thicker and above the others."""
    is_base = model == "Base"
    shade = colour(model)
    ax.plot(
        range(1, len(values) + 1),
        values,
        color=shade,
        linewidth=2.4 if is_base else 1.4,
        zorder=3 if is_base else 2,
    )
    ax.plot(
        len(values),
        values[-1],
        "o",
        color=shade,
    )


def _trained(
    results: SeriesResults, ways: Iterable[str]
) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    """Way, model and runs of each of ``WAYS`` that was trained."""
    for way in ways:
        for prefix in WAYS[way]:
            runs = _runs_of(results, prefix)
            if runs:
                model = "Base" if prefix.startswith("vit_base") else "Tiny"
                yield way, model, runs


def _runs_of(results: SeriesResults, prefix: str) -> list[dict[str, Any]]:
    """The complete runs whose ids of today begin so."""
    content = read_results(results.dataset, "runs") or {"runs": []}
    return [run for run in content["runs"] if todays_id(run["id"]).startswith(prefix)]


def _has_two_classes(run: Mapping[str, Any]) -> bool:
    """Whether the first class of a run is the healthy, and the other one the sick."""
    return len(run["recall"] or []) == 2
