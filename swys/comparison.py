"""Compare two models: ``result = compare(a, b, images, labels, class_names)``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from tqdm import tqdm

from swys_utils.benchmark import Timing, interleaved_latency
from swys_utils.config import SwysError

from .compared_images import ComparedImages
from .explanations import Explanations
from .measure_rows import Row, untold
from .measures import Answers, agreement_row, label_rows, size_row, speed_row
from .opened_models import (
    OpenedModel,
    are_probabilities,
    check_same_classes,
    log_of,
    refuse_other_counts,
)
from .shown_images import ShownImage, choose_shown, shown_images
from .suspicions import (
    behind_a_sigmoid,
    empty_classes,
    moved_threshold,
    near_chance,
    one_answer,
    other_names,
    other_order,
    other_order_than_data,
)
from .verdicts import Bounds
from .worst_class import class_row

FEWEST_ROUNDS = 5
CALLS_A_ROUND = 6  # three to warm up, three that count
WARM_UP = 0.2  # s, until the threads of the other model's library have stopped waiting busily


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        maps: number of images whose heatmaps are compared, a fixed random sample; 0 is none.
        occlusions: the same of occlusion maps, which cost an answer for each patch.
        shown: largest number of images in the report.
        seconds: for the timing of both models, about; 0 leaves it out.
    """

    maps: int = 128
    occlusions: int = 48
    shown: int = 16
    seconds: float = 5.0

    def __post_init__(self):
        for name in ("maps", "occlusions", "shown", "seconds"):
            value = getattr(self, name)
            if not 0 <= value <= 1e6:
                raise SwysError(f"{name} is {value}; give 0 or more")


@dataclass(frozen=True, eq=False)
class Measured:
    """What ``compare`` found, before it is shown.

    Attributes:
        models: "A", "B" and perhaps "ceiling" -> the opened model.
        images: what they were compared on.
        class_names: C names.
        rows: a measure each.
        notes: what looks like a mistake, and what could not be done; one line each.
        shown: the images that changed, worst first.
        changed: number of images with another answer.
        bounds: what may be lost.
        seconds: that the comparison took.
        asked: gates that the reader asked for, by option.
    """

    models: dict[str, OpenedModel]
    images: ComparedImages
    class_names: tuple[str, ...]
    rows: list[Row]
    notes: list[str]
    shown: list[ShownImage]
    changed: int
    bounds: Bounds
    seconds: float
    asked: frozenset[str] = frozenset()

    def row(self, row_id: str) -> Row | None:
        """A measure by its id; None where it was not made.

        Args:
            row_id: such as ``accuracy``.
        """
        for row in self.rows:
            if row.id == row_id:
                return row
        return None

    def count(self, verdict: str) -> int:
        """How many measures have a verdict.

        Args:
            verdict: ``kept``, ``lost`` or ``cannot tell``.
        """
        return sum(row.verdict == verdict for row in self.rows)


def measure(
    models: dict[str, OpenedModel],
    images: ComparedImages,
    bounds: Bounds | None = None,
    effort: Effort | None = None,
) -> Measured:
    """Compare opened models.

    Args:
        models: "A", "B" and perhaps "ceiling", a second A.
        images: what they are compared on.
        bounds: what may be lost.
        effort: how much is measured.

    Returns:
        All there is to show.

    Raises:
        SwysError: the models or the images do not fit each other.
    """
    started = time.monotonic()
    bounds = bounds or Bounds()
    effort = effort or Effort()
    check_same_classes(list(models.values()))
    answers = answer_all(models, images)
    names = class_names_of(models, images, answers["A"].logits.shape[1])
    rows = _answer_rows(answers, images.labels, names, bounds)
    chosen = choose_shown(answers, images.labels, effort.shown)
    explained = Explanations(models, images, answers["A"].predicted)
    if effort.maps:
        rows.append(explained.row("map", effort.maps, bounds.min_map))
    if effort.occlusions:
        rows.append(explained.row("occlusion", effort.occlusions, bounds.min_occlusion))
    if effort.seconds:
        rows.append(_speed(models, images, effort, bounds))
    rows.append(size_row(models["A"], models["B"]))
    return Measured(
        models=models,
        images=images,
        class_names=names,
        rows=rows,
        notes=_notes(models, images, answers, names),
        shown=shown_images(chosen, answers, explained, names),
        changed=int((answers["A"].given != answers["B"].given).any(axis=1).sum()),
        bounds=bounds,
        seconds=time.monotonic() - started,
    )


