"""The teachers of a run: their answers to every view are kept on disk, or they are asked each time.

Kept as in TinyViT (Wu et al. 2022): a student's epoch then costs no pass through the teacher.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from swys_utils.config import SwysError, fast_bf16, replacing
from swys_utils.data import Dataset
from swys_utils.distillation import Teacher
from swys_utils.recipe import Batch, Recipe
from swys_utils.views import make_views, view_draws

from .resnet import ResnetTeacher

BATCH = 128  # images that the teacher looks at together


class CachedTeacher(nn.Module):
    """Answers like :class:`Teacher`, from what it answered before.

    Args:
        logits: (V, N, C) for V views of N images.
        maps: signed Grad-CAM maps, (V, N, gh, gw).
        digest: which teacher, images and views they are of.
    """

    def __init__(self, logits: Tensor, maps: Tensor, digest: str):
        super().__init__()
        self.logits = logits
        self.maps = maps
        self.digest = digest
        self.num_classes = logits.shape[-1]
        self.grid = tuple(maps.shape[-2:])

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, C)."""
        return self.logits[batch.view, batch.indices].to(batch.inputs)

    def explain(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits (B, C) and signed Grad-CAM maps (B, gh, gw) of the predicted classes."""
        maps = self.maps[batch.view, batch.indices].to(batch.inputs)
        return self(batch), maps


def mean_teacher(teachers: Sequence[CachedTeacher]) -> CachedTeacher:
    """One teacher that answers the mean of the probabilities, and of the maps, of several.

    Args:
        teachers: of the same views and images; of one teacher, the mean is itself.
    """
    if len(teachers) == 1:
        return teachers[0]
    maps = [teacher.maps.float() for teacher in teachers]
    return CachedTeacher(
        mean_answer([teacher.logits for teacher in teachers]),
        torch.stack(maps).mean(dim=0),
        digest=" ".join(teacher.digest for teacher in teachers),
    )


def mean_answer(logits: Sequence[Tensor]) -> Tensor:
    """Logits whose probabilities are the mean of the probabilities of several logits.

    Args:
        logits: of each teacher, float (..., C).

    Returns:
        Float32 (..., C).
    """
    log_probabilities = [one.float().log_softmax(dim=-1) for one in logits]
    return torch.stack(log_probabilities).logsumexp(dim=0) - math.log(len(logits))


class AskedTeachers(nn.Module):
    """Teachers that are asked about each batch, where its views are new and cannot be kept.

    They answer the mean of their probabilities.

    Args:
        teachers: of the same classes.
    """

    def __init__(self, teachers: Sequence[Teacher | ResnetTeacher]):
        super().__init__()
        self.teachers = nn.ModuleList(teachers)
        self.num_classes = teachers[0].num_classes
        self.digest = " ".join(teacher.digest for teacher in teachers)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, C)."""
        return mean_answer([teacher(batch) for teacher in self.teachers])


def cached_teacher(
    teacher: Teacher | ResnetTeacher,
    data: Dataset,
    recipe: Recipe,
    folder: Path,
    device: torch.device,
) -> CachedTeacher:
    """The answers of a teacher for the ``recipe.views`` views of each training image.

    Args:
        teacher: it is moved to ``device``.
        data: its training split is shown.
        recipe: which views; a student has to be trained by one with the same views.
        folder: where answers are kept; views that lie there are read.
        device: where the teacher computes.

    Raises:
        SwysError: ``folder`` cannot be written, or the recipe has no fixed views.
    """
    if recipe.views < 1:
        raise SwysError(f"a recipe with {recipe.views} fixed views; a cache needs at least one")
    teacher = teacher.to(device)
    images = np.ascontiguousarray(data.train.images)
    images_digest = hashlib.sha256(images.data).hexdigest()
    identity = repr(recipe.augmentation) + teacher.digest + images_digest
    digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
    views = []
    for view in tqdm(range(recipe.views), "the teacher looks at each view", disable=None):
        path = folder / digest / f"view-{view}.safetensors"
        if not path.is_file():
            answers = _answers_of(teacher, data, recipe, view, device)
            with replacing(path) as part:
                save_file(answers, part)
        views.append(load_file(path))
    logits = torch.stack([answers["logits"] for answers in views])
    maps = torch.stack([answers["maps"] for answers in views])
    return CachedTeacher(logits, maps, digest)


def _answers_of(
    teacher: Teacher | ResnetTeacher,
    data: Dataset,
    recipe: Recipe,
    view: int,
    device: torch.device,
) -> dict[str, Tensor]:
    """The answers of a teacher for one view of every training image, in the order of the images.

    Args:
        teacher: on ``device``.
        data: its training split is shown.
        recipe: its augmentation makes the views.
        view: number of the view.
        device: where the views are made.

    Returns:
        "logits", (N, C), and "maps", (N, gh, gw), float16 on the CPU.
    """
    images = data.train.images
    draws = view_draws(len(images), view)
    img_size = images.shape[1]
    if isinstance(teacher, Teacher):
        img_size = teacher.model.patch_embed.img_size[0]  # a ViT reads one size only
    logits = []
    maps = []
    for indices in torch.arange(len(images)).split(BATCH):
        inputs = make_views(images, indices, draws, recipe.augmentation, img_size, device)
        with torch.autocast(device.type, torch.bfloat16, enabled=fast_bf16(device)):
            some_logits, some_maps = teacher.logits_and_maps(inputs)
        logits.append(some_logits.half().cpu())
        maps.append(some_maps.half().cpu())
    return {"logits": torch.cat(logits), "maps": torch.cat(maps)}
