"""Checks of a reader's answers."""

import pytest

from swys_utils import exercises
from swys_utils.config import SwysError
from swys_utils.exercises import check, register


@pytest.fixture(autouse=True)
def doubling(monkeypatch):
    monkeypatch.setattr(exercises, "CHECKS", dict(exercises.CHECKS))

    @register("doubling")
    def is_double(answer, number):
        return "" if answer == 2 * number else f"{number} + {number} is something else."


def test_a_right_answer(capsys):
    check("doubling", 6, 3)
    assert capsys.readouterr().out == "doubling: right.\n"


def test_a_wrong_answer_gets_a_hint(capsys):
    check("doubling", 5, 3)
    assert "not yet. 3 + 3 is something else." in capsys.readouterr().out


def test_an_untouched_starter_cell_is_no_mistake(capsys):
    check("doubling", ..., 3)
    assert "in place of the dots" in capsys.readouterr().out


def test_an_unknown_exercise_is_one_line():
    with pytest.raises(SwysError, match="did you mean 'doubling'"):
        check("doublin", 6, 3)
