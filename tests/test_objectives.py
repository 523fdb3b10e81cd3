"""The ways to teach: one list of them, and what tells one run's objective from another's."""

import json

import pytest
from small import OBJECTIVES, objective, vit

from swys_utils import distillation
from swys_utils.config import SwysError
from swys_utils.distillation import (
    Distiller,
    MapDistiller,
    Objective,
    SoftTargets,
    Teacher,
)
from swys_utils.recipe import SupervisedObjective

LABELS = SupervisedObjective()


@pytest.fixture
def student():
    return vit()


@pytest.fixture
def teacher():
    return Teacher(vit(seed=1))


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_the_listed_settings_are_the_usual_ones(kind, student, teacher):
    entry = distillation.OBJECTIVES[kind]
    usual = entry.make(teacher, LABELS, student)
    listed = entry.make(teacher, LABELS, student, **entry.defaults)
    assert listed.settings() == usual.settings()


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_an_objective_is_listed_by_its_id(kind):
    assert distillation.OBJECTIVES[kind].id == kind


def test_the_labels_need_no_teacher(student):
    entry = distillation.OBJECTIVES["labels"]
    assert not entry.needs_teacher
    assert entry.make(None, LABELS, student) is LABELS


def test_one_entry_adds_a_way_to_teach(monkeypatch, student, teacher):
    def make(teacher, labels, student, weight):
        return SoftTargets(teacher, labels, alpha=weight)

    entry = Objective("mine", "my way", "#000000", make, defaults={"weight": 0.0})
    monkeypatch.setitem(distillation.OBJECTIVES, "mine", entry)
    found = distillation.OBJECTIVES["mine"]
    loss = found.make(teacher, LABELS, student, **found.defaults)
    assert loss.alpha == 0.0


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_settings_are_json(kind, student, teacher):
    settings = objective(kind, student, teacher.model).settings()
    assert json.loads(json.dumps(settings)) == settings


def test_settings_name_each_number(teacher):
    settings = MapDistiller(teacher, LABELS, 0.25, 3.0, 2.0).settings()
    assert settings["alpha"] == 0.25
    assert settings["temperature"] == 3.0
    assert settings["gamma"] == 2.0


@pytest.mark.parametrize("kind", ["answers", "maps", "features"])
def test_settings_tell_teachers_apart(kind, student, teacher):
    one = objective(kind, student, teacher.model)
    another = objective(kind, student, vit(seed=2))
    assert one.settings() != another.settings()


def test_settings_tell_the_ways_to_teach_apart(student, teacher):
    names = set()
    for kind in OBJECTIVES:
        settings = objective(kind, student, teacher.model).settings()
        names.add(settings["objective"])
    assert len(names) == len(OBJECTIVES)


class Hinted(Distiller):
    """What a reader writes: a teacher, and a number of its own."""

    def __init__(self, teacher, labels, weight):
        super().__init__(teacher, labels)
        self.weight = weight


def test_an_objective_of_a_reader_is_told_apart_by_its_numbers(teacher):
    one = Hinted(teacher, LABELS, weight=1.0)
    another = Hinted(teacher, LABELS, weight=2.0)
    assert one.settings() != another.settings()


def test_an_objective_of_a_reader_refuses_a_teacher_of_other_classes(teacher):
    with pytest.raises(SwysError, match="the teacher has 2 classes, the student 3"):
        Hinted(teacher, LABELS, weight=1.0).check(vit(classes=3))


def test_settings_tell_losses_on_the_labels_apart(teacher):
    class Reader(SupervisedObjective):
        """What a reader writes."""

    usual = SoftTargets(teacher, LABELS)
    changed = SoftTargets(teacher, Reader())
    assert usual.settings() != changed.settings()
