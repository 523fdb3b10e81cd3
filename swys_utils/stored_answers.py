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
from safetensors import safe_open
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from tqdm.auto import tqdm

from .cards import find_checkpoint, locate, read_card
from .config import default_device, fast_bf16, no_bar
from .gradcam import logits_and_map
from .models import load_checkpoint
from .vit_internals import evaluation_mode, input_batches

FILE_NAME = "answers.safetensors"


class StoredAnswers(NamedTuple):
    """What a teacher answered to N images.

    Attributes:
        logits: float32 (N, C).
        maps: signed Grad-CAM maps of the predicted classes, float32 (N, gh, gw).
    """

    logits: Tensor
    maps: Tensor


def stored_answers(checkpoint: str | Path, images: np.ndarray) -> StoredAnswers | None:
    """The stored answers of a checkpoint to all of these images.

    Args:
        checkpoint: a folder, or an id below checkpoints/, as ``load_checkpoint`` takes it.
        images: uint8 (N, H, W) or (N, H, W, 3).

    Returns:
        None where nothing is stored, where it is of other weights, or an image is not known.
    """
    path = answers_path(checkpoint)
    if not path.is_file():
        return None
    with safe_open(path, framework="pt") as stored:
        if (stored.metadata() or {}).get("weights") != weights_id(checkpoint):
            return None
        row_of = {int(key): row for row, key in enumerate(stored.get_tensor("keys"))}
        rows = [row_of.get(key) for key in image_keys(images)]
        if None in rows:
            return None
        logits = stored.get_tensor("logits")[rows]
        maps = stored.get_tensor("maps")[rows]
    return StoredAnswers(logits.float(), maps.float())


def weights_id(checkpoint: str | Path) -> str:
    """The sha256 of each file with weights, as the card of a checkpoint has them.

    Args:
        checkpoint: as for ``stored_answers``.
    """
    _, _, card_path = locate(find_checkpoint(checkpoint))
    return " ".join(entry["sha256"] for entry in read_card(card_path)["files"])


def compute_answers(checkpoint: str | Path, images: np.ndarray) -> StoredAnswers:
    """Ask a checkpoint now, on the default device.

    Args:
        checkpoint: as for ``stored_answers``.
        images: uint8 (N, H, W) or (N, H, W, 3).
    """
    model, _ = load_checkpoint(checkpoint, default_device())
    return answers_of(model, images)


def answers_of(model: VisionTransformer, images: np.ndarray) -> StoredAnswers:
    """Logits and maps of a model that is asked now.

    Args:
        model: on its device; it is left as it was.
        images: uint8 (N, H, W) or (N, H, W, 3).
    """
    grid = model.patch_embed.grid_size
    device = next(model.parameters()).device
    bf16 = torch.autocast(device.type, torch.bfloat16, enabled=fast_bf16(device))
    logits = []
    maps = []
    title = "the teacher answers"
    bar = tqdm(total=len(images), desc=title, leave=False, delay=5, disable=no_bar())
    with bar, bf16, torch.no_grad(), evaluation_mode(model):
        for _, inputs in input_batches(model, images, batch_size=64):
            some_logits, values, _ = logits_and_map(model, inputs)
            logits.append(some_logits.cpu())
            maps.append(values.unflatten(1, grid).cpu())
            bar.update(len(inputs))
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
        checkpoint: as for ``stored_answers``.
    """
    folder, _, _ = locate(find_checkpoint(checkpoint))
    return folder / FILE_NAME
