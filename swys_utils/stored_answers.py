"""A teacher's answers to the training images as they are, stored beside its checkpoint.

With them a student can be taught by a large teacher on a small machine. Images are found by their
pixels, so the order of the images and the name of the file do not matter.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from tqdm import tqdm

from .cards import find_checkpoint, locate
from .config import default_device, fast_bf16
from .distillation import Teacher
from .models import load_checkpoint
from .vit_internals import input_batches

FILE_NAME = "answers.safetensors"


class StoredAnswers(NamedTuple):
    """What a teacher answered to N images.

    Attributes:
        logits: float32 (N, C).
        maps: signed Grad-CAM maps of the predicted classes, float32 (N, gh, gw).
    """

    logits: Tensor
    maps: Tensor


def teacher_answers(checkpoint: str | Path, images: np.ndarray) -> StoredAnswers:
    """The answers of a checkpoint: stored ones where all images are known, else computed now.

    Args:
        checkpoint: a folder, or an id below checkpoints/, as ``load_checkpoint`` takes it.
        images: uint8 (N, H, W) or (N, H, W, 3).

    Raises:
        SwysError: as ``load_checkpoint`` does, where answers have to be computed.
    """
    path = answers_path(checkpoint)
    if path.is_file():
        stored = load_file(path)
        row_of = {int(key): row for row, key in enumerate(stored["keys"])}
        rows = [row_of.get(key, -1) for key in image_keys(images)]
        if min(rows) >= 0:
            return StoredAnswers(stored["logits"][rows].float(), stored["maps"][rows].float())
    return compute_answers(checkpoint, images)


def compute_answers(checkpoint: str | Path, images: np.ndarray) -> StoredAnswers:
    """Ask a checkpoint now, on the default device.

    Args:
        checkpoint: as for ``teacher_answers``.
        images: uint8 (N, H, W) or (N, H, W, 3).
    """
    model, _ = load_checkpoint(checkpoint, default_device())
    return answers_of(model, images)


def answers_of(model: VisionTransformer, images: np.ndarray) -> StoredAnswers:
    """Logits and maps of a model that is asked now.

    Args:
        model: on its device; all of it can be trained afterwards.
        images: uint8 (N, H, W) or (N, H, W, 3).
    """
    teacher = Teacher(model)
    device = next(model.parameters()).device
    bf16 = torch.autocast(device.type, torch.bfloat16, enabled=fast_bf16(device))
    logits = []
    maps = []
    title = "the teacher answers"
    with bf16, tqdm(total=len(images), desc=title, leave=False, disable=None) as bar:
        for _, inputs in input_batches(model, images, batch_size=64):
            some_logits, some_maps = teacher.logits_and_maps(inputs)
            logits.append(some_logits.cpu())
            maps.append(some_maps.cpu())
            bar.update(len(inputs))
    model.requires_grad_(True)  # a teacher is frozen; this model may still be trained
    return StoredAnswers(torch.cat(logits), torch.cat(maps))


def image_keys(images: np.ndarray) -> list[int]:
    """A number of 63 bits for each image, from the sha256 of its pixels.

    Args:
        images: uint8 (N, H, W) or (N, H, W, 3).
    """
    keys = []
    for image in images:
        digest = hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest()
        keys.append(int.from_bytes(digest[:8], "big") >> 1)
    return keys


def answers_path(checkpoint: str | Path) -> Path:
    """Where the answers of a checkpoint are stored.

    Args:
        checkpoint: as for ``teacher_answers``.
    """
    folder, _, _ = locate(find_checkpoint(checkpoint))
    return folder / FILE_NAME
