"""Checks of a reader's answers to the exercises: each one says what is wrong, and why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .config import SwysError, unknown

Check = Callable[..., str]  # (answer, *given) -> a hint, or "" where the answer is right
CHECKS: dict[str, Check] = {}


def register(name: str) -> Callable[[Check], Check]:
    """Add a check to the table, as a decorator of its function.

    Args:
        name: what the reader gives to :func:`check`.
    """

    def add(function: Check) -> Check:
        CHECKS[name] = function
        return function

    return add


def check(name: str, answer: Any, *given: Any) -> None:
    """Print what is wrong with an answer to an exercise, or that it is right.

    Args:
        name: of the exercise, as its starter cell has it.
        answer: the reader's; ``...`` is a starter cell that nobody has filled in.
        *given: what the check needs to know, such as the data; each exercise says what.

    Raises:
        SwysError: there is no such exercise.
    """
    if name not in CHECKS:
        raise SwysError(unknown("exercise", name, CHECKS))
    if answer is ...:
        print(f"{name}: put your answer in place of the dots (...), then run the cell again.")
        return
    hint = CHECKS[name](answer, *given)
    if hint:
        print(f"{name}: not yet. {hint}")
    else:
        print(f"{name}: right.")
