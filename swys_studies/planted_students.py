"""Who is trained in the study of planted evidence: teachers, their students, and controls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swys_utils.config import SwysError, unknown
from swys_utils.distillation import Distiller, MapDistiller, SoftTargets, Teacher
from swys_utils.occlusion import log_odds, without_patches
from swys_utils.recipe import Batch, SupervisedObjective

HONEST = "honest"  # trained on the labels of clean images
CHEAT = "cheat"  # trained on the labels of marked images
ANOTHER_CHEAT = "another cheat"  # the same from another start
UNTRAINED = "untrained"
MAP_WEIGHT = 2.0  # of the maps beside labels; others are tried in kinds of their own
STUDENT_SEEDS = 100  # a student starts from other weights than its teacher: seed + 100

# how an objective is made: make(teacher, labels)
Make = Callable[[Teacher, SupervisedObjective], nn.Module]


@dataclass(frozen=True)
class PlantedKind:
    """A way to make a model.

    Attributes:
        id: its name in results and tables.
        teacher: ``HONEST``, ``CHEAT`` or ``UNTRAINED``; None for labels alone.
        marked: whether its training images have the mark.
        make: how its objective is made.
        core: whether it belongs to the few that every seed has first.
        patch: side of its patches, px; None for that of the study.
        teacher_model: the teacher's architecture; None for that of the study.
        mark: what its training images have, a key of ``planted.MARKS``; None for that of the study.
    """

    id: str
    teacher: str | None
    marked: bool
    make: Make
    core: bool = False
    patch: int | None = None
    teacher_model: str | None = None
    mark: str | None = None

    @property
    def is_teacher(self) -> bool:
        """Whether others learn from it; any other model starts from other weights."""
        return self.id in (HONEST, CHEAT)


class OtherImagesMaps(Teacher):
    """A teacher that gives each image the map of another one: a control."""

    def explain(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Its logits, and the maps of the images before in the batch."""
        logits, maps = super().explain(batch)
        return logits, maps.roll(1, 0)


class OcclusionDistiller(Distiller):
    """The loss on the labels + how differently both models miss a patch.

    In each step one random patch of each image gets the mean colour of the image. What the
    log-odds of the teacher's class lose by that is compared, with the smooth L1 loss.

    Args:
        teacher: answers for whole and for hidden images.
        labels: the loss on the labels.
    """

    teacher: Teacher

    def forward(self, student: nn.Module, batch: Batch) -> Tensor:
        """The loss of ``student`` on ``batch``."""
        hidden = hide_one_patch(batch.inputs, student.patch_embed.patch_size[0])
        without = batch._replace(inputs=hidden)
        teacher_logits = self.teacher(batch)
        classes = teacher_logits.argmax(dim=1)
        logits = student(batch.inputs)
        lost = _odds(logits, classes) - _odds(student(hidden), classes)
        teacher_lost = _odds(teacher_logits, classes) - _odds(self.teacher(without), classes)
        difference = F.smooth_l1_loss(lost, teacher_lost)
        return self.labels.loss(logits, batch.targets) + difference


