"""Answers and errors that a student shares with its teacher."""

import json

import numpy as np
import pytest
from small import run_entry

from swys_studies import inheritance
from swys_studies.intervals import with_interval
from swys_studies.runs import read_runs
from swys_utils.config import CHECKPOINTS, SwysError

LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1])
TEACHER = np.array([0, 0, 0, 1, 1, 1, 0, 0])  # three errors


def entry(run_id, answers):
    predicted = "".join(map(str, answers))
    return run_entry(run_id, predicted, accuracy=(answers == LABELS[: len(answers)]).mean())


def test_a_copy_repeats_every_error():
    shared = inheritance.in_common(TEACHER, TEACHER, LABELS)
    assert shared["same_answer"] == 1
    assert shared["inherited"] == 1
    assert shared["teacher_errors"] == 3


def test_a_perfect_student_inherits_nothing():
    assert inheritance.in_common(TEACHER, LABELS, LABELS)["inherited"] == 0


def test_chance_is_how_often_a_student_gives_that_answer_to_such_images():
    student = np.array([1, 0, 0, 0, 0, 0, 1, 1])
    shared = inheritance.in_common(TEACHER, student, LABELS)
    assert shared["by_chance"] == pytest.approx((0.25 + 0.5 + 0.5) / 3, abs=1e-4)


def test_another_wrong_answer_is_no_inherited_error():
    teacher = np.array([1, 2])
    shared = inheritance.in_common(teacher, np.array([2, 2]), np.array([0, 2]))
    assert shared["inherited"] == 0


@pytest.fixture
def entries():
    return [
        entry("vit_base/labels/seed0", TEACHER),
        entry("vit_base/labels/seed1", LABELS),
        entry("vit_tiny/labels/seed0", LABELS),
        entry("vit_tiny/answers/seed0", TEACHER),
        entry("vit_base/labels_sharp/seed0", 1 - TEACHER),
    ]


def test_every_run_but_the_teacher_is_compared(entries):
    runs = inheritance.inherited_by_runs(entries, LABELS)["runs"]
    groups = {run["group"]: run["inherited"] for run in runs}
    assert groups == {
        "another teacher": 0,
        "Tiny": 0,
        "Tiny, answers": 1,
        "Base, views without blur": 0,
    }


def test_images_whose_answer_changed_in_tinys_are_listed(entries):
    changed = inheritance.inherited_by_runs(entries, LABELS)["changed"]
    assert [image["index"] for image in changed] == [3, 6, 7]
    assert changed[0] == {"index": 3, "label": 0, "teacher": 1, "share": 0.5}


def test_a_group_has_an_interval_over_its_seeds():
    runs = [
        {"group": "Tiny", "same_answer": value, "inherited": value, "by_chance": 0.1}
        for value in (0.5, 0.7)
    ]
    (row,) = inheritance.summary(runs)
    assert row["seeds"] == 2
    assert row["inherited"].startswith("0.60 [")


def test_a_single_value_has_no_interval():
    assert with_interval([0.25]) == "0.25"
    assert with_interval([0.25, 0.25]) == "0.25"  # equal ones say nothing of a spread


def test_the_interval_of_a_share_stays_a_share():
    assert with_interval([1.0, 0.9]).endswith("1.00]")
    assert with_interval([0.0, 0.1]).startswith("0.05 [0.00")


def test_where_no_tiny_is_trained_no_image_has_changed(entries):
    bases = [entry for entry in entries if entry["id"].startswith("vit_base")]
    assert inheritance.inherited_by_runs(bases, LABELS)["changed"] == []


def test_a_run_of_other_images_is_refused(entries):
    entries.append(entry("vit_tiny/maps/seed0", TEACHER[:3]))
    with pytest.raises(SwysError, match="3 predictions for 8 test images"):
        inheritance.inherited_by_runs(entries, LABELS)


def test_without_base_there_is_nothing_to_inherit(entries):
    with pytest.raises(SwysError, match="no run vit_base/labels/seed0"):
        inheritance.inherited_by_runs(entries[1:], LABELS)


def test_a_teacher_without_errors_hands_on_none():
    with pytest.raises(SwysError, match="makes no error"):
        inheritance.in_common(LABELS, TEACHER, LABELS)


@pytest.mark.parametrize("dataset", ["pneumoniamnist", "bloodmnist"])
def test_the_shipped_result_is_of_all_shipped_runs(dataset):
    folder = CHECKPOINTS / dataset
    compared = json.loads((folder / "inheritance.json").read_text("utf-8"))
    ids = {run["id"] for run in compared["runs"]} | {compared["teacher"]}
    assert ids == {run["id"] for run in read_runs(folder / "runs.json")}


def test_a_seed_without_a_value_is_left_out():
    assert with_interval([0.5, float("nan")]) == "0.50"
    assert with_interval([float("nan")]) == "none"
