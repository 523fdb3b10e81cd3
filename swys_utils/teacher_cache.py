"""A teacher's logits and maps of every view a student will see, computed once and kept on disk (as in
TinyViT, Wu et al. 2022), so that a student's epoch costs no pass through the teacher."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from tqdm import tqdm

from .config import fast_bf16, replacing
from .data import Dataset, to_planes
from .distillation import Teacher
from .models import weights_digest
from .recipe import Batch, Recipe, augment


class CachedTeacher(nn.Module):
    """Answers like :class:`Teacher`, from tensors: logits (V, N, C) and maps (V, N, gh, gw) of V views of N
    images."""

    def __init__(self, logits: Tensor, maps: Tensor):
        super().__init__()
        self.logits, self.maps = logits, maps
        self.num_classes, self.grid = logits.shape[-1], tuple(maps.shape[-2:])

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, C)."""
        return self.logits[batch.view, batch.indices].to(batch.inputs)

    def explain(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits (B, C) and the signed Grad-CAM map (B, gh, gw) of the predicted class."""
        return self(batch), self.maps[batch.view, batch.indices].to(batch.inputs)


def cached_teacher(
    model: VisionTransformer, data: Dataset, recipe: Recipe, folder: Path, device: torch.device
) -> CachedTeacher:
    """Look at the ``recipe.views`` views of each training image; views that lie in ``folder`` are read."""
    facts = repr(recipe.augmentation) + weights_digest(model)
    facts += hashlib.sha256(np.ascontiguousarray(data.train.images)).hexdigest()
    folder = folder / hashlib.sha256(facts.encode()).hexdigest()[:12]
    teacher, found = Teacher(model.to(device)), []
    for view in tqdm(range(recipe.views), "the teacher looks at each view", disable=None):
        path = folder / f"view-{view}.safetensors"
        if not path.is_file():
            seen = look(teacher, data, recipe, view, device)
            with replacing(path) as part:
                save_file(seen, part)
        found.append(load_file(path))
    return CachedTeacher(
        *(torch.stack([part[key] for part in found]) for key in ("logits", "maps"))
    )


def look(
    teacher: Teacher, data: Dataset, recipe: Recipe, view: int, device: torch.device
) -> dict[str, Tensor]:
    """Logits and maps, float16, of one view of every training image, in their order."""
    draws = recipe.augmentation.draw(len(data.train), torch.Generator().manual_seed(view))
    size, answers = teacher.model.patch_embed.img_size[0], []
    for rows in torch.arange(len(draws)).split(128):
        planes = to_planes(data.train.images[rows.numpy()], device)
        views = augment(planes, size, recipe.augmentation, draws[rows]).expand(-1, 3, -1, -1)
        with torch.autocast(device.type, torch.bfloat16, enabled=fast_bf16(device)):
            answers.append(teacher.explain(Batch(views, views, rows, view)))
    logits, maps = (torch.cat(part).half().cpu() for part in zip(*answers))
    return {"logits": logits, "maps": maps}