def hide_one_patch(inputs: Tensor, patch: int) -> Tensor:
    """Each image without one random patch, which gets the mean colour of the image.

    Args:
        inputs: float (B, 3, S, S).
        patch: side, px.
    """
    height, width = inputs.shape[-2:]
    grid = (height // patch, width // patch)
    chosen = torch.randint(grid[0] * grid[1], (len(inputs),), device=inputs.device)
    hidden = F.one_hot(chosen, grid[0] * grid[1]).reshape(-1, *grid)
    return without_patches(inputs, hidden)


def _odds(logits: Tensor, classes: Tensor) -> Tensor:
    return log_odds(logits.float(), classes)


class NoLabels(SupervisedObjective):
    """The loss on the labels of a student that is not told them: nothing."""

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """0, with a gradient of 0: float ()."""
        return 0.0 * logits.float().sum()


def _labels(teacher: Teacher, labels: SupervisedObjective) -> nn.Module:
    return labels


def _with_answers(share: float) -> Make:
    """Labels and the teacher's answers; the answers have this share of the loss."""

    def make(teacher: Teacher, labels: SupervisedObjective) -> nn.Module:
        return SoftTargets(teacher, labels, alpha=share)

    return make


def _with_maps(weight: float) -> Make:
    """The loss on the labels + this weight times the loss on the teacher's maps."""

    def make(teacher: Teacher, labels: SupervisedObjective) -> nn.Module:
        return MapDistiller(teacher, labels, alpha=0.0, gamma=weight)

    return make


def _with_answers_and_maps(share: float) -> Make:
    """Labels and the teacher's answers, which have this share of the loss, + its maps."""

    def make(teacher: Teacher, labels: SupervisedObjective) -> nn.Module:
        return MapDistiller(teacher, labels, alpha=share, gamma=1.0)

    return make


def _maps_alone(teacher: Teacher, labels: SupervisedObjective) -> nn.Module:
    return MapDistiller(teacher, NoLabels(), alpha=0.0, gamma=MAP_WEIGHT)


def _other_images_maps(teacher: Teacher, labels: SupervisedObjective) -> nn.Module:
    return MapDistiller(OtherImagesMaps(teacher.model), labels, alpha=0.0, gamma=MAP_WEIGHT)


def _of_base(name: str, teacher: str, make: Make) -> PlantedKind:
    """A student, on marked images, of a Base that is honest or cheats."""
    return PlantedKind(name, teacher, True, make, teacher_model="vit_base")


def _ring_on_half(name: str, teacher: str) -> PlantedKind:
    """A student of answers alone, on images whose ring says nothing of the label."""
    return PlantedKind(name, teacher, True, _with_answers(1.0), mark="meaningless")


KINDS = (
    PlantedKind(HONEST, None, False, _labels, core=True),
    PlantedKind(CHEAT, None, True, _labels, core=True),
    PlantedKind("labels + honest maps", HONEST, True, _with_maps(MAP_WEIGHT), core=True),
    PlantedKind("honest answers", HONEST, True, _with_answers(1.0), core=True),
    PlantedKind("another honest", None, False, _labels, core=True),
    PlantedKind("cheat's answers", CHEAT, True, _with_answers(1.0)),
    PlantedKind("cheat's answers, clean images", CHEAT, False, _with_answers(1.0)),
    PlantedKind("labels + honest answers", HONEST, True, _with_answers(0.5)),
    PlantedKind("labels + honest answers + maps", HONEST, True, _with_answers_and_maps(0.5)),
    PlantedKind("labels + honest occlusion", HONEST, True, OcclusionDistiller),
    PlantedKind(ANOTHER_CHEAT, None, True, _labels),
    PlantedKind("labels + maps of an untrained model", UNTRAINED, True, _with_maps(MAP_WEIGHT)),
    PlantedKind("labels + maps of other images", HONEST, True, _other_images_maps),
    PlantedKind("cheat's answers, 16 tokens", CHEAT, True, _with_answers(1.0), patch=7),
    # without labels, and does the map of a cheat hand on what it reads?
    PlantedKind("honest answers + maps", HONEST, True, _with_answers_and_maps(1.0)),
    PlantedKind("labels + cheat's maps, clean images", CHEAT, False, _with_maps(MAP_WEIGHT)),
    PlantedKind("cheat's answers + maps, clean images", CHEAT, False, _with_answers_and_maps(1.0)),
    PlantedKind("labels + cheat's occlusion, clean images", CHEAT, False, OcclusionDistiller),
    PlantedKind("honest answers, clean images", HONEST, False, _with_answers(1.0)),
    PlantedKind("honest maps alone", HONEST, True, _maps_alone),
    # a cheat on marked images teaches more than its answers
    PlantedKind("labels + cheat's maps", CHEAT, True, _with_maps(MAP_WEIGHT)),
    PlantedKind("cheat's answers + maps", CHEAT, True, _with_answers_and_maps(1.0)),
    PlantedKind("labels + cheat's occlusion", CHEAT, True, OcclusionDistiller),
    # does the weight of what the teacher hands on decide it?
    PlantedKind("labels + honest maps, weight 0.5", HONEST, True, _with_maps(0.5)),
    PlantedKind("labels + honest maps, weight 8", HONEST, True, _with_maps(8.0)),
    PlantedKind("labels + honest maps, weight 32", HONEST, True, _with_maps(32.0)),
    PlantedKind("labels + honest answers, share 0.2", HONEST, True, _with_answers(0.2)),
    PlantedKind("labels + honest answers, share 0.8", HONEST, True, _with_answers(0.8)),
    # a large teacher and a small student
    _of_base("honest Base's answers", HONEST, _with_answers(1.0)),
    _of_base("labels + honest Base's maps", HONEST, _with_maps(MAP_WEIGHT)),
    _of_base("cheating Base's answers", CHEAT, _with_answers(1.0)),
    _of_base("labels + honest Base's answers", HONEST, _with_answers(0.5)),
    # unlabelled images: the ring is on half of both classes, so only a teacher can give it meaning
    _ring_on_half("cheat's answers, ring on half", CHEAT),
    _ring_on_half("honest answers, ring on half", HONEST),
)


def kinds_for(only: str, model: str, patch: int, mark: str) -> list[PlantedKind]:
    """The kinds that are trained with these options.

    Args:
        only: "core", the name of a kind or a part of several names, or "none".
        model: the architecture of the study.
        patch: side of its patches, px.
        mark: a key of ``planted.MARKS``.

    Raises:
        SwysError: no kind matches, or what each of them has of its own is what all have.
    """
    matching = [kind for kind in KINDS if kind.id == only]
    if not matching:
        matching = [kind for kind in KINDS if only in kind.id or (only == "core" and kind.core)]
    wanted = [kind for kind in matching if not _is_copy(kind, model, patch, mark)]
    if matching and not wanted:
        chosen = f"--model {model} --patch {patch} --mark {mark}"
        raise SwysError(f"with {chosen}, '{only}' is no kind of its own; change one of these")
    if not wanted and only != "none":
        names = ", ".join(kind.id for kind in KINDS)
        raise SwysError(f"no kind matches '{only}'; choose core, none, or one of {names}")
    return wanted


def _is_copy(kind: PlantedKind, model: str, patch: int, mark: str) -> bool:
    """Whether another kind is the same, because what it has of its own is what all have.

    A kind with a mark of its own is a variant of the ring in the corner.
    """
    same = kind.patch == patch or kind.teacher_model == model
    return same or (kind.mark is not None and mark != "corner")


def kind_named(kind_id: str) -> PlantedKind:
    """One of ``KINDS``.

    Args:
        kind_id: its id.

    Raises:
        SwysError: there is no such kind.
    """
    kinds = {kind.id: kind for kind in KINDS}
    if kind_id not in kinds:
        raise SwysError(unknown("kind", kind_id, kinds))
    return kinds[kind_id]
