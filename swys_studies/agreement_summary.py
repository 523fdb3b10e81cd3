"""The table of a study of agreement: groups of runs, and differences between ways of teaching."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from swys_figures.runs import ANOTHER
from swys_utils.metrics import t_interval

from .intervals import with_interval
from .kinds import AS_LONG_AS_BASE, AS_LONG_AS_TINY, student_kinds, taught_pairs
from .runs import with_todays_names


def summary(study: dict) -> list[dict]:
    """A row for each group of runs, then one for each difference; a column for each method.

    Args:
        study: content of an agreement.json, of this version or an earlier one.

    Returns:
        Rows for ``as_table``. A group has its mean, the t interval over its seeds, and its chance
        within a class; a difference has its interval. A cell that was not measured is empty.
    """
    study = with_todays_names(study)
    return [*_rows_of_groups(study), *_rows_of_differences(study)]


def differences(runs: Sequence[dict], values: Mapping[str, float]) -> list[dict]:
    """Differences between ways of teaching, paired by seed.

    Runs with the same seed have the same order of images; ``report.differences`` says when also
    the same initial weights.

    Args:
        runs: with ``id``, ``group`` and ``seed``.
        values: id of a run -> what is compared.

    Returns:
        One dict for each comparison with at least two pairs: ``of`` - ``to`` (groups), ``mean``,
        its t interval ``low``, ``high``, and ``seeds``: the difference of each pair.
    """
    rows = []
    for kind_a, kind_b in taught_pairs():
        a = _values_by_seed(runs, values, kind_a.title)
        b = _values_by_seed(runs, values, kind_b.title)
        seeds = sorted(a.keys() & b.keys())
        if len(seeds) < 2:
            continue
        pairs = [a[seed] - b[seed] for seed in seeds]
        low, high = t_interval(pairs)
        row = {
            "of": kind_a.title,
            "to": kind_b.title,
            "mean": float(np.mean(pairs)),
            "low": low,
            "high": high,
            "seeds": pairs,
        }
        rows.append(row)
    return rows


def _values_by_seed(
    runs: Sequence[dict], values: Mapping[str, float], group: str
) -> dict[int, float]:
    """Seed -> value of the runs of a group, as far as they have one."""
    members = [run for run in runs if run["group"] == group and run["id"] in values]
    return {run["seed"]: values[run["id"]] for run in members}


def _rows_of_groups(study: dict) -> list[dict[str, str]]:
    """A row for each group of runs that are compared with the teacher."""
    runs = study["runs"]
    titles = [kind.title for kind in (*student_kinds(), AS_LONG_AS_BASE, AS_LONG_AS_TINY)]
    present = {run["group"] for run in runs}
    rows = []
    for group in (*titles, ANOTHER):
        if group not in present:
            continue
        row = _empty_row(study, group)
        for method, part in study["maps"].items():
            spearman = {run_id: found["spearman"] for run_id, found in part["runs"].items()}
            chance = {run_id: found["chance_in_class"] for run_id, found in part["runs"].items()}
            values = list(_values_by_seed(runs, spearman, group).values())
            if values:
                by_chance = list(_values_by_seed(runs, chance, group).values())
                row[method] = f"{with_interval(values, -1.0)} ({np.mean(by_chance):.2f})"
        rows.append(row)
    return rows


def _rows_of_differences(study: dict) -> list[dict[str, str]]:
    """A row for each comparison of two ways of teaching."""
    rows: dict[str, dict[str, str]] = {}
    for method, part in study["maps"].items():
        spearman = {run_id: found["spearman"] for run_id, found in part["runs"].items()}
        for difference in differences(study["runs"], spearman):
            title = f"{difference['of']} - {difference['to']}"
            row = rows.setdefault(title, _empty_row(study, title))
            row[method] = "{mean:+.2f} [{low:+.2f}, {high:+.2f}]".format(**difference)
    return list(rows.values())


def _empty_row(study: dict, title: str) -> dict[str, str]:
    return {"compared with the teacher": title} | dict.fromkeys(study["maps"], "")
