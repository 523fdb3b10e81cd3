"""Knowledge distillation: what a student can be taught besides the labels.

Each objective is called as ``objective(student, batch)`` by ``training.fit`` and returns a scalar loss.
Student and teacher usually see the same augmented view ("function matching", Beyer et al. 2022).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .config import SwysError
from .data import Split
from .gradcam import logits_and_map
from .recipe import Batch, SupervisedObjective


def soft_target_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T^2 KL(teacher || student) of the softened distributions (Hinton et al. 2015), the mean over the batch.

    The factor T^2 keeps the gradient's size when the temperature changes. Logits are float (B, C); a
    temperature T that is not above 0 is a SwysError.
    """
    if temperature <= 0:
        raise SwysError(f"temperature is {temperature}; it must be above 0 (2 is usual)")
    student = F.log_softmax(student_logits.float() / temperature, dim=-1)
    teacher = F.log_softmax(teacher_logits.float() / temperature, dim=-1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


class Teacher(nn.Module):
    """A trained model that is asked about each batch; its weights and its eval mode stay as they are."""

    def __init__(self, model: VisionTransformer):
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.num_classes, self.grid = model.num_classes, tuple(model.patch_embed.grid_size)

    def train(self, mode: bool = True) -> Teacher:
        """Stays in eval mode: a teacher's stochastic depth is off."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, C)."""
        return self.model(self.seen(batch.inputs))

    def explain(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits (B, C) and the signed Grad-CAM map (B, gh, gw) of the predicted class, detached."""
        with torch.no_grad():
            logits, values, _ = logits_and_map(self.model, self.seen(batch.inputs))
        return logits, values.unflatten(1, self.grid)

    def seen(self, inputs: Tensor) -> Tensor:
        """The batch at the size that the teacher reads: it may see a student's view enlarged."""
        size = tuple(self.model.patch_embed.img_size)
        same = tuple(inputs.shape[-2:]) == size
        return (
            inputs
            if same
            else F.interpolate(inputs, size=size, mode="bilinear", align_corners=False)
        )


class SoftTargets(nn.Module):
    """(1 - alpha) x loss on the labels + alpha x loss on the teacher's soft targets; alpha in [0, 1]. Of
    images that have no label (``hide_labels``) only the second part speaks."""

    def __init__(self, teacher: nn.Module, labels: SupervisedObjective, alpha=0.5, temperature=2.0):
        super().__init__()
        if not 0 <= alpha <= 1:
            raise SwysError(f"alpha is {alpha}; a share of the loss lies between 0 and 1")
        self.teacher, self.labels, self.alpha, self.temperature = (
            teacher,
            labels,
            alpha,
            temperature,
        )

    def check(self, student: VisionTransformer) -> None:
        """Raises SwysError for a student that cannot be compared with the teacher: other classes."""
        theirs, ours = self.teacher.num_classes, student.num_classes
        if theirs != ours:
            raise SwysError(
                f"the teacher has {theirs} classes, the student {ours}; use one of the same data"
            )

    def mixed(self, logits: Tensor, targets: Tensor, teacher_logits: Tensor) -> Tensor:
        """Both parts of the loss, from logits, targets and teacher's logits, each (B, C)."""
        loss = self.labels.loss(logits, targets)
        if self.labels.multi_label:  # each label is a problem of two classes, [z, 0]
            both = (logits, teacher_logits)
            logits, teacher_logits = (torch.stack([z, 0 * z], dim=-1).flatten(0, 1) for z in both)
        soft = soft_target_loss(logits, teacher_logits, self.temperature)
        return (1 - self.alpha) * loss + self.alpha * soft

    def forward(self, student: nn.Module, batch: Batch) -> Tensor:
        """The loss of ``student`` on ``batch``."""
        return self.mixed(student(batch.inputs), batch.targets, self.teacher(batch))


class FeatureDistiller(SoftTargets):
    """The loss on the labels + the mean of 1 - cosine similarity of last tokens, student's and teacher's.

    The student's are projected by a linear map to the teacher's width, trained along (FitNets, Romero et al.
    2015).
    """

    def __init__(self, teacher: Teacher, labels, student: VisionTransformer):
        super().__init__(teacher, labels, alpha=0.0)
        self.projector = nn.Linear(student.embed_dim, teacher.model.embed_dim)

    def check(self, student: VisionTransformer) -> None:
        """As in ``SoftTargets``; refuses another patch grid and dropped patches, too."""
        super().check(student)
        same_grid = self.teacher.grid == tuple(student.patch_embed.grid_size)
        if not same_grid or getattr(student.patch_drop, "prob", 0):
            raise SwysError(
                "features are compared by token; use the teacher's patches and patch_drop=0"
            )

    def forward(self, student: nn.Module, batch: Batch) -> Tensor:
        """The loss of ``student`` on ``batch``."""
        tokens = student.forward_features(batch.inputs)
        with torch.no_grad():
            target = self.teacher.model.forward_features(self.teacher.seen(batch.inputs))
        distance = 1 - F.cosine_similarity(self.projector(tokens), target, dim=-1).mean()
        return self.labels.loss(student.forward_head(tokens), batch.targets) + distance


class MapDistiller(SoftTargets):
    """Adds gamma x (1 - correlation of both Grad-CAM maps for the teacher's class).

    As in e2KD (Parchami-Araghi et al. 2024), by Pearson's correlation. The maps are signed:
    after a ReLU there is no gradient where all evidence speaks against a class. For a student with larger
    patches the teacher's map is averaged over each; patches that are dropped in training are not compared.
    """

    def __init__(self, teacher, labels, alpha=0.5, temperature=2.0, gamma: float = 1.0):
        super().__init__(teacher, labels, alpha, temperature)
        self.gamma = gamma

    def check(self, student: VisionTransformer) -> None:
        """As in ``SoftTargets``; refuses a student with a finer patch grid, too."""
        super().check(student)
        fine, coarse = self.teacher.grid, tuple(student.patch_embed.grid_size)
        if any(many < few for many, few in zip(fine, coarse)):
            raise SwysError(
                f"the teacher's map is {fine}, the student's {coarse}; give it larger patches"
            )

    def forward(self, student: nn.Module, batch: Batch) -> Tensor:
        """The loss of ``student`` on ``batch``."""
        teacher_logits, target = self.teacher.explain(batch)
        logits, values, kept = logits_and_map(student, batch.inputs, teacher_logits.argmax(dim=1))
        target = F.adaptive_avg_pool2d(
            target.float(), tuple(student.patch_embed.grid_size)
        ).flatten(1)
        target = target if kept is None else target.gather(1, kept)
        difference = 1 - correlation(values, target).mean()
        return self.mixed(logits, batch.targets, teacher_logits) + self.gamma * difference


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation of each row of two float (B, N) tensors; (B,) in [-1, 1]."""
    a, b = (x.float() - x.float().mean(dim=1, keepdim=True) for x in (a, b))
    return F.cosine_similarity(a, b, dim=1)


def hide_labels(split: Split, share: float, seed: int = 0) -> Split:
    """The same images with labels for ``share`` of each class (at least two images), -1 for the others; of
    data with one label an image."""
    labels, rng = np.full_like(split.labels, -1), np.random.default_rng(seed)
    for c in np.unique(split.labels):
        members = rng.permutation(np.flatnonzero(split.labels == c))
        labels[members[: max(2, round(share * len(members)))]] = c
    return Split(split.images, labels)
