"""Who is trained in the study of planted evidence: teachers, their students, and controls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swys_utils.config import SwysError, unknown
from swys_utils.distillation import Distiller, MapDistiller, SoftTargets, Teacher
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
        lost = log_odds(logits, classes) - log_odds(student(hidden), classes)
        teacher_odds = log_odds(teacher_logits, classes)
        teacher_lost = teacher_odds - log_odds(self.teacher(without), classes)
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
    hidden = F.one_hot(chosen, grid[0] * grid[1]).reshape(-1, 1, *grid)
    pixels = F.interpolate(hidden.float(), size=(height, width)).bool()
    return torch.where(pixels, inputs.mean(dim=(2, 3), keepdim=True), inputs)


def log_odds(logits: Tensor, classes: Tensor) -> Tensor:
    """log p / (1 - p) of one class for each image: float (B,).

    Args:
        logits: float (B, C).
        classes: int64 (B,).
    """
    logits = logits.float()
    others = logits.scatter(1, classes[:, None], -torch.inf)
    return logits.gather(1, classes[:, None])[:, 0] - others.logsumexp(dim=1)


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
