"""Models of planted.json that may obey a mark: their names in figures, measures and colours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Unit: TypeAlias = Mapping[str, Any]  # an entry of planted.json: one model
Panels: TypeAlias = Mapping[str, Callable[[Unit], float]]  # title -> what is drawn of each model
STUDENTS = {  # kind of model in planted.json -> its name in figures
    "another honest": "another honest",
    "cheat": "cheat (labels alone)",
    "labels + honest maps": "labels + honest maps",
    "labels + maps of other images": "labels + maps of other images",
    "labels + honest occlusion": "labels + honest reasons",
    "labels + honest answers": "labels + honest answers",
    "honest answers": "honest answers alone",
    "cheat's answers, clean images": "a cheat's answers, clean images",
}
LESSON_STUDENTS = {  # those of them that the lesson shows, where two are called by longer names
    "another honest": "another honest model",
    "cheat": "the cheat (labels alone)",
    "labels + honest maps": STUDENTS["labels + honest maps"],
    "labels + honest answers": STUDENTS["labels + honest answers"],
    "honest answers": STUDENTS["honest answers"],
}
# share of the images of other classes that the mark turns, % -> colour of such models
OBEDIENCE = {50: "#B00020", 20: "#B36B00", 0: "black"}


def patches_of(side: int) -> int:
    """How many patches an image of the study has.

    Args:
        side: of a patch, px.
    """
    return (28 // side) ** 2


def turned(unit: Unit) -> float:
    """Of the images of other classes, those that the mark turns, %.

    Args:
        unit: of ``planted_units``.
    """
    return 100 * unit["scores"]["flips"]


def like_honest(unit: Unit, ruler: str) -> float:
    """Agreement with the maps of the honest model, beyond chance, %; negative: less than by chance.

    Args:
        unit: of ``planted_units``, with "like_honest".
        ruler: "grad_cam" or "occlusion".
    """
    alike = unit["like_honest"][ruler]
    return 100 * (alike["agreement"] - alike["chance"]) / (1 - alike["chance"])


def by_obedience(percent: float) -> str:
    """The colour of models of whose images of other classes the mark turns so many.

    Args:
        percent: from 0 to 100.
    """
    return next(shade for limit, shade in OBEDIENCE.items() if percent >= limit)
