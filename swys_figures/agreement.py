"""How much two models agree, by two rulers: figures and tables of notebooks 4 and 5 and extras."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from swys_utils.data import Dataset
from swys_utils.explain import agreement, shuffled
from swys_utils.models import SERIES, lesson_models
from swys_utils.plots import GREY, colour
from swys_utils.results import with_range
from swys_utils.shipped_results import SeriesResults, read_results, todays_id

from .data import short_name, show_image
from .rows import name_rows, row_of_dots, write_in_row

SECOND_BASE = "a second Base"  # row of ``three_questions``
AS_LONG_AS_BASE = "vit_tiny/labels_12/"  # Tiny after a whole schedule of as many passes as Base's
RESNETS = {  # pairs with a ResNet -> how they begin in cnn.json
    "a ResNet and Base": "vit_base and",
    "a ResNet and Tiny": "vit_tiny and",
    "two ResNets": "resnet18/",
}
IN_BRIEF = ("two Bases", "two Tinys", "Tiny and Base", "a ResNet and Base")
TEACHERS = {  # whose answers a Tiny learned -> how the ids of such students begin
    "our Base": "vit_tiny/answers/",
    "another Base": "vit_tiny/answers_of_another/",
    "our Tiny": "vit_tiny/answers_of_our_tiny/",
    "another Tiny": "vit_tiny/answers_of_tiny/",
    "two better Tinys": "vit_tiny/answers_of_196/",
    "two ResNets": "vit_tiny/answers_of_resnets/",
    "nobody (labels alone)": "vit_tiny/labels/",
}
QUESTIONS = {  # way to explain -> the question that it answers
    "occlusion": "SAME REASONS?\nhidden patches,\nbeyond chance, as Base",
    "grad_cam": "SAME MAP?\nGrad-CAM,\nbeyond chance, as Base",
}


def agreement_figure(results: SeriesResults, brief: bool = False) -> Figure:
    """Tiny's, a second Base's and a ResNet's maps with Base's, and others, by two rulers.

    A bar is the mean agreement beyond chance, in % of what is possible, and a dot a pair of models.
    Beyond them stands the mean. By hiding there are two panels, for the order of all patches and
    for the hottest one alone.

    Args:
        results: of ``shipped_results.series_results``; what was not measured is left out.
        brief: only the order of all patches, and only the rows of ``IN_BRIEF``.
    """
    panels = {
        "by hiding,\nall patches": ("occlusion", beyond_chance),
        "by hiding,\nthe hottest patch": ("occlusion", same_hottest),
        "by Grad-CAM,\nall patches": ("grad_cam", beyond_chance),
    }
    if brief:
        del panels["by hiding,\nthe hottest patch"]
        panels = {title.split(",")[0]: panel for title, panel in panels.items()}
    panels = {title: panel for title, panel in panels.items() if panel[0] in results.agreement}
    found = {ruler: _pairs(results, ruler) for ruler, _ in panels.values()}
    titles = [title for rows in found.values() for title, pairs in rows.items() if pairs]
    titles = [title for title in dict.fromkeys(titles) if title in IN_BRIEF or not brief]
    count = max(len(titles), 1)
    figure, axes = plt.subplots(
        1,
        max(1, len(panels)),
        figsize=(8, 0.6 * count + 1) if brief else (9.4, 0.75 * count + 0.6),
        sharey=True,
        squeeze=False,
    )
    figure.set_layout_engine("constrained")
    for ax, (panel, (ruler, measure)) in zip(axes[0], panels.items()):
        _percent_axis(ax, room=10 if brief else 40)
        for place, title in enumerate(titles):
            pairs = found[ruler].get(title)
            if pairs:
                percent = measure(pairs)
                _draw_beyond_chance(ax, place, percent, _shade(title))
                _number_at_the_end(ax, place, percent, ranged=not brief)
        ax.set_title(panel, loc="left", fontsize=11)
        ax.set_ylim(count - 0.4, -0.6)
        ax.set_yticks(range(len(titles)), [fill(title, 15) for title in titles])
    figure.supxlabel("agreement beyond chance", fontsize=11)
    return figure


def _pairs(results: SeriesResults, ruler: str) -> dict[str, list[dict]]:
    """The pairs of complete runs that were compared by a ruler."""
    compared = results.agreement.get(ruler, {})
    pairs = {
        "two Bases": compared.get("vit_base", []),
        "two Tinys": results.siblings.get(ruler, []),
        "Tiny and Base": compared.get("vit_tiny", []),
        "Tiny and Base, both after 12 passes": _measured(results.dataset, ruler, AS_LONG_AS_BASE),
    }
    stored = read_results(results.dataset, "cnn")
    if stored:
        for title, begin in RESNETS.items():
            pairs[title] = [
                row[ruler] for pair, row in stored["pairs"].items() if pair.startswith(begin)
            ]
    return pairs


def _shade(title: str) -> str:
    """The colour of a row of pairs: that of its smaller model, grey for a ResNet."""
    if title in RESNETS:
        return GREY
    return colour("Base" if title == "two Bases" else "Tiny")


def _measured(dataset: str, ruler: str, begin: str) -> list[dict]:
    """What was measured of the runs whose ids of today begin so."""
    content = read_results(dataset, "agreement")
    if content is None or ruler not in content["maps"]:
        return []
    runs = content["maps"][ruler]["runs"]
    return [row for run_id, row in runs.items() if todays_id(run_id).startswith(begin)]


def beyond_chance(pairs: Sequence[Mapping]) -> np.ndarray:
    """Agreement on a scale on which chance is 0 and the greatest possible agreement is 100.

    Args:
        pairs: of models, with "spearman" (at most 1) and "chance_in_class" (below 1).

    Returns:
        float (N,), %; below zero where a pair agrees less than by chance.
    """
    agreed = np.array([pair["spearman"] for pair in pairs])
    chance = np.array([pair["chance_in_class"] for pair in pairs])
    return 100 * (agreed - chance) / (1 - chance)


def same_hottest(pairs: Sequence[Mapping]) -> np.ndarray:
    """The share of the images with the same hottest patch, on the scale of ``beyond_chance``.

    Args:
        pairs: of models, with "same_top" and "same_top_chance", fractions.
    """
    same = np.array([pair["same_top"] for pair in pairs])
    chance = np.array([pair["same_top_chance"] for pair in pairs])
    return 100 * (same - chance) / (1 - chance)


def _percent_axis(ax: Axes, room: float) -> None:
    """The horizontal axis of agreement beyond chance, with room for numbers at the right."""
    ax.axvline(0, color=GREY, lw=1)
    ax.set_xlim(-22, 100 + room)
    ax.set_xticks([0, 50, 100], ["0 %\nas chance", "50 %", "100 %\nthe same"])


def _draw_beyond_chance(ax: Axes, place: float, percent: np.ndarray, shade: str) -> None:
    """A bar to the mean of one row, and a dot for each pair."""
    mean = percent.mean()
    ax.barh(
        place,
        mean,
        color=shade,
        alpha=0.3,
    )
    row_of_dots(ax, place, percent, shade)


def _number_at_the_end(ax: Axes, place: float, percent: np.ndarray, ranged: bool) -> None:
    """The mean of one row beyond its bar and its dots; if ranged, below it where the dots lie."""
    mean = percent.mean()
    least = percent.min()
    most = percent.max()
    numbers = f"{mean:.0f} %"
    if ranged and len(percent) > 1:
        numbers += f"\n{least:.0f} to {most:.0f}"
    ax.annotate(
        numbers,
        (max(0, most), place),
        (9, 0),
        textcoords="offset points",
        va="center",
    )


def orders_figure(maps: Mapping[str, np.ndarray], said: np.ndarray) -> Figure:
    """What agreement means: three pairs of maps, each patch at its places in both orders.

    The first pair is of two children and agrees as much as such pairs do on average; it is left out
    where no two children have the same answer, and with it what is beyond chance. The others are of
    one child each: the middle one of all children, and the one with the most alike maps.

    Args:
        maps: name of a model -> float (N, gh, gw); the first and the last model are compared.
        said: the answer to each image, int (M,) with M >= N; two children have the same answer.
    """
    names = list(maps)
    first = maps[names[0]]
    second = maps[names[-1]]  # a single model is compared with itself
    others = shuffled(second, said[: len(second)])
    with_others = agreement(first, others)  # nan where no other child got the same answer
    with_same = np.nan_to_num(agreement(first, second))
    paired = np.flatnonzero(~np.isnan(with_others))
    order = with_same.argsort()
    middle = order[len(order) // 2]
    most = order[-1]
    chance = np.nan
    pairs = {}
    if len(paired) > 0:
        chance = with_others[paired].mean()
        usual = paired[abs(with_others[paired] - chance).argmin()]
        pairs["two children"] = (first[usual], others[usual], with_others[usual])
    pairs["the same child"] = (first[middle], second[middle], with_same[middle])
    pairs["the most alike"] = (first[most], second[most], with_same[most])
    figure, axes = plt.subplots(1, len(pairs), figsize=(9, 3.3), sharey=True)
    figure.set_layout_engine("constrained")
    for ax, (title, (left, right, agreed)) in zip(axes, pairs.items()):
        words = f"{title}: {agreed:.2f}"
        if np.isfinite(chance):
            (beyond,) = beyond_chance([{"spearman": agreed, "chance_in_class": chance}])
            words += f",\n{round(beyond)} % beyond chance"
        ax.set_title(words, fontsize=11)
        ax.plot([1, left.size], [1, left.size], color=GREY, lw=1)
        ax.plot(_places(left), _places(right), "o", color=colour(names[-1]), mec="white")
        ax.set_xlabel(f"place in {names[0]}'s order")
        ax.set_xticks([1, left.size], ["hottest", "coldest"])
        ax.set_yticks([1, left.size], ["hottest", "coldest"])
        ax.set_aspect("equal")
    axes[0].set_ylabel(f"place in {names[-1]}'s order")
    return figure


def changed_figure(data: Dataset, changed: Sequence[Mapping]) -> Figure:
    """Test images on which many Tinys answer otherwise than Base.

    Args:
        data: of the images.
        changed: those to show, of the ``changed`` in inheritance.json.
    """
    figure, axes = plt.subplots(
        1,
        max(len(changed), 1),
        figsize=(9, 2.4),
        squeeze=False,
    )
    figure.set_layout_engine("constrained")
    for ax in axes[0]:
        ax.set_axis_off()
    for ax, image in zip(axes[0], changed):
        show_image(ax, data.test.images[image["index"]])
        truth = short_name(data, image["label"])
        answer = short_name(data, image["teacher"])
        ax.set_title(f"truly {truth}\nBase: {answer}", fontsize=9)
        ax.text(
            0.5,
            -0.05,
            f"{image['share']:.0%} of Tinys differ",
            transform=ax.transAxes,
            ha="center",
            va="top",
            fontsize=9,
        )
    return figure


def _places(heat: np.ndarray) -> np.ndarray:
    """The place of each patch in the order of its map, from 1, the hottest."""
    return (-heat).ravel().argsort().argsort() + 1


@dataclass
class Row:
    """One row of the figure of three questions.

    Attributes:
        title: whose runs they are.
        shade: their colour.
        answers: of each run, the share of the images with Base's answer.
        maps: way to explain -> the agreement of each run's maps with Base's.
    """

    title: str
    shade: str
    answers: Sequence[float]
    maps: dict[str, list[dict]]


def three_questions(results: SeriesResults, siblings: bool = False) -> Figure:
    """Same answers, same maps, same reasons as Base: a dot for each complete run.

    A dashed line through all rows is the second Base, and at the end of each row stands the mean.

    Args:
        results: of ``shipped_results.series_results``.
        siblings: with a last row in which a dot is a pair of Tinys: for the answers each pair, for
            the maps those pairs whose maps were compared.
    """
    rulers = [ruler for ruler in QUESTIONS if ruler in results.agreement]
    rows = _rows(results, rulers, siblings)
    figure, grid = plt.subplots(
        1,
        1 + len(rulers),
        figsize=(9.4, 0.55 * max(len(rows), 1) + 1),
        sharey=True,
        squeeze=False,
    )
    axes = grid[0]
    figure.set_layout_engine("constrained")
    for ax, ruler in zip(axes[1:], rulers):
        ax.set_title(QUESTIONS[ruler], fontsize=10, loc="left")
        _percent_axis(ax, room=40)
    for place, row in enumerate(rows):
        answers = 100 * np.array(row.answers)
        row_of_dots(axes[0], place, answers, row.shade)
        if len(answers):
            _mean_of_row(axes[0], place, answers, row, ".1f")
        for ax, ruler in zip(axes[1:], rulers):
            pairs = row.maps[ruler]
            if pairs:
                percent = beyond_chance(pairs)
                _draw_beyond_chance(ax, place, percent, row.shade)
                _mean_of_row(ax, place, percent, row)
    axes[0].set_title("SAME ANSWERS?\n% of the images,\nas Base", fontsize=10, loc="left")
    lowest = min((100 * min(row.answers) for row in rows if len(row.answers)), default=100)
    left = min(90, 10 * int((lowest - 1) / 10))
    right = 100 + 0.4 * (100 - left)  # with room for the means
    axes[0].set_xlim(left, right)
    axes[0].set_xticks(np.linspace(left, 100, 3))
    name_rows(axes[0], [row.title for row in rows])
    return figure


def _mean_of_row(
    ax: Axes, place: float, percent: np.ndarray, row: Row, decimals: str = ".0f"
) -> None:
    """The mean at the end of a row; if it is that of a second Base, a line through all rows."""
    mean = percent.mean()
    write_in_row(
        ax,
        place,
        f"{mean:{decimals}} %",
        at=1,
        ha="right",
    )
    if row.title == SECOND_BASE:
        ax.axvline(
            mean,
            color=row.shade,
            ls="--",
            lw=1,
            zorder=0,
        )


def _rows(results: SeriesResults, rulers: Sequence[str], siblings: bool) -> list[Row]:
    """A second Base, the Tinys, and, if asked for, two Tinys with each other."""
    rows = []
    for name in lesson_models():
        if name not in results.same_answers:
            continue
        title = SERIES[name].title
        maps = {ruler: results.agreement[ruler].get(name, []) for ruler in rulers}
        shown = SECOND_BASE if title == "Base" else title
        rows.append(Row(shown, colour(title), results.same_answers[name], maps))
    if siblings and results.siblings:
        maps = {ruler: results.siblings.get(ruler, []) for ruler in rulers}
        rows.append(Row("(two Tinys)", colour("Tiny"), results.siblings_answers, maps))
    return rows


def teachers_table(results: SeriesResults) -> list[dict[str, str]]:
    """Would any teacher have done? How near to our Base come students of it and of other models?

    Args:
        results: of ``shipped_results.series_results``.

    Returns:
        Rows for ``results.as_table``: agreement beyond chance, the mean over the runs and in
        brackets the lowest and the highest. A teacher whose students were not measured has no
        row.
    """
    rows = []
    for teacher, begin in TEACHERS.items():
        hidden = _measured(results.dataset, "occlusion", begin)
        marked = _measured(results.dataset, "grad_cam", begin)
        if not hidden:
            continue
        row = {
            "Tiny, taught by the answers of": teacher,
            "runs": str(len(hidden)),
            "like our Base by hiding": with_range(beyond_chance(hidden) / 100, ".0%"),
            "like our Base by Grad-CAM": with_range(beyond_chance(marked) / 100, ".0%"),
        }
        rows.append(row)
    return rows
