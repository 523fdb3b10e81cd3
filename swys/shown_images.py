"""The images of a report: those whose answer changed, worst first, with both models' maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from swys_utils.explain import agreement

from .compared_images import ComparedImages
from .explanations import Explanations
from .measures import Answers

NEWLY_WRONG = "newly wrong"
NEWLY_RIGHT = "newly right"
OTHER_ANSWER = "other answer"
SAME_ANSWER = "same answer"


@dataclass(frozen=True, eq=False)
class ShownImage:
    """An image in the report.

    Attributes:
        index: its position among the images.
        name: what it is called.
        kind: ``newly wrong``, ``newly right``, ``other answer`` or ``same answer``.
        truth: its class; None without labels.
        answers: A's and B's class.
        confidences: A's and B's probability of their own answer.
        pixels: uint8 (S, S) or (S, S, 3).
        maps: "A", "B" -> signed heatmap, float (gh, gw); empty where there is none.
        occlusions: "A", "B" -> signed occlusion map, float (gh, gw); empty where there is none.
        map_agreement: rank correlation of the heatmaps; nan where there is none.
        occlusion_agreement: rank correlation of the occlusion maps; nan where there is none.
    """

    index: int
    name: str
    kind: str
    truth: str | None
    answers: tuple[str, str]
    confidences: tuple[float, float]
    pixels: np.ndarray
    maps: dict[str, np.ndarray] = field(default_factory=dict)
    occlusions: dict[str, np.ndarray] = field(default_factory=dict)
    map_agreement: float = np.nan
    occlusion_agreement: float = np.nan


def choose_shown(
    answers: dict[str, Answers], labels: np.ndarray | None, limit: int
) -> list[tuple[int, str]]:
    """The images to show: those that changed, worst first; then some with the same answer.

    Worst is what B believes least of A's answer. Images that B newly gets wrong come first.

    Args:
        answers: "A" and "B".
        labels: int (N,), 0/1 (N, L), or None.
        limit: largest number.

    Returns:
        Position and kind of each.
    """
    a = answers["A"]
    b = answers["B"]
    count = len(a.predicted)
    rows = np.arange(count)
    fallen = a.scores[rows, a.predicted] - b.scores[rows, a.predicted]
    changed = (a.given != b.given).any(axis=1)
    kinds = np.full(count, SAME_ANSWER, dtype=object)
    kinds[changed] = OTHER_ANSWER
    if labels is not None:
        right_a = a.right(labels)
        right_b = b.right(labels)
        kinds[changed & right_a & ~right_b] = NEWLY_WRONG
        kinds[changed & ~right_a & right_b] = NEWLY_RIGHT
    worst_first = [NEWLY_WRONG, OTHER_ANSWER, NEWLY_RIGHT, SAME_ANSWER]
    places = np.array([worst_first.index(kind) for kind in kinds])
    order = np.lexsort((-fallen, places))
    same = min(limit // 4, int((~changed).sum()))  # room for images whose answer is the same
    at_top = order[changed[order]][: limit - same]
    below = order[~changed[order]][: limit - len(at_top)]
    return [(int(index), str(kinds[index])) for index in [*at_top, *below]]


def shown_images(
    chosen: Sequence[tuple[int, str]],
    answers: dict[str, Answers],
    explained: Explanations,
    names: tuple[str, ...],
) -> list[ShownImage]:
    """The images of the report, with both answers and all maps that there are.

    Args:
        chosen: position and kind of each.
        answers: "A" and "B".
        explained: makes the maps.
        names: C class names.

    Returns:
        As many as were chosen.
    """
    if not chosen:
        return []
    indices = np.array([index for index, _ in chosen])
    maps, likeness = _maps_of(indices, explained)
    images = explained.images
    pictures = images.pictures[indices]
    shown = []
    for place, (index, kind) in enumerate(chosen):
        of_image = _answers_to(index, answers, names)
        shown.append(
            ShownImage(
                index=index,
                name=images.name(index),
                kind=kind,
                truth=_truth(images, index, names),
                pixels=pictures[place],
                maps={name: drawn[place] for name, drawn in maps["map"].items()},
                occlusions={name: drawn[place] for name, drawn in maps["occlusion"].items()},
                map_agreement=float(likeness["map"][place]),
                occlusion_agreement=float(likeness["occlusion"][place]),
                **of_image,
            )
        )
    return shown


def _answers_to(index: int, answers: dict[str, Answers], names: tuple[str, ...]) -> dict[str, Any]:
    """What A and B answer to an image, and how sure they are: two fields of `ShownImage`."""
    both = [answers[name] for name in ("A", "B")]
    return {
        "answers": tuple(_answer(each, index, names) for each in both),
        "confidences": tuple(_confidence(each, index) for each in both),
    }


def _confidence(answers: Answers, index: int) -> float:
    """How sure a model is of its answer to an image; of several labels, of the least sure one."""
    given = answers.given[index]
    scores = answers.scores[index]
    if len(given) == 1:
        return float(scores.max())
    return float(np.where(given, scores, 1 - scores).min())


def _maps_of(
    indices: np.ndarray, explained: Explanations
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """For "map" and "occlusion": the maps of both models, and how alike those of an image are."""
    maps: dict[str, dict[str, np.ndarray]] = {}
    likeness: dict[str, np.ndarray] = {}
    for row_id in ("map", "occlusion"):
        maps[row_id] = {}
        likeness[row_id] = np.full(len(indices), np.nan)
        if row_id in explained.made:
            maps[row_id] = explained.of(row_id, indices)
            likeness[row_id] = agreement(maps[row_id]["A"], maps[row_id]["B"])
    return maps, likeness


def _truth(images: ComparedImages, index: int, names: tuple[str, ...]) -> str | None:
    """The true class or labels of an image, by name."""
    if images.labels is None:
        return None
    label = images.labels[index]
    if images.multi_label:
        return ", ".join(names[number] for number in np.flatnonzero(label)) or "no label"
    return names[label]


def _answer(answers: Answers, index: int, names: tuple[str, ...]) -> str:
    """A model's answer to an image, by name."""
    given = answers.given[index]
    if given.dtype == bool:
        return ", ".join(names[number] for number in np.flatnonzero(given)) or "no label"
    return names[given[0]]
