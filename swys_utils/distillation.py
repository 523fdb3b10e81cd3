"""Knowledge distillation: what a student can be taught besides the labels.

Each objective is called as ``objective(student, batch)`` by ``training.fit`` and returns a float32
scalar, the loss. Student and teacher usually see the same augmented view ("function matching",
Beyer et al. 2022). ``OBJECTIVES`` lists the ways to teach; another one is one more entry there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .config import SwysError
from .data import Split, resized
from .gradcam import logits_and_map
from .models import GREEN, ORANGE, PINK, weights_digest
from .recipe import Batch, SupervisedObjective, class_and_numbers


def soft_target_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T^2 KL(teacher || student) of the softened distributions, the mean over the batch.

    As in Hinton et al. (2015): the temperature shrinks gradients by T^2, which the factor undoes.

    Args:
        student_logits: float (B, C).
        teacher_logits: float (B, C).
        temperature: T; both logits are divided by it.

    Raises:
        SwysError: a temperature that is not above 0.
    """
    _check_temperature(temperature)
    student = F.log_softmax(student_logits.float() / temperature, dim=-1)
    teacher = F.log_softmax(teacher_logits.float() / temperature, dim=-1)
    divergence = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
    return divergence * temperature**2


def _check_temperature(temperature: float) -> None:
    """Raise a SwysError for one that is not above 0; nan is not, either."""
    if not temperature > 0:
        raise SwysError(f"temperature is {temperature}; it must be above 0 (2 is usual)")


