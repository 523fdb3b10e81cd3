"""Differences of ways to teach, paired by seed, and the summary of a study of agreement."""

import numpy as np
import pytest

from swys_studies import agreement_summary
from swys_studies.runs import read_study
from swys_utils.config import CHECKPOINTS

SEEDS = {  # group -> value of each seed
    "Tiny": (0.1, 0.2, 0.3),
    "Tiny, answers": (0.2, 0.4, 0.3),
    "Tiny, answers + maps": (0.8, 0.8, 0.8),
    "another teacher": (0.4, 0.4, 0.4),
}


@pytest.fixture
def rows():
    """Three runs of each group."""
    rows = []
    for group in SEEDS:
        for seed in range(3):
            row = {"id": f"{group}, {seed}", "group": group, "seed": seed}
            rows.append(row)
    return rows


@pytest.fixture
def values(rows):
    """Id of a run -> its value."""
    return {row["id"]: SEEDS[row["group"]][row["seed"]] for row in rows}


@pytest.fixture
def summary(rows, values):
    """Title -> cell of a study with one way to explain; the order of its runs is another one."""
    compared = {}
    for run_id, value in values.items():
        compared[run_id] = {
            "spearman": value,
            "chance": 0.05,
            "chance_in_class": 0.1,
        }
    rows.reverse()
    study = {"runs": rows, "maps": {"grad_cam": {"runs": compared}}}
    table = agreement_summary.summary(study)
    return {row["compared with the teacher"]: row["grad_cam"] for row in table}


def test_students_are_compared_with_each_other(rows, values):
    compared = []
    for row in agreement_summary.differences(rows, values):
        compared.append(f"{row['of']} - {row['to']}")
    assert compared == [
        "Tiny, answers - Tiny",
        "Tiny, answers + maps - Tiny",
        "Tiny, answers + maps - Tiny, answers",
    ]


def test_differences_are_paired_by_seed(rows, values):
    answers, *_ = agreement_summary.differences(rows, values)
    assert answers["seeds"] == pytest.approx([0.1, 0.2, 0.0])
    assert answers["mean"] == pytest.approx(0.1)


def test_the_interval_of_a_difference_is_a_t_interval(rows, values):
    answers, *_ = agreement_summary.differences(rows, values)
    half = 4.3027 * 0.1 / np.sqrt(3)  # t quantile, standard error
    assert answers["low"] == pytest.approx(0.1 - half, abs=1e-4)
    assert answers["high"] == pytest.approx(0.1 + half, abs=1e-4)


def test_one_pair_is_no_comparison(rows, values):
    one_seed = [row for row in rows if row["seed"] == 0]
    assert agreement_summary.differences(one_seed, values) == []


def test_the_summary_has_the_groups_in_the_order_of_the_table(summary):
    assert list(summary)[:4] == list(SEEDS)


@pytest.mark.parametrize(
    ("group", "cell"),
    [
        ("Tiny", "0.20 [-0.05, 0.45] (0.10)"),
        ("Tiny, answers", "0.30 [0.05, 0.55] (0.10)"),
        ("Tiny, answers + maps", "0.80 (0.10)"),
        ("another teacher", "0.40 (0.10)"),
    ],
)
def test_the_summary_has_mean_interval_and_chance_of_each_group(summary, group, cell):
    assert summary[group] == cell


def test_the_summary_has_differences_with_intervals(summary):
    assert summary["Tiny, answers + maps - Tiny"].startswith("+0.60 [")


def test_the_shipped_results_make_a_table():
    study = read_study(CHECKPOINTS / "pneumoniamnist" / "agreement.json")
    rows = agreement_summary.summary(study)
    assert all(list(row) == list(rows[0]) for row in rows)
    groups = {run["group"] for run in study["runs"]}
    assert groups <= {row["compared with the teacher"] for row in rows}
