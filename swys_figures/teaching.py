"""Figures of notebook 5, extras 7 and 14: students that learn, and what they got from a cheat."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from timm.models.vision_transformer import VisionTransformer

from swys_utils.cards import read_card
from swys_utils.config import CHECKPOINTS
from swys_utils.data import DEFAULT_DATASET, Dataset
from swys_utils.planted import Mark, plant
from swys_utils.plots import GREY, colour
from swys_utils.results import with_range
from swys_utils.shipped_results import (
    FEW,
    SeriesResults,
    planted_units,
    read_results,
    todays_id,
)
from swys_utils.splits import has_class
from swys_utils.training import predict

from .obedience import (
    LESSON_STUDENTS,
    Panels,
    Unit,
    by_obedience,
    like_honest,
    patches_of,
    turned,
)
from .planted import MOST_NAMED
from .rows import dots_and_mean, name_rows, percent_axis, write_in_row

RUNS_TAUGHT_BY = {  # who teaches Tiny, beside all labels -> what the ids of such runs begin with
    "nobody": "vit_tiny/labels/",
    "Base": "vit_tiny/answers/",
    "two better Tinys": "vit_tiny/answers_of_196/",
    "two ResNets": "vit_tiny/answers_of_resnets/",
    "two ResNets, between the images": "vit_tiny/answers_matching/",
}
SHIPPED_TEACHERS = {  # the same -> the shipped models that teach
    "Base": ["vit_base"],
    "two better Tinys": ["vit_tiny_patch16_224", "vit_tiny_patch16_224_kd"],
}
PATCH = 7  # px, of the models with 16 patches; the ring lies within one of them
FEW_ROWS = ("few_labels", "few_control", "few_answers")  # of ``FEW``, in the order of the figure
WEIGHTS = {  # kind of model in planted.json -> its name in the table
    "another cheat": "nothing (a second cheat)",
    "labels + honest maps, weight 0.5": "honest maps, weight 0.5",
    "labels + honest maps": "honest maps, weight 2",
    "labels + honest maps, weight 8": "honest maps, weight 8",
    "labels + honest maps, weight 32": "honest maps, weight 32",
    "labels + honest answers, share 0.2": "honest answers, a fifth of the loss",
    "labels + honest answers": "honest answers, half of it",
    "labels + honest answers, share 0.8": "honest answers, four fifths",
    "honest answers": "honest answers alone",
}


def few_labels_figure(results: SeriesResults) -> Figure | None:
    """Complete runs with 1 % of the labels: a dot for each, a line for each draw of the labels.

    Beside each row stands its mean. Where no such runs are shipped, a line is printed instead.

    Args:
        results: of ``shipped_results.series_results``.

    Returns:
        The figure; None where there are no such runs.
    """
    rows = {}  # title of a way to teach -> draw of the labels -> AUC
    for method in FEW_ROWS:
        runs = results.few_labels.get(method, [])
        if runs:
            rows[FEW[method]] = {run["seed"]: run["last"]["auc"] for run in runs}
    if not rows:
        print(f"no complete runs of {results.dataset} with few labels")
        return None
    figure, ax = plt.subplots(figsize=(7, 0.55 * len(rows) + 1), layout="constrained")
    draws = sorted({draw for areas in rows.values() for draw in areas})
    for draw, offset in zip(draws, np.linspace(-0.2, 0.2, len(draws))):
        values = [areas.get(draw, np.nan) for areas in rows.values()]
        heights = np.arange(len(rows)) + offset
        ax.plot(values, heights, color=GREY, lw=0.8, zorder=1)
        ax.scatter(
            values,
            heights,
            s=45,
            c=[colour(title) for title in rows],
            edgecolors="white",
        )
    for place, areas in enumerate(rows.values()):
        mean = np.mean(list(areas.values()))
        write_in_row(ax, place, f"{mean:.2f}", at=1.01)
    write_in_row(ax, -0.75, "mean", at=1.01, color=GREY)
    ax.set_xlabel("AUC on the test images")
    name_rows(ax, list(rows))
    return figure


def better_teachers_table(dataset: str = DEFAULT_DATASET) -> list[dict[str, str]]:
    """Complete runs of Tiny with all labels: does a better teacher help?

    Args:
        dataset: MedMNIST's name; where no such runs are shipped, the default one is shown.

    Returns:
        Rows for ``results.as_table``, scores on the test images: the AUC of each teacher, and the
        mean of the students with the lowest and the highest. A teacher without students has none.
    """
    runs = _complete_runs(dataset)
    if not _taught(runs, "two better Tinys"):
        dataset = DEFAULT_DATASET
        runs = _complete_runs(dataset)
    rows = []
    for title in RUNS_TAUGHT_BY:
        taught = _taught(runs, title)
        if not taught:
            continue
        scores = [run["last"] for run in taught]
        areas = [f"{area:.3f}" for area in _areas_of_teachers(title, taught[0], dataset)]
        row = {
            "taught by": title,
            "the teacher's AUC": ", ".join(areas) or "-",
            "runs": str(len(scores)),
            "AUC": with_range([score["auc"] for score in scores], ".3f"),
            "right": with_range([score["accuracy"] for score in scores], ".1%"),
        }
        rows.append(row)
    return rows


def _taught(runs: Sequence[dict], title: str) -> list[dict]:
    """Of the finished runs those of a row of ``RUNS_TAUGHT_BY``."""
    return [run for run in runs if todays_id(run["id"]).startswith(RUNS_TAUGHT_BY[title])]


def _areas_of_teachers(title: str, student: dict, dataset: str) -> list[float]:
    """Test AUC of each teacher of a row: of shipped models, or of ResNets."""
    stored = read_results(dataset, "cnn") or {"runs": []}
    resnets = {run["id"]: run["last"]["auc"] for run in stored["runs"]}
    areas = []
    for name in SHIPPED_TEACHERS.get(title, student.get("teachers") or []):
        if name in resnets:
            areas.append(resnets[name])
        else:
            card = read_card(CHECKPOINTS / dataset / name / "card.json")
            areas.append(card["stored"]["auc"])
    return areas


def _complete_runs(dataset: str) -> list[dict]:
    """The finished runs that are shipped for a data set."""
    content = read_results(dataset, "runs")
    return content["runs"] if content else []


def cheating_students(dataset: str = DEFAULT_DATASET) -> Figure:
    """Do students read the mark, and do they look as if? A dot for each trained model.

    Args:
        dataset: MedMNIST's name; where nothing was measured, the default one is shown.
    """
    units = []
    for unit in planted_units(dataset):
        if (unit["patch"], unit["mark"]) == (PATCH, "corner"):
            units.append(unit)
    rows = {}
    for kind in LESSON_STUDENTS:
        of_kind = [unit for unit in units if unit["kind"] == kind]
        if of_kind:
            rows[kind] = of_kind
    figure, axes = plt.subplots(
        1,
        3,
        figsize=(8.4, 0.5 * len(rows) + 1.7),
        sharey=True,
        width_ratios=[1, 1.2, 1],
    )
    figure.set_layout_engine("constrained")
    panels: Panels = {
        "DOES IT CHEAT?\nhealthy turned sick\nby the ring (%)": turned,
        "DOES ITS MAP LOOK HONEST?\nagreement with $\\it{honest}$,\nbeyond chance (%)": partial(
            like_honest, ruler="grad_cam"
        ),
        "DOES HIDING SHOW IT?\nshare of the lost score\non the ring (%)": _share_on_the_ring,
    }
    right = ("cheats →", "looks honest →", "rests on the ring →")
    for ax, (title, value), words in zip(axes, panels.items(), right):
        ax.set_title(title, fontsize=10, loc="left")
        ax.set_xlabel(words, loc="right")
        lowest = 0.0
        for place, (kind, of_kind) in enumerate(rows.items()):
            obeys = np.mean([turned(unit) for unit in of_kind])
            shade = by_obedience(float(obeys))
            values = np.array([value(unit) for unit in of_kind])
            dots_and_mean(ax, place, values, shade, stroke=22, right=0.99)
            lowest = min(lowest, values.min())
            if kind == "labels + honest maps":
                ax.axhspan(place - 0.5, place + 0.5, color="#E69F00", alpha=0.15, lw=0)
        percent_axis(ax, left=-3, right=130, lowest=lowest)
    name_rows(axes[0], [LESSON_STUDENTS[kind] for kind in rows])
    axes[2].axvline(100 / patches_of(PATCH), color=GREY, linewidth=1)  # one patch, by chance
    key = "red: the ring turns most of the healthy, orange: many, black: few"
    figure.supxlabel(key, x=0.01, ha="left", fontsize=10)
    return figure


def worn_maps(dataset: str = DEFAULT_DATASET) -> list[dict[str, str]]:
    """Does teaching an honest map hide a mark from Grad-CAM that does find it in the cheat?

    Args:
        dataset: MedMNIST's name; where nothing was measured, the default one is shown.

    Returns:
        Rows for ``results.as_table``, one for each seed with all three models: in how many images
        the hottest patch of Grad-CAM is on the ring, and how many healthy images the student of
        labels + honest maps calls sick once they have it.
    """
    kinds = ("cheat", "honest", "labels + honest maps")
    found: dict[int, dict[str, dict]] = {}
    for unit in planted_units(dataset):
        is_shown = (unit["patch"], unit["mark"]) == (4, "corner")
        if is_shown and unit["kind"] in kinds:
            found.setdefault(unit["seed"], {})[unit["kind"]] = unit
    rows = []
    for seed, units in sorted(found.items()):
        if len(units) < len(kinds):
            continue
        hits = {kind: f"{unit['maps']['grad_cam']['hits']:.0%}" for kind, unit in units.items()}
        student = units["labels + honest maps"]
        row = {
            "start": str(seed + 1),
            "cheat": hits["cheat"],
            "labels + honest maps": hits["labels + honest maps"],
            "honest teacher": hits["honest"],
            "student: healthy turned": f"{student['scores']['flips']:.0%}",
        }
        rows.append(row)
    return rows


def weights_table(dataset: str = DEFAULT_DATASET) -> list[dict[str, str]]:
    """Does the weight of what an honest teacher hands on decide whether a student cheats?

    Args:
        dataset: MedMNIST's name; where nothing was measured, the default one is shown.

    Returns:
        Rows for ``results.as_table``, one for each weight that was tried: means over its runs, and
        in brackets the lowest and the highest.
    """
    units = planted_units(dataset)
    rows = []
    for kind, title in WEIGHTS.items():
        flips = []
        likeness = []
        for unit in units:
            if (unit["kind"], unit["patch"], unit["mark"]) == (kind, PATCH, "corner"):
                flips.append(turned(unit))
                likeness.append(like_honest(unit, "grad_cam"))
        if flips:
            row = {
                "beside the labels": title,
                "runs": str(len(flips)),
                "healthy turned sick": (
                    f"{np.mean(flips):.0f}% ({min(flips):.0f} to {max(flips):.0f})"
                ),
                "map like the honest one's": f"{np.mean(likeness):.0f}%",
            }
            rows.append(row)
    return rows


def caught(model: VisionTransformer, data: Dataset, mark: Mark) -> str:
    """``share_turned`` as a percentage, for a table.

    Args:
        model: as for ``share_turned``.
        data: as for ``share_turned``.
        mark: as for ``share_turned``.
    """
    return f"{share_turned(model, data, mark):.0%}"


def share_turned(model: VisionTransformer, data: Dataset, mark: Mark) -> float:
    """Of the test images without the marked class, the share given it once the mark is added.

    Args:
        model: is asked with and without the mark.
        data: a fixed sample of its test images is asked about.
        mark: what is planted.

    Returns:
        From 0 to 1.
    """
    shown = data.test.sample(MOST_NAMED)
    shown = shown.take(np.flatnonzero(~has_class(shown, mark.target)))
    answers = {}
    for where in ("clean", "everywhere"):
        images = plant(shown, mark, where=where).split.images
        answers[where] = predict(model, images, bf16=True).argmax(axis=1) == mark.target
    is_turned = answers["everywhere"] & ~answers["clean"]
    return float(is_turned.mean())


def _share_on_the_ring(unit: Unit) -> float:
    return 100 * unit["maps"]["occlusion"]["heat"]