class Teacher(nn.Module):
    """A trained model that answers for each batch; its weights and its eval mode stay as they are.

    Args:
        model: the trained model; its weights are frozen.
    """

    def __init__(self, model: VisionTransformer):
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.num_classes = model.num_classes
        self.grid = tuple(model.patch_embed.grid_size)
        self.size = model.patch_embed.img_size[0]

    @property
    def digest(self) -> str:
        """Which teacher it is: two with the same weights have the same digest."""
        return weights_digest(self.model)

    def train(self, mode: bool = True) -> Teacher:
        """Stay in eval mode, whatever ``mode`` is: a teacher's stochastic depth is off."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, C) of a batch, detached."""
        return self.model(resized(batch.inputs, self.size))

    def explain(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits (B, C) and signed Grad-CAM maps (B, gh, gw) of the predicted classes."""
        return self.logits_and_maps(batch.inputs)

    @torch.no_grad()
    def logits_and_maps(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """As ``explain``, of model input (B, 3, H, W) without targets; float32, detached."""
        logits, values, _ = logits_and_map(self.model, resized(inputs, self.size))
        return logits, values.unflatten(1, self.grid)


class Distiller(nn.Module):
    """What every objective with a teacher has: the teacher, and the loss on the labels.

    Args:
        teacher: called as ``teacher(batch)``, it returns logits (B, C).
        labels: the loss on the labels.
    """

    def __init__(self, teacher: Callable[[Batch], Tensor], labels: SupervisedObjective):
        super().__init__()
        self.teacher = teacher
        self.labels = labels

    def check(self, student: VisionTransformer) -> None:
        """Refuse a student that cannot be compared with the teacher.

        Raises:
            SwysError: teacher and student have different numbers of classes.
        """
        # A plain function does not say how many classes it answers for.
        teacher_classes = getattr(self.teacher, "num_classes", student.num_classes)
        if teacher_classes != student.num_classes:
            counts = f"{teacher_classes} classes, the student {student.num_classes}"
            raise SwysError(f"the teacher has {counts}; use one of the same data")

    def settings(self) -> dict:
        """What identifies this objective, as JSON values, for resumed runs and kept models.

        A teacher is identified by its digest. A plain function has none, so a run that is resumed
        with another function does not notice it.
        """
        settings = class_and_numbers(self)  # alpha, temperature, gamma
        settings["labels"] = self.labels.settings()
        settings["teacher"] = getattr(self.teacher, "digest", None)
        return settings


class SoftTargets(Distiller):
    """(1 - alpha) x loss on the labels + alpha x loss on the teacher's soft targets.

    An image without a label (see ``hide_labels``) adds nothing to the first part: from it a student
    learns the teacher's answer alone.

    Args:
        teacher: a ``Teacher``, or any function from a batch to logits (B, C).
        labels: the loss on the labels.
        alpha: weight of the soft targets, in [0, 1].
        temperature: of the soft targets, above 0.

    Raises:
        SwysError: alpha is outside [0, 1], or the temperature not above 0.
    """

    def __init__(
        self,
        teacher: Callable[[Batch], Tensor],
        labels: SupervisedObjective,
        alpha: float = 0.5,
        temperature: float = 2.0,
    ):
        super().__init__(teacher, labels)
        if not 0 <= alpha <= 1:
            raise SwysError(f"alpha is {alpha}; a share of the loss lies between 0 and 1")
        _check_temperature(temperature)
        self.alpha = alpha
        self.temperature = temperature

    def mixed(self, logits: Tensor, targets: Tensor, teacher_logits: Tensor) -> Tensor:
        """Both parts of the loss.

        Args:
            logits: of the student, float (B, C).
            targets: the labels, float (B, C).
            teacher_logits: float (B, C).
        """
        loss = self.labels.loss(logits, targets)
        if self.labels.multi_label:
            logits = as_two_classes(logits)
            teacher_logits = as_two_classes(teacher_logits)
        soft = soft_target_loss(logits, teacher_logits, self.temperature)
        return (1 - self.alpha) * loss + self.alpha * soft

    def forward(self, student: nn.Module, batch: Batch) -> Tensor:
        """The loss of ``student`` on ``batch``."""
        return self.mixed(student(batch.inputs), batch.targets, self.teacher(batch))


class MapDistiller(SoftTargets):
    """Soft targets + gamma x (1 - correlation of both Grad-CAM maps for the teacher's class).

    As in e2KD (Parchami-Araghi et al. 2024), by Pearson's correlation. The maps are signed: after a
    ReLU there is no gradient where all evidence speaks against a class. For a student with larger
    patches, each of them takes the mean of all of the teacher's patches that it touches; dropped
    patches are not compared.

    Args:
        teacher: a ``Teacher``, or another one that answers with maps, too.
        labels: the loss on the labels.
        alpha: as in ``SoftTargets``.
        temperature: as in ``SoftTargets``.
        gamma: weight of the maps.

    Raises:
        SwysError: as in ``SoftTargets``, or gamma is below 0.
    """

    teacher: nn.Module

    def __init__(
        self,
        teacher: nn.Module,
        labels: SupervisedObjective,
        alpha: float = 0.5,
        temperature: float = 2.0,
        gamma: float = 1.0,
    ):
        super().__init__(teacher, labels, alpha, temperature)
        if not gamma >= 0:
            raise SwysError(f"gamma is {gamma}; the weight of a loss is 0 or above")
        self.gamma = gamma

    def check(self, student: VisionTransformer) -> None:
        """As in ``Distiller``; refuses a patch grid finer than the teacher's, too.

        Raises:
            SwysError: as in ``Distiller``, or the student's patches are smaller.
        """
        super().check(student)
        teacher_grid = self.teacher.grid
        student_grid = tuple(student.patch_embed.grid_size)
        if student_grid[0] > teacher_grid[0] or student_grid[1] > teacher_grid[1]:
            grids = f"{teacher_grid}, the student's {student_grid}"
            raise SwysError(f"the teacher's map is {grids}; give it larger patches")

    def forward(self, student: VisionTransformer, batch: Batch) -> Tensor:
        """The loss of ``student`` on ``batch``."""
        teacher_logits, teacher_maps = self.teacher.explain(batch)
        classes = teacher_logits.argmax(dim=1)
        logits, values, kept = logits_and_map(student, batch.inputs, classes)
        grid = tuple(student.patch_embed.grid_size)
        targets = F.adaptive_avg_pool2d(teacher_maps.float(), grid).flatten(1)
        if kept is not None:  # PatchDropout left only these patches to the student
            targets = targets.gather(1, kept)
        difference = 1 - correlation(values, targets).mean()
        loss = self.mixed(logits, batch.targets, teacher_logits)
        return loss + self.gamma * difference


@dataclass(frozen=True)
class Objective:
    """A way to teach.

    Attributes:
        id: its name in options, files and ids.
        title: its name in text, figures and tables.
        colour: in every figure, from Okabe and Ito's palette.
        make: ``make(teacher, labels, student, **settings)`` returns the objective, an nn.Module.
        needs_teacher: whether ``make`` reads its first argument.
        studied: whether the long runs of ``swys study`` train students by it.
        defaults: the settings that ``make`` takes, with their usual values.
        recipe_changes: fields of the ``Recipe`` that it needs at these values.
    """

    id: str
    title: str
    colour: str
    make: Callable[..., nn.Module]
    needs_teacher: bool = True
    studied: bool = True
    defaults: dict[str, float] = field(default_factory=dict)
    recipe_changes: dict[str, float] = field(default_factory=dict)


OBJECTIVES = {
    "labels": Objective(
        id="labels",
        title="labels",
        colour=ORANGE,
        make=lambda teacher, labels, student: labels,
        needs_teacher=False,
    ),
    "answers": Objective(
        id="answers",
        title="answers",
        colour=GREEN,
        make=lambda teacher, labels, student, **settings: SoftTargets(teacher, labels, **settings),
        defaults={"alpha": 0.5, "temperature": 2.0},
    ),
    "maps": Objective(
        id="maps",
        title="answers + maps",
        colour=PINK,
        make=lambda teacher, labels, student, **settings: MapDistiller(teacher, labels, **settings),
        defaults={"alpha": 0.5, "temperature": 2.0, "gamma": 1.0},
    ),
}


def hide_labels(split: Split, share: float, seed: int = 0) -> Split:
    """The same images, most of them with -1 for their label; for data with one label an image.

    Args:
        split: the images and their labels, int (N,).
        share: of each class that keeps its label, from 0 to 1; at least two images do.
        seed: decides which images these are.

    Raises:
        SwysError: images with several labels.
    """
    if split.labels.ndim != 1:
        raise SwysError("an image has several labels; hide_labels is for one label an image")
    rng = np.random.default_rng(seed)
    labels = np.full_like(split.labels, -1)
    for label in np.unique(split.labels):
        members = rng.permutation(np.flatnonzero(split.labels == label))
        count = max(2, round(share * len(members)))
        labels[members[:count]] = label
    return Split(split.images, labels)


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation of each row of two float (B, N) tensors; float32 (B,) in [-1, 1]."""
    a = a.float()
    b = b.float()
    a = a - a.mean(dim=1, keepdim=True)
    b = b - b.mean(dim=1, keepdim=True)
    return F.cosine_similarity(a, b, dim=1)


def as_two_classes(logits: Tensor) -> Tensor:
    """Multi-label logits (B, C) as B x C problems of two classes: sigmoid(z) is softmax([z, 0])."""
    return torch.stack([logits, torch.zeros_like(logits)], dim=-1).flatten(0, 1)