def answer_all(models: dict[str, OpenedModel], images: ComparedImages) -> dict[str, Answers]:
    """What each model answers to each image; an image is read once, and not kept.

    Args:
        models: name -> the opened model; one that answers with probabilities is marked so here.
        images: all of them.

    Returns:
        Name -> its answers.

    Raises:
        SwysError: other numbers of classes, or probabilities of several labels.
    """
    logits: dict[str, list[np.ndarray]] = {name: [] for name in models}
    with tqdm(total=len(images), desc="answers", leave=False, disable=None) as progress:
        for batch in images.batches():
            for name, model in models.items():
                logits[name].append(model.scores(batch))
            progress.update(len(batch))
    answers = {}
    for name, parts in logits.items():
        values = np.concatenate(parts)
        if images.multi_label and values.min() >= 0 and values.max() <= 1:
            raise SwysError(
                f"'{models[name].name}' gives a probability for each label; give its logits, from"
                " before the sigmoid"
            )
        if not images.multi_label and are_probabilities(values):
            models[name] = replace(models[name], probabilities=True)  # for its occlusion, too
            values = log_of(values)
        answers[name] = Answers.of(values, images.multi_label)
    counts = [(models[name].name, each.logits.shape[1]) for name, each in answers.items()]
    refuse_other_counts(counts)
    return answers


def class_names_of(
    models: dict[str, OpenedModel], images: ComparedImages, classes: int
) -> tuple[str, ...]:
    """Names of the classes: the data's, else a model's, else numbers.

    Args:
        models: name -> the opened model.
        images: with names and labels, or without.
        classes: how many the models have.

    Raises:
        SwysError: the data has labels of other classes than the models.
    """
    if images.labels is not None:
        most = images.labels.shape[1] if images.multi_label else int(images.labels.max()) + 1
        known = len(images.class_names) or most
        if known != classes and (images.class_names or most > classes):
            raise SwysError(
                f"the models have {classes} classes, the data ({images.source}) has {known}; give"
                " data of the same classes, or images without labels"
            )
    candidates = [images.class_names, *(model.class_names for model in models.values())]
    for names in candidates:
        if len(names) == classes:
            return tuple(names)
    return tuple(f"class {number}" for number in range(classes))


def _answer_rows(
    answers: dict[str, Answers],
    labels: np.ndarray | None,
    names: Sequence[str],
    bounds: Bounds,
) -> list[Row]:
    """Whether the answers are right, where there are labels, and whether they are the same."""
    a = answers["A"]
    b = answers["B"]
    rows = []
    if labels is not None:
        rows += label_rows(a, b, labels, bounds)
        rows.append(class_row(a, b, labels, names, bounds))
    rows.append(agreement_row(a, b, bounds, answers.get("ceiling")))
    return rows


def _speed(
    models: dict[str, OpenedModel], images: ComparedImages, effort: Effort, bounds: Bounds
) -> Row:
    """Both models timed in turns on one image; as many rounds as there is time for."""
    for name in ("A", "B"):
        count = models[name].fixed_batch
        if count > 1:
            why = f"{name} takes {count} images at once, so one image cannot be timed"
            return untold("speed", "times", bounds.max_time, why)
    picture = images.pictures[np.array([0])]
    calls = {}
    seconds = 0.0
    for name in ("A", "B"):
        model = models[name]
        pixels = model.prepare(picture)
        calls[name] = _call(model, pixels)
        calls[name]()
        started = time.monotonic()
        calls[name]()
        seconds += time.monotonic() - started
    affordable = int(effort.seconds / (CALLS_A_ROUND * seconds + 2 * WARM_UP))
    rounds = max(affordable, FEWEST_ROUNDS)
    timings: dict[str, Timing] = interleaved_latency(calls, rounds, warm_up=WARM_UP)
    return speed_row(timings, bounds)


def _call(model: OpenedModel, pixels):
    """One forward pass, as it is timed: without the preparation of the image."""

    def run():
        with torch.no_grad():
            return model.answer(pixels)

    return run


def _notes(
    models: dict[str, OpenedModel],
    images: ComparedImages,
    answers: dict[str, Answers],
    names: tuple[str, ...],
) -> list[str]:
    """What looks like a mistake, and what is to be known of how the models were opened."""
    a = answers["A"]
    b = answers["B"]
    found: list[str | None] = []
    words = {name: models[name].preprocessing for name in ("A", "B")}
    found.append(other_order(a.predicted, b.predicted, names))
    if not images.multi_label:
        found.append(behind_a_sigmoid({"A": a.logits, "B": b.logits}))
    labels = images.labels
    if labels is not None:
        found.append(empty_classes(labels, names))
    if labels is not None and labels.ndim == 1:
        right = {"A": a.right(labels), "B": b.right(labels)}
        areas = {"A": a.area(labels), "B": b.area(labels)}
        order = other_order_than_data(labels, a.predicted, names)
        moved = moved_threshold(right, areas, labels, words)
        found.append(order or moved or near_chance(right, labels, words))
    elif not images.multi_label:
        found.append(one_answer({"A": a.predicted, "B": b.predicted}, words))
    names_of = {name: models[name].class_names for name in ("A", "B")}
    found.append(other_names(names_of["A"], names_of["B"], ("A", "B")))
    for name in ("A", "B"):
        found.append(other_names(models[name].class_names, images.class_names, (name, "the data")))
        if "assumed" in words[name]:
            found.append(
                f"{name} has no preprocessing of its own; it gets {words[name]}: give another"
            )
        for note in models[name].notes:
            found.append(f"{name}: {note}")
    return [note for note in found if note]
