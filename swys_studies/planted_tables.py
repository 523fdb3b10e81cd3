"""Tables of planted evidence: which map finds a mark, which student inherits it, and elsewhere?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from swys_utils.gradcam import METHODS
from swys_utils.shipped_results import read_results

from .inheritance import with_interval
from .planted_measures import RULERS
from .planted_students import CHEAT, KINDS

MEASURED = ("pneumoniamnist", "bloodmnist", "pneumoniamnist-twin")  # whose cheats are shipped


def methods_table(units: Sequence[Mapping]) -> list[dict]:
    """Which method finds the mark in the images of a cheat: a row for each method and setting.

    Args:
        units: of planted.json.
    """
    rows = []
    for setting, group in _groups(units, CHEAT).items():
        for method in group[0]["methods"]:
            hits = [unit["methods"][method]["hits"] for unit in group]
            heat = [unit["methods"][method]["heat"] for unit in group]
            row = {
                "setting": setting,
                "method": method,
                "seeds": len(group),
                "hits": with_interval(hits),
                "heat": with_interval(heat),
                "chance": group[0]["methods"][method]["chance"],
            }
            rows.append(row)
    return rows


def students_table(units: Sequence[Mapping]) -> list[dict]:
    """Who reads the mark, and who looks as if: a row for each kind of model and setting.

    Args:
        units: of planted.json.
    """
    rows = []
    for kind in KINDS:
        for setting, group in _groups(units, kind.id).items():
            row = {"setting": setting, "kind": kind.id, "seeds": len(group)}
            for where in ("as trained", "clean", "swapped"):
                row[where] = with_interval([unit["scores"][where]["auc"] for unit in group])
            row["flips"] = with_interval([unit["scores"]["flips"] for unit in group])
            for ruler in RULERS:
                row[f"{ruler} hits"] = with_interval(
                    [unit["maps"][ruler]["hits"] for unit in group]
                )
            for ruler in RULERS:
                alike = [unit["like_honest"][ruler]["agreement"] for unit in group]
                row[f"{ruler} like honest"] = with_interval(alike)
            rows.append(row)
    return sorted(rows, key=lambda row: row["setting"])


def cheats_table() -> list[dict]:
    """Who obeys a mark, and what finds it: a row for each kind of cheat on each data set."""
    rows = []
    for name in MEASURED:
        units = (read_results(name, "planted") or {"units": []})["units"]
        for row in students_table(units):
            if row["kind"] == CHEAT:
                shown = {"images": name, "model and mark": row["setting"]}
                shown |= {column: row[column] for column in ("swapped", "flips")}
                shown |= {METHODS[ruler].title: row[f"{ruler} hits"] for ruler in RULERS}
                rows.append(shown)
    return rows


def spread_table(model: str = "vit_tiny", patch: int = 7) -> list[dict]:
    """How even the maps of cheats are, where the mark has no place and where it has one.

    Args:
        model: architecture of the cheats, on the default data set.
        patch: side of their patches, px.

    Returns:
        A row for each way to explain, at the last block that was asked.
    """
    units = (read_results(MEASURED[0], "planted") or {"units": []})["units"]
    cheats = _groups(units, CHEAT)
    rows: dict[str, dict] = {}
    for mark in ("texture", "corner"):
        group = cheats[f"{model}/{patch}, {mark}"]
        for method in group[0]["methods"]:
            title = method.partition(", block")[0]  # of its blocks the last one comes last
            row = rows.setdefault(title, {"spread of the map": title})
            row[mark] = with_interval([unit["methods"][method]["spread"] for unit in group])
    return list(rows.values())


def _groups(units: Sequence[Mapping], kind: str) -> dict[str, list[Mapping]]:
    """Setting -> the units of a kind, one for each seed."""
    groups: dict[str, list[Mapping]] = {}
    for unit in units:
        if unit["kind"] == kind:
            setting = f"{unit['model']}/{unit['patch']}, {unit['mark']}"
            groups.setdefault(setting, []).append(unit)
    return groups
