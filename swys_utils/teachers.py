"""Who teaches in notebook 5, and with how few labels a student has to manage."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from .config import Profile
from .data import Dataset
from .distillation import hide_labels
from .models import SERIES, load_checkpoint
from .saved_models import is_shipped, load_or_train
from .splits import Split
from .stored_answers import StoredAnswers, answers_of, stored_answers

FEWEST = 20  # images that keep their label, also where 1 % are fewer
# the smaller they are, the sooner they have answered for a few thousand images
SMALL_TEACHERS = ("vit_tiny_answers_p7", "vit_tiny_maps", "vit_tiny")


class ChosenTeacher(NamedTuple):
    """A teacher and what it answered.

    Attributes:
        title: its name in text and figures.
        model: asked about test images.
        answers: its logits and maps for the training images.
    """

    title: str
    model: VisionTransformer
    answers: StoredAnswers


def best_teacher(
    data: Dataset, images: np.ndarray, profile: Profile, device: torch.device
) -> ChosenTeacher:
    """The best teacher that costs a reader no time.

    It is Base where its answers to these images are stored in the repository, else a small shipped
    model, else the Tiny that is trained here.

    Args:
        data: what it was trained on.
        images: the training images that it answers for, uint8.
        profile: how long a teacher is trained, where there is none.
        device: where it computes.
    """
    classes = data.info.num_classes
    known = is_shipped("vit_base", data)
    answers = stored_answers(f"{data.info.name}/vit_base", images) if known else None
    if answers is not None:
        model, _ = load_checkpoint(f"{data.info.name}/vit_base", device, classes)  # it gave these
        return ChosenTeacher(SERIES["vit_base"].title, model, answers)
    shipped = [name for name in SMALL_TEACHERS if is_shipped(name, data)]
    name = shipped[0] if shipped else "vit_tiny"
    if shipped:
        model, _ = load_checkpoint(f"{data.info.name}/{name}", device, classes)
    else:
        model = load_or_train(name, data, profile, device).model
    return ChosenTeacher(
        SERIES[name].title,
        model,
        answers_of(model, images),
    )


def few_labelled(split: Split, share: float = 0.01) -> Split:
    """The images of a split that keep their label: a small share of each class.

    Args:
        split: the images and their labels.
        share: of the images; at least ``FEWEST`` keep their label.
    """
    share = min(1.0, max(share, FEWEST / len(split)))
    if split.labels.ndim == 2:
        return split.sample(round(share * len(split)))
    hidden = hide_labels(split, share)
    while np.sum(hidden.labels >= 0) < min(FEWEST, len(split)):  # each class rounds its share
        share = min(1.0, 1.1 * share)
        hidden = hide_labels(split, share)
    return split.take(np.flatnonzero(hidden.labels >= 0))


def as_choices(logits: Tensor, data: Dataset) -> Tensor:
    """Logits among which a softmax chooses one: the logits themselves.

    Where an image can have several labels, label 1 alone is chosen, between no and yes.

    Args:
        logits: float (B, C).
        data: says whether an image can have several labels.

    Returns:
        float (B, C), or (B, 2).
    """
    if not data.info.multi_label:
        return logits
    yes = logits[:, 1]
    return torch.stack([torch.zeros_like(yes), yes], dim=1)
