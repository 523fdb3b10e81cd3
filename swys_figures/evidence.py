"""Figures of extra 7: who obeys a planted mark, what finds it, and who inherits it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from swys_utils.curve_names import name_ends
from swys_utils.data import DEFAULT_DATASET
from swys_utils.gradcam import METHODS
from swys_utils.metrics import t_interval
from swys_utils.plots import GREY, colour
from swys_utils.results import with_range
from swys_utils.shipped_results import PLANTED_EPOCHS, read_results

from .obedience import (
    OBEDIENCE,
    STUDENTS,
    Panels,
    Unit,
    by_obedience,
    like_honest,
    patches_of,
    turned,
)
from .rows import dots_and_mean, name_rows, percent_axis

KEY = {  # colour of ``by_obedience`` -> what it says
    OBEDIENCE[50]: "red: most of the answers turn",
    OBEDIENCE[20]: "orange: many",
    OBEDIENCE[0]: "black: few",
}
CASES = {  # what was trained -> data set, model, side of a patch in pixels, mark
    "Tiny, 16 patches": (DEFAULT_DATASET, "vit_tiny", 7, "corner"),
    "Tiny, 49 patches": (DEFAULT_DATASET, "vit_tiny", 4, "corner"),
    "Base, 16 patches": (DEFAULT_DATASET, "vit_base", 7, "corner"),
    "ResNet-18": (DEFAULT_DATASET, "resnet18", 7, "corner"),
    "Tiny, ring inside the chest": (DEFAULT_DATASET, "vit_tiny", 7, "inside"),
    "Tiny, ring at a random place": (DEFAULT_DATASET, "vit_tiny", 7, "random"),
    "Tiny, meaningless ring": (DEFAULT_DATASET, "vit_tiny", 7, "meaningless"),
    "Tiny, ring on blood cells": ("bloodmnist", "vit_tiny", 7, "corner"),
    "Base, ring on blood cells": ("bloodmnist", "vit_base", 7, "corner"),
}
ASKED = {  # way to explain -> its key in planted.json; an id of METHODS stands for its best block
    "Grad-CAM, last block": "grad_cam, block 11",
    "Grad-CAM, first block": "grad_cam, block 0",
    "Grad-CAM, best block": "grad_cam",
    "HiResCAM": "hires_cam, block 11",
    "LeGrad": "legrad, block 11",
    "attention rollout": "attention_rollout, block 11",
    "gradient times input": "gradient_times_input",
    "integrated gradients": "integrated_gradients",
    "hiding": "occlusion, mean",
}
WITHOUT_BLOCKS = {
    "integrated gradients": "integrated_gradients",
    "gradient times input": "gradient_times_input",
    "hiding": "occlusion, mean",
}
COLOURS = {method: colour(method) for method in ("grad_cam", "occlusion")}  # grey: all others


def finders_by_block(units: Sequence[Unit]) -> Figure:
    """How often ways to explain find the ring: a dot for each cheat, and the interval of the mean.

    Args:
        units: of ``planted_units``; the cheats with a ring in the corner count.
    """
    cheats = [unit for unit in units if (unit["kind"], unit["mark"]) == ("cheat", "corner")]
    patches = sorted({unit["patch"] for unit in cheats}, reverse=True)
    figure, axes = _panels([f"{patches_of(patch)} patches" for patch in patches], list(ASKED))
    for ax, patch in zip(axes, patches):
        group = [unit for unit in cheats if unit["patch"] == patch]
        for place, key in enumerate(ASKED.values()):
            block = _best_block(group, key) if key in METHODS else key
            hits = np.array([100 * unit["methods"][block]["hits"] for unit in group])
            shade = COLOURS.get(key.split(", ")[0], GREY)
            _interval(ax, place, hits, shade)
            dots_and_mean(ax, place, hits, shade)
        chance = group[0]["methods"]["occlusion, mean"]["chance"]
        ax.axvline(100 * chance, color=GREY, lw=1)
    label = "hottest patch on the ring (% of the images); grey line: chance"
    figure.supxlabel(label, fontsize=10)
    return figure


def hits_by_block(units: Sequence[Unit]) -> Figure:
    """How often the hottest patch lies on the ring, for maps of each block: means of six cheats.

    Dots on a thin line are a cheat, asked by Grad-CAM. Ways without blocks are horizontal lines.

    Args:
        units: of ``planted_units``; the cheats that were asked at every block count.
    """
    cheats = [unit for unit in units if unit["kind"] == "another cheat"]
    patches = sorted({unit["patch"] for unit in cheats}, reverse=True)
    figure, axes = plt.subplots(
        1,
        max(len(patches), 1),
        figsize=(9, 3.6),
        sharey=True,
        squeeze=False,
    )
    figure.set_layout_engine("constrained")
    for ax, patch in zip(axes[0], patches):
        group = [unit for unit in cheats if unit["patch"] == patch]
        _draw_blocks(ax, group)
        ax.set_title(f"{patches_of(patch)} patches", loc="left")
        ax.set(xlabel="block; grey line: chance", ylim=(-3, 106))
    axes[0, 0].set_ylabel("hottest patch on the ring\n(% of the images)")
    return figure


def _draw_blocks(ax: Axes, units: Sequence[Unit]) -> None:
    """A line for each way that has blocks, and a level for each that has none."""
    ends = {}
    for method, entry in METHODS.items():
        keys = [key for key in units[0]["methods"] if key.startswith(f"{method}, block ")]
        if not keys:
            continue
        blocks = np.arange(1, len(keys) + 1)
        hits = np.array([[100 * unit["methods"][key]["hits"] for key in keys] for unit in units])
        ax.plot(blocks, hits.mean(axis=0), color=entry.colour, lw=2)
        if method == "grad_cam":
            ax.plot(blocks, hits.T, "o-", ms=3, lw=0.7, color=entry.colour, alpha=0.4)
        ends[entry.title] = (hits[:, -1].mean(), entry.colour)
    for title, key in WITHOUT_BLOCKS.items():
        level = 100 * np.mean([unit["methods"][key]["hits"] for unit in units])
        shade = COLOURS.get(key.split(", ")[0], GREY)
        ax.axhline(level, color=shade, ls=":", lw=1.5)
        ends[title] = (level, shade)
    chance = 100 * units[0]["methods"]["occlusion, mean"]["chance"]
    ax.axhline(chance, color=GREY, lw=1)
    ax.set_xticks(blocks[::2])
    name_ends(ax, len(blocks) + 0.2, ends, gap=7)


def false_alarms(units: Sequence[Unit]) -> list[dict[str, str]]:
    """Does a way to explain name a ring only where it counts? Rows for ``results.as_table``.

    Args:
        units: of ``planted_units``; of the cheats with 16 patches those with the ring in the
            corner and those with a meaningless ring count.
    """
    rings = {"a ring that counts": "corner", "a meaningless ring": "meaningless"}
    rows = []
    for title, key in ASKED.items():
        if key in METHODS:
            continue
        row = {"hottest patch on": title}
        for words, mark in rings.items():
            hits = [
                unit["methods"][key]["hits"]
                for unit in units
                if (unit["kind"], unit["patch"], unit["mark"]) == ("cheat", 7, mark)
            ]
            row[words] = with_range(hits, ".0%") if hits else ""
        rows.append(row)
    return rows


def _best_block(units: Sequence[Unit], method: str) -> str:
    """The key of the block where a method finds most marks, on average over these models."""
    hits_at = {}
    for key in units[0]["methods"]:
        if key.startswith(f"{method}, block "):
            hits = [unit["methods"][key]["hits"] for unit in units]
            hits_at[key] = np.mean(hits)
    return max(hits_at, key=hits_at.__getitem__)


def cases_figure() -> Figure:
    """Who obeys a mark, and what finds it: a row for each of ``CASES``, a dot for each cheat."""
    rows = {}
    for title, (dataset, model, patch, mark) in CASES.items():
        content = read_results(dataset, "planted") or {"units": []}
        rows[title] = [
            unit
            for unit in content["units"]
            if (unit["kind"], unit["model"]) == ("cheat", model)
            and (unit["patch"], unit["mark"]) == (patch, mark)
            and unit.get("epochs", PLANTED_EPOCHS) == PLANTED_EPOCHS
        ]
    panels: Panels = {
        "DOES IT OBEY?\nturned by\nthe mark (%)": turned,
        "GRAD-CAM?\nhottest patch on\nthe mark (%)": _hits_of("grad_cam"),
        "HIDING?\nhottest patch on\nthe mark (%)": _hits_of("occlusion"),
    }
    figure = _rows_of_models(rows, panels)
    for ax in figure.axes[1:]:
        for place, units in enumerate(rows.values()):
            if units:
                chance = 100 * units[0]["maps"]["occlusion"]["chance"]
                ax.plot([chance] * 2, [place - 0.4, place + 0.4], color=GREY, lw=1)
    figure.supxlabel(f"{_key(rows.values())}; grey line: chance", fontsize=10)
    return figure


def heirs_figure(units: Sequence[Unit]) -> Figure:
    """Who inherits the ring, and what do maps and reasons say of it: a dot for each model.

    A grey line in each panel is at the mean of the other honest models.

    Args:
        units: of ``planted_units``, of one side of patches and one mark.
    """
    rows = {}
    for kind, title in STUDENTS.items():
        rows[title] = [unit for unit in units if unit["kind"] == kind]
    panels: Panels = {
        "DOES IT OBEY?\nturned sick by\nthe ring (%)": turned,
        "HONEST MAP?\nGrad-CAM,\nbeyond chance (%)": partial(like_honest, ruler="grad_cam"),
        "HONEST REASONS?\nhiding,\nbeyond chance (%)": partial(like_honest, ruler="occlusion"),
        "DOES HIDING SEE IT?\nhottest patch on\nthe ring (%)": _hits_of("occlusion"),
    }
    figure = _rows_of_models(rows, panels)
    honest = rows[STUDENTS["another honest"]]
    if honest:
        for ax, value in zip(figure.axes, panels.values()):
            yardstick = float(np.mean([value(unit) for unit in honest]))
            ax.axvline(yardstick, color=GREY, lw=1, zorder=0)
    label = f"{_key(rows.values())}; grey line: {STUDENTS['another honest']} model"
    figure.supxlabel(label, fontsize=10)
    return figure


def shrunk_cheats(units: Sequence[Unit]) -> list[dict[str, str]]:
    """Is a shortcut kept when the file shrinks? Rows for ``results.as_table``.

    Args:
        units: of ``planted_units``; those with a ring in the corner and 49 patches count.
    """
    fine = [unit for unit in units if (unit["patch"], unit["mark"]) == (4, "corner")]
    cheats = [unit for unit in fine if unit["kind"] == "cheat" and "int8" in unit]
    measured = {
        "the cheat": [unit["scores"] for unit in cheats],
        "the cheat, rounded to 8 bits": [unit["int8"] for unit in cheats],
    }
    for title, kind in {
        "a student of its answers": "cheat's answers",
        "the same with 16 patches": "cheat's answers, 16 tokens",
    }.items():
        measured[title] = [unit["scores"] for unit in fine if unit["kind"] == kind]
    rows = []
    for title, scores in measured.items():
        if scores:
            row = {
                "model": title,
                "swapped AUC": with_range([one["swapped"]["auc"] for one in scores], ".2f"),
                "turned": with_range([one["flips"] for one in scores], ".0%"),
            }
            rows.append(row)
    return rows


def _hits_of(ruler: str) -> Callable[[Unit], float]:
    return lambda unit: 100 * unit["maps"][ruler]["hits"]


def _rows_of_models(rows: Mapping[str, Sequence[Unit]], panels: Panels) -> Figure:
    """A row for each kind of model, red where the mark turns most answers, orange where many."""
    lowest = 0.0
    for value in panels.values():
        for units in rows.values():
            drawn = [value(unit) for unit in units]
            lowest = min([lowest, *drawn])
    figure, axes = _panels(list(panels), list(rows), lowest)
    for place, units in enumerate(rows.values()):
        if not units:
            continue
        shade = _shade(units)
        for ax, value in zip(axes, panels.values()):
            values = np.array([value(unit) for unit in units])
            dots_and_mean(ax, place, values, shade)
    return figure


def _shade(units: Sequence[Unit]) -> str:
    """The colour of models of one kind: by what the mark turns on average."""
    return by_obedience(float(np.mean([turned(unit) for unit in units])))


def _key(kinds: Iterable[Sequence[Unit]]) -> str:
    """What the colours say that these kinds of models have."""
    used = {_shade(units) for units in kinds if units}
    return ", ".join(words for shade, words in KEY.items() if shade in used)


def _panels(
    titles: Sequence[str], rows: Sequence[str], lowest: float = 0.0
) -> tuple[Figure, Sequence[Axes]]:
    """Panels side by side, in percent, down to the lowest value; they share the names of rows."""
    size = (2.4 + 1.7 * max(len(titles), 1), 1.2 + 0.38 * len(rows))
    figure, axes = plt.subplots(
        1,
        max(len(titles), 1),
        figsize=size,
        sharey=True,
        squeeze=False,
    )
    figure.set_layout_engine("constrained")
    for ax, title in zip(axes[0], titles):
        ax.set_title(title, fontsize=10, loc="left")
        percent_axis(ax, left=-4, right=128, lowest=lowest)
        for place in range(1, len(rows), 2):  # a band, so that a dot is seen to be of its row
            ax.axhspan(place - 0.5, place + 0.5, color=GREY, alpha=0.08, lw=0)
    name_rows(axes[0, 0], rows)
    return figure, axes[0]


def _interval(ax: Axes, place: float, values: np.ndarray, shade: str) -> None:
    """The 95 % interval of a mean of percentages, as a broad light bar."""
    if len(values) > 1:
        low, high = np.clip(t_interval(values), 0, 100)
        ax.plot([low, high], [place, place], color=shade, alpha=0.3, lw=9)
