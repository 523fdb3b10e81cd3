"""Tables of planted evidence: which map finds a mark, which student inherits it, and elsewhere?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from swys_utils.gradcam import METHODS
from swys_utils.models import SERIES
from swys_utils.results import as_table, with_range
from swys_utils.shipped_results import PLANTED_EPOCHS, planted_units, read_results

from .intervals import with_interval
from .planted_measures import RULERS
from .planted_students import ANOTHER_CHEAT, CHEAT, KINDS

LAST_BLOCK = "11"  # of a Tiny
# whose cheats are shipped -> what its images are
MEASURED = {
    "pneumoniamnist": "X-rays",
    "bloodmnist": "cells",
    "pneumoniamnist-twin": "drawn",
}


def print_tables(units: Sequence[Mapping]) -> None:
    """Print what is measured, in lines that a terminal shows whole.

    Args:
        units: of planted.json.
    """
    tables = {
        "who obeys the mark": students_table(units),
        "AUC as trained and on clean images": usual_scores_table(units),
        "what the maps point at, and whose they are like": students_maps_table(units),
    }
    print(as_table(methods_table(units)))
    for setting in sorted(_by_setting(units)):
        for title, table in tables.items():
            rows = [row for row in table if row["setting"] == setting]
            print(f"\n{setting}: {title}")
            print(as_table([_without_setting(row) for row in rows]))
    print(f"\n{as_table(int8_and_subsets_table(units))}")
    print("\nhottest patch on the mark")
    print(as_table(subsets_table(units)))


def _without_setting(row: Mapping) -> dict:
    return {key: value for key, value in row.items() if key != "setting"}


def methods_table(units: Sequence[Mapping]) -> list[dict]:
    """Which method finds the mark in the images of cheats.

    Args:
        units: of planted.json.

    Returns:
        A row for each method, setting, and kind of cheat: the second cheats were asked at more
        blocks than some of the first. ``seeds`` is how many cheats were asked.
    """
    rows = []
    for kind in (CHEAT, ANOTHER_CHEAT):
        asked = [unit for unit in _of_kind(units, kind) if "methods" in unit]
        for setting, group in _by_setting(asked).items():
            measured: dict[str, list[Mapping]] = {}
            for unit in group:
                for method, found in unit["methods"].items():
                    measured.setdefault(method, []).append(found)
            for method, found in sorted(measured.items(), key=_in_order):
                row = {
                    "setting": setting,
                    "kind": kind,
                    "method": method,
                    "seeds": len(found),
                    "hits": with_interval([one["hits"] for one in found]),
                    "heat": with_interval([one["heat"] for one in found]),
                    "chance": found[0]["chance"],
                }
                rows.append(row)
    return rows


def _in_order(measured: tuple[str, list]) -> tuple[str, int]:
    """By the name of a method, then by the number of the block."""
    name, _, block = measured[0].partition(", block ")
    return name, int(block or 0)


def students_table(units: Sequence[Mapping]) -> list[dict]:
    """Who obeys the mark: AUC where it is swapped, and answers that it turns.

    Args:
        units: of planted.json.

    Returns:
        A row for each setting and kind of model.
    """
    rows = []
    for start, group in _kinds_of_settings(units):
        row = start | {
            "seeds": len(group),
            "swapped": with_interval([unit["scores"]["swapped"]["auc"] for unit in group]),
            "flips": with_interval([unit["scores"]["flips"] for unit in group]),
            "lost": with_interval([unit["scores"]["lost"] for unit in group]),
        }
        rows.append(row)
    return rows


def usual_scores_table(units: Sequence[Mapping]) -> list[dict]:
    """AUC where the mark is as in training, and without it; and how long a model was trained.

    Args:
        units: of planted.json.

    Returns:
        A row for each setting and kind of model.
    """
    rows = []
    for start, group in _kinds_of_settings(units):
        areas = {}
        for where in ("as trained", "clean"):
            areas[where] = with_interval([unit["scores"][where]["auc"] for unit in group])
        rows.append(start | areas | {"seconds": _mean_seconds(group)})
    return rows


def students_maps_table(units: Sequence[Mapping]) -> list[dict]:
    """Whose maps are hot on the mark, and whose they are like.

    Args:
        units: of planted.json.

    Returns:
        A row for each setting, kind of model and ruler.
    """
    rows = []
    for start, group in _kinds_of_settings(units):
        for ruler in RULERS:
            hits = [unit["maps"][ruler]["hits"] for unit in group]
            row = start | {
                "by": ruler,
                "hits": with_interval(hits),
                "like honest": _mean_agreement(group, "like_honest", ruler),
                "like cheat": _mean_agreement(group, "like_cheat", ruler),
            }
            rows.append(row)
    return rows


def _mean_agreement(units: Sequence[Mapping], key: str, ruler: str) -> str:
    """With the honest model or the cheat, by the key of either, of those that were compared."""
    compared = [unit[key] for unit in units if unit.get(key)]
    return with_interval([one[ruler]["agreement"] for one in compared], lowest=-1.0)


def _kinds_of_settings(units: Sequence[Mapping]) -> list[tuple[dict, list[Mapping]]]:
    """How the row of each setting and kind of model begins, and its units; settings in order."""
    found = []
    for setting, of_setting in sorted(_by_setting(units).items()):
        for kind in KINDS:
            group = _of_kind(of_setting, kind.id)
            if group:
                found.append(({"setting": setting, "kind": kind.id}, group))
    return found


def _mean_seconds(units: Sequence[Mapping]) -> str:
    """Of the training; empty where none was timed, as of teachers."""
    known = [unit["seconds"] for unit in units if unit.get("seconds")]
    return f"{np.mean(known):.0f}" if known else ""


def int8_and_subsets_table(units: Sequence[Mapping]) -> list[dict]:
    """Is a shortcut kept when the file shrinks, and do random subsets of patches find it, too?

    Args:
        units: of planted.json.

    Returns:
        A row for each setting with plain cheats. ``same patch`` is the share of the images whose
        hottest patch is the same by single patches and by random halves of the picture.
    """
    asked = [unit for unit in _of_kind(units, CHEAT) if "int8" in unit and "subsets" in unit]
    rows = []
    for setting, group in _by_setting(asked).items():
        row = {"setting": setting, "seeds": len(group)}
        for title, part in {"float32": "scores", "int8": "int8"}.items():
            swapped = [unit[part]["swapped"]["auc"] for unit in group]
            row[f"swapped, {title}"] = with_interval(swapped)
            row[f"flips, {title}"] = with_interval([unit[part]["flips"] for unit in group])
        row["same patch"] = with_interval([unit["subsets"]["same_patch"] for unit in group])
        rows.append(row)
    return rows


def subsets_table(units: Sequence[Mapping]) -> list[dict]:
    """Do random halves of the picture find a mark that single patches miss?

    Args:
        units: of planted.json.

    Returns:
        A row for each setting whose cheats were asked that: the share of the images with the
        hottest patch on the mark.
    """
    asked = [unit for unit in _of_kind(units, CHEAT) if "hits" in unit.get("subsets", {})]
    rows = []
    for setting, group in _by_setting(asked).items():
        row = {"setting": setting, "seeds": len(group)}
        for title, key in {"single patches": "hits", "random halves": "hits of subsets"}.items():
            row[title] = with_interval([unit["subsets"][key] for unit in group])
        rows.append(row)
    return rows


def cheats_table() -> list[dict]:
    """Who obeys a mark, and what finds it: a row for each kind of cheat on each data set.

    All but the AUC are in percent.
    """
    rows = []
    for name, images in MEASURED.items():
        content = read_results(name, "planted") or {"units": []}
        for setting, group in _by_setting(_of_kind(content["units"], CHEAT)).items():
            swapped = [unit["scores"]["swapped"]["auc"] for unit in group]
            flips = [100 * unit["scores"]["flips"] for unit in group]
            row = {
                "images": images,
                "cheat": setting,
                "swapped": f"{np.mean(swapped):.2f}",
                "turned": with_range(flips, ".0f"),
            }
            for ruler in RULERS:
                hits = [100 * unit["maps"][ruler]["hits"] for unit in group]
                row[METHODS[ruler].title] = with_range(hits, ".0f")
            row["chance"] = f"{100 * group[0]['maps']['occlusion']['chance']:.0f}"
            rows.append(row)
    return rows


def spread_table() -> list[dict]:
    """How even the maps of cheats are, where the mark has no place and where it has one.

    Of each way to explain the last block counts.

    Returns:
        A row for each way to explain; Tiny with patches of 7 px, on the default data set.
    """
    cheats = _by_setting(_of_kind(planted_units(), CHEAT))
    rows: dict[str, dict] = {}
    for mark in ("texture", "corner"):
        for unit in cheats[f"Tiny, 7 px, {mark}"]:
            for method, measured in unit["methods"].items():
                name, _, block = method.partition(", block ")
                if block in ("", LAST_BLOCK):
                    title = METHODS[name].title if name in METHODS else name
                    row = rows.setdefault(name, {"spread of the map": title.replace("_", " ")})
                    row.setdefault(mark, []).append(measured["spread"])
    for row in rows.values():
        row["texture"] = with_interval(row["texture"])
        row["corner"] = with_interval(row["corner"])
    return list(rows.values())


def _of_kind(units: Sequence[Mapping], kind: str) -> list[Mapping]:
    return [unit for unit in units if unit["kind"] == kind]


def _by_setting(units: Sequence[Mapping]) -> dict[str, list[Mapping]]:
    """What was trained on what, in words -> its units."""
    groups: dict[str, list[Mapping]] = {}
    for unit in units:
        model = unit["model"]
        title = SERIES[model].title if model in SERIES else model
        setting = f"{title}, {unit['patch']} px, {unit['mark']}"
        if unit.get("epochs", PLANTED_EPOCHS) != PLANTED_EPOCHS:
            setting += f", {unit['epochs']} epochs"
        groups.setdefault(setting, []).append(unit)
    return groups
