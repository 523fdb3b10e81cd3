"""Complete runs of both sizes after each way to train them: what comes with which?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from swys_utils.plots import GREY, colour
from swys_utils.shipped_results import OLD_METHODS, SeriesResults, read_results

from .agreement import AS_LONG_AS_BASE, row_of_dots

# how the complete runs of Base and Tiny were trained -> what their ids begin with
WAYS = {
    "blurred views": ("vit_base/labels/", AS_LONG_AS_BASE, "vit_tiny/labels/"),
    "sharp views": ("vit_base/labels_sharp/", "vit_tiny/labels_sharp/"),
    "blurred views, masked first": ("vit_tiny/labels_masked/",),
    "sharp views, masked first": (
        "vit_base/labels_sharp_masked/",
        "vit_tiny/labels_sharp_masked/",
    ),
}


def ways_table(
    results: SeriesResults, ways: Sequence[str] = tuple(WAYS), validation: bool = False
) -> list[dict[str, str]]:
    """Complete runs of both sizes after each way to train them.

    Args:
        results: of ``shipped_results.series_results``; two classes.
        ways: which are shown, of ``WAYS``.
        validation: beside the test images, also the scores on the validation images.

    Returns:
        Rows for ``results.as_table``: means over the runs and, of healthy and sick on the test
        images, in brackets the lowest and the highest. A way that was not trained has no row.
    """
    rows = []
    for way in ways:
        for prefix in WAYS[way]:
            runs = _runs_of(results, prefix)
            if not runs:
                continue
            cells = {
                "trained with": way,
                "model": "Base" if prefix.startswith("vit_base") else "Tiny",
                "passes": str(len(runs[0]["history"])),
                "runs": str(len(runs)),
            }
            if validation:
                cells["AUC, validation"] = _mean([run["val_auc"] for run in runs], ".3f")
                cells["right, validation"] = _mean([run["val_accuracy"] for run in runs], ".0%")
            cells["AUC, test"] = _mean([run["last"]["auc"] for run in runs], ".3f")
            cells["right, test"] = _mean([run["last"]["accuracy"] for run in runs], ".0%")
            cells["healthy cleared"] = _with_range([run["recall"][0] for run in runs], ".0%")
            cells["sick found"] = _with_range([run["recall"][1] for run in runs], ".0%")
            rows.append(cells)
    return rows


def cleared_figure(results: SeriesResults, ways: Sequence[str]) -> Figure:
    """How many of the healthy are cleared at 0.5: a dot for each complete run.

    Args:
        results: of ``shipped_results.series_results``; two classes.
        ways: which are shown, of ``WAYS``; one that was not trained has no row.
    """
    rows = {}
    for way in ways:
        for prefix in WAYS[way]:
            runs = _runs_of(results, prefix)
            if runs:
                model = "Base" if prefix.startswith("vit_base") else "Tiny"
                passes = len(runs[0]["history"])
                rows[f"{model}, {passes} passes,\n{way}"] = (colour(model), runs)
    figure, ax = plt.subplots(figsize=(7.5, 0.8 + 0.55 * max(len(rows), 1)))
    figure.set_layout_engine("constrained")
    for place, (shade, runs) in enumerate(rows.values()):
        cleared = [100 * run["recall"][0] for run in runs]
        row_of_dots(ax, place, np.array(cleared), shade)
        ax.text(
            101,
            place,
            f"{np.mean(cleared):.0f} %",
            va="center",
            color=shade,
            weight="bold",
        )
        ax.axhline(place + 0.5, color=GREY, lw=0.4)
    ax.set_xlim(60, 100)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set_xlabel("of 100 healthy children, cleared at a threshold of 0.5")
    return figure


def _runs_of(results: SeriesResults, prefix: str) -> list[dict[str, Any]]:
    """The complete runs of one of ``WAYS``, by today's names or earlier ones."""
    content = read_results(results.dataset, "runs") or {"runs": []}
    runs = []
    for run in content["runs"]:
        model, method, _ = run["id"].split("/")
        if f"{model}/{OLD_METHODS.get(method, method)}/" == prefix:
            runs.append(run)
    return runs


def _mean(values: Sequence[float], form: str) -> str:
    return f"{np.mean(values):{form}}"


def _with_range(values: Sequence[float], form: str) -> str:
    """The mean and, where there are several, the lowest and the highest value in brackets."""
    if len(values) == 1:
        return _mean(values, form)
    return f"{np.mean(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def by_passes(results: SeriesResults) -> Figure:
    """Training loss and test AUC of complete runs of both sizes, after each pass.

    Args:
        results: of ``shipped_results.series_results``.
    """
    figure, axes = plt.subplots(
        1,
        2,
        figsize=(8.4, 3.2),
        layout="constrained",
    )
    panels = {
        "train_loss": "training loss",
        "test_auc": "test AUC",
    }
    for ax, (key, label) in zip(axes, panels.items()):
        for prefix in WAYS["blurred views"]:
            for run in _runs_of(results, prefix):
                values = [row[key] for row in run["history"]]
                _curve_to_its_end(ax, values, prefix)
        ax.set_xlabel("passes through the training images")
        ax.set_ylabel(label)
    axes[1].set_ylim(bottom=0.85)
    axes[0].plot([], [], color=colour("Base"), label="Base")
    axes[0].plot([], [], color=colour("Tiny"), label="Tiny")
    axes[0].legend(frameon=False)
    return figure


def _curve_to_its_end(ax: Axes, values: Sequence[float], prefix: str) -> None:
    """A curve over the passes, with a dot at its end; Base's is thicker and above the others."""
    is_base = prefix.startswith("vit_base")
    shade = colour("Base" if is_base else "Tiny")
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
