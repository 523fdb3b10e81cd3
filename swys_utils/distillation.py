"""Knowledge distillation: what a student can be taught besides the labels.

Each class here is an objective for ``training.fit``: it is called as ``objective(student, inputs, targets)`` and
returns a scalar loss. Student and teacher always see the same augmented view ("function matching", Beyer et al. 2022).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from .config import SwysError
from .models import plain_attention
from .training import SupervisedObjective


def soft_target_loss(student_logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """T^2 KL(teacher || student) of the softened distributions (Hinton et al. 2015).

    The factor T^2 keeps the gradient's size when the temperature changes.

    Args:
        student_logits, teacher_logits: float (B, C). temperature: T > 0.

    Returns:
        scalar >= 0, the mean over the batch; 0 exactly when both softened distributions are equal.
    """
    if temperature <= 0:
        raise SwysError(f"temperature is {temperature}; it must be above 0 (2 is usual)")
    student = F.log_softmax(student_logits / temperature, dim=-1)
    teacher = F.log_softmax(teacher_logits / temperature, dim=-1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def soft_label_loss(student_logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """The same for multi-label tasks: each label is a two-class problem, [z, 0]."""
    pair = [torch.stack([z, torch.zeros_like(z)], dim=-1).flatten(0, 1) for z in (student_logits, teacher_logits)]
    return soft_target_loss(*pair, temperature)


def standardise(logits: torch.Tensor) -> torch.Tensor:
    """Logits with mean 0 and standard deviation 1 in each row: only their shape is taught (Sun et al. 2024)."""
    centred = logits - logits.mean(dim=-1, keepdim=True)
    return centred / (centred.std(dim=-1, keepdim=True, unbiased=False) + 1e-6)


class SoftTargetDistiller(nn.Module):
    """(1 - alpha) x loss on the labels + alpha x loss on the teacher's soft targets.

    Args:
        teacher: one model, or several whose logits are averaged (an ensemble of seeds); frozen here.
        labels: the supervised part of the loss.
        alpha: weight of the soft targets, in [0, 1]. temperature: T > 0.
        standardised: teach standardised logits (for three classes or more: with two, nothing but a sign is left).

    A student may read fewer pixels than its teacher: the teacher then sees the student's view enlarged, as
    ``to_model_input`` enlarges a stored image.
    """

    same_size = False  # tokens that are compared one by one need it

    def __init__(
        self,
        teacher: VisionTransformer | Sequence[VisionTransformer],
        labels: SupervisedObjective,
        alpha: float = 0.5,
        temperature: float = 2.0,
        standardised: bool = False,
    ):
        super().__init__()
        teachers = [teacher] if isinstance(teacher, nn.Module) else list(teacher)
        self.teachers = nn.ModuleList(teachers).eval().requires_grad_(False)
        self.labels, self.alpha, self.temperature, self.standardised = labels, alpha, temperature, standardised

    def train(self, mode: bool = True):
        """A teacher never goes back to training mode: its stochastic depth stays off."""
        super().train(mode)
        self.teachers.eval()
        return self

    def check(self, student: VisionTransformer) -> None:
        """Refuse a teacher and a student that cannot be compared.

        Raises:
            SwysError: another number of classes, or an input size that the teacher's view cannot be made from.
        """
        for teacher in self.teachers:
            if teacher.num_classes != student.num_classes:
                raise SwysError(
                    f"the teacher has {teacher.num_classes} classes, the student {student.num_classes}; "
                    "use a teacher trained on the student's data set"
                )
            reads, student_reads = teacher.patch_embed.img_size[0], student.patch_embed.img_size[0]
            if student_reads > reads or (self.same_size and student_reads != reads):
                raise SwysError(
                    f"the teacher reads {reads} px, the student {student_reads} px; give the student img_size={reads}"
                )

    @torch.no_grad()
    def teacher_logits(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.stack([teacher(_enlarged(inputs, teacher)) for teacher in self.teachers]).mean(dim=0)

    def soft_loss(self, student_logits: torch.Tensor, teacher_logits: torch.Tensor) -> torch.Tensor:
        if self.labels.multi_label:
            return soft_label_loss(student_logits, teacher_logits, self.temperature)
        if self.standardised:
            student_logits, teacher_logits = standardise(student_logits), standardise(teacher_logits)
        return soft_target_loss(student_logits, teacher_logits, self.temperature)

    def forward(self, student: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        logits = student(inputs)
        soft = self.soft_loss(logits, self.teacher_logits(inputs))
        return (1 - self.alpha) * self.labels.loss(logits, targets) + self.alpha * soft


class FeatureDistiller(SoftTargetDistiller):
    """Adds: each of the student's last tokens, through a projector, should point where the teacher's token points.

    The projector is a trained linear map from the student's width to the teacher's (FitNets, Romero et al. 2015);
    the target is normalised, so the loss is the mean over tokens of 1 - cosine similarity, in [0, 2].

    Args:
        student: gives the width. beta: weight of the feature loss. alpha = 0 teaches features and labels only.
        train_projector: False repeats a known mistake, a projector that stays random, to show what it costs.
    """

    same_size = True

    def __init__(
        self,
        teacher,
        labels,
        student: VisionTransformer,
        alpha: float = 0.0,
        temperature: float = 2.0,
        beta: float = 1.0,
        train_projector: bool = True,
    ):
        super().__init__(teacher, labels, alpha, temperature)
        self.beta = beta
        self.projector = nn.Linear(student.embed_dim, self.teachers[0].embed_dim).requires_grad_(train_projector)

    def forward(self, student: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        teacher = self.teachers[0]
        tokens = student.forward_features(inputs)
        with torch.no_grad():
            teacher_tokens = teacher.forward_features(inputs)
        features = 1 - F.cosine_similarity(self.projector(tokens), teacher_tokens, dim=-1).mean()
        logits = student.forward_head(tokens)
        loss = (1 - self.alpha) * self.labels.loss(logits, targets) + self.beta * features
        if self.alpha:
            loss = loss + self.alpha * self.soft_loss(logits, teacher.forward_head(teacher_tokens))
        return loss


class ExplanationDistiller(SoftTargetDistiller):
    """Adds: the student's Grad-CAM for the teacher's class should look like the teacher's (e2KD, Parchami-Araghi
    et al. 2024).

    Signed maps at ``blocks[-1].norm1`` are compared by 1 - Pearson correlation over the patch tokens, in [0, 2]; the
    ReLU is left out, since it would leave an empty map, and no gradient, where all evidence speaks against a class.
    For a student with fewer, larger patches the teacher's map is averaged over each of them.

    Args:
        gamma: weight of the explanation loss.
    """

    def __init__(self, teacher, labels, alpha: float = 0.5, temperature: float = 2.0, gamma: float = 1.0):
        super().__init__(teacher, labels, alpha, temperature)
        self.gamma = gamma
        self.trunk = trunk

    def check(self, student: VisionTransformer) -> None:
        super().check(student)
        grid, coarse = (model.patch_embed.grid_size for model in (self.teachers[0], student))
        if any(fine % few for fine, few in zip(grid, coarse)):
            raise SwysError(
                f"the teacher's map is {grid[0]} x {grid[1]}, the student's {coarse[0]} x {coarse[1]}; "
                "choose a --patch_size whose grid divides the teacher's"
            )

    def compile_parts(self, mode: str) -> None:
        """Compile all but the last block of both models: a compiled graph has no second derivative."""
        self.trunk = torch.compile(trunk, mode=mode)

    def forward(self, student: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        teacher = self.teachers[0]
        with torch.enable_grad():
            teacher_logits, teacher_map = logits_and_map(
                teacher, _enlarged(inputs, teacher), None, create_graph=False, trunk=self.trunk
            )
        teacher_map = _averaged(teacher_map, teacher.patch_embed.grid_size, student.patch_embed.grid_size)
        classes = teacher_logits.argmax(dim=1)
        logits, student_map = logits_and_map(student, inputs, classes, create_graph=True, trunk=self.trunk)
        explanation = 1 - correlation(student_map, teacher_map).mean()
        soft = self.soft_loss(logits, teacher_logits)
        return (1 - self.alpha) * self.labels.loss(logits, targets) + self.alpha * soft + self.gamma * explanation


def _enlarged(inputs: torch.Tensor, model: VisionTransformer) -> torch.Tensor:
    """Inputs (B, 3, H, W) at the size that the model reads."""
    size = tuple(model.patch_embed.img_size)
    if tuple(inputs.shape[-2:]) == size:
        return inputs
    return F.interpolate(inputs, size=size, mode="bilinear", align_corners=False)


def _averaged(token_map: torch.Tensor, grid: tuple[int, int], coarse: tuple[int, int]) -> torch.Tensor:
    """Token map (B, N) of one grid averaged over the patches of a coarser one."""
    if grid == coarse:
        return token_map
    return F.adaptive_avg_pool2d(token_map.unflatten(1, grid).float(), coarse).flatten(1)


def trunk(model: VisionTransformer, inputs: torch.Tensor) -> torch.Tensor:
    """Tokens (B, prefix + N, D) that enter the last block."""
    tokens = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(inputs))))
    for block in model.blocks[:-1]:
        tokens = block(tokens)
    return tokens


def logits_and_map(
    model: VisionTransformer, inputs: torch.Tensor, classes: torch.Tensor | None, create_graph: bool, trunk=trunk
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (B, C) and signed Grad-CAM token map (B, N patches) at the last block, in one forward pass.

    Args:
        classes: int64 (B,), which logit is explained; None: the predicted one.
        create_graph: keep the map differentiable (second order, through the last block only).
        trunk: :func:`trunk`, or a compiled version of it.
    """
    with torch.set_grad_enabled(create_graph):
        tokens = trunk(model, inputs)
    last = model.blocks[-1]
    with plain_attention(last):  # fused attention has no second derivative
        activations = last.norm1(tokens)
        if not create_graph:
            activations = activations.detach().requires_grad_()
        tokens = tokens + last.drop_path1(last.ls1(last.attn(activations)))
        tokens = tokens + last.drop_path2(last.ls2(last.mlp(last.norm2(tokens))))
        logits = model.forward_head(model.norm(tokens))
    chosen = logits.argmax(dim=1) if classes is None else classes
    score = logits.gather(1, chosen[:, None]).sum()
    gradient = torch.autograd.grad(score, activations, create_graph=create_graph)[0]
    prefix = model.num_prefix_tokens
    weights = gradient[:, prefix:].mean(dim=1, keepdim=True)
    token_map = (weights * activations[:, prefix:]).sum(dim=-1)
    return (logits, token_map) if create_graph else (logits.detach(), token_map.detach())


def correlation(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Pearson correlation of each row of two float (B, N) tensors; (B,) in [-1, 1]."""
    a, b = a.float(), b.float()
    return F.cosine_similarity(a - a.mean(dim=1, keepdim=True), b - b.mean(dim=1, keepdim=True), dim=1)
