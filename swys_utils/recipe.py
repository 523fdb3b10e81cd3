"""What decides a training run: the order of images, the learning rate, the loss."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from timm.models import get_arch_name
from torch import Tensor, nn

from .config import SwysError
from .data import Dataset
from .models import timm_name
from .views import Augmentation, make_views, view_draws

# images of cells and tissue have no up and down: a quarter turn keeps their label
TURNED = ("bloodmnist", "pathmnist", "dermamnist", "tissuemnist")
# classes are the left or the right of two organs: a mirror image has the other's label
SIDED = ("organamnist", "organcmnist")

# timm's architectures that are trained by Base's recipe; any other gets Tiny's
BASE_MODELS = (
    "vit_base_patch8_224",
    "vit_base_patch16_224",
    "vit_base_patch16_384",
    "vit_base_patch32_224",
    "deit_base_patch16_224",
    "deit3_base_patch16_224",
)

LARGEST = sys.float_info.max
BELOW_ONE = math.nextafter(1, 0)
ABOVE_ZERO = math.nextafter(0, 1)
# number of a recipe -> the smallest and the largest that it may be, and both in words
RANGES = {
    "epochs": (1, LARGEST, "1 or more"),
    "batch_size": (1, LARGEST, "1 or more"),
    "lr": (ABOVE_ZERO, LARGEST, "more than 0"),
    "weight_decay": (0, LARGEST, "0 or more"),
    "warmup_epochs": (0, LARGEST, "0 or more"),
    "views": (0, LARGEST, "0 or more"),
    "drop_path": (0, BELOW_ONE, "0 or more, and below 1"),
    "patch_drop": (0, BELOW_ONE, "0 or more, and below 1"),
    "full_tokens": (0, 1, "0 to 1"),
    "mixup": (0, LARGEST, "0 or more"),
    "label_smoothing": (0, 1, "0 to 1"),
    "seconds": (0, LARGEST, "0 or more"),
}
MAX_WARMUP = 0.2  # the learning rate rises during at most this share of the schedule


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run, except the seed.

    Attributes:
        epochs: number of times that the training images are shown.
        batch_size: images in a step; all of them where there are fewer.
        lr: the highest learning rate of AdamW (Loshchilov & Hutter 2019).
        weight_decay: of AdamW, for all weights but biases and those of norms; unlike in timm's own
            optimizers, also for the CLS token and the position embedding.
        warmup_epochs: epochs in which the learning rate rises linearly, before it falls along half
            a cosine to 0. The rise takes at most ``MAX_WARMUP``, a fifth, of the schedule: with a
            warm-up of 5 epochs, 2.4 epochs of 12.
        augmentation: the random views.
        views: number of different views of each image, which are shown in turn and are the same in
            every run, so that a teacher can look at them beforehand; 0 draws new ones each epoch.
        drop_path: stochastic depth of the last block, rising linearly from 0 (Huang et al. 2016).
        patch_drop: share of the patch tokens left out at random (PatchDropout, Liu et al. 2023),
            which saves nearly this share of the time.
        full_tokens: share of the schedule, at its end, in which no patch token is left out; if it
            is above 0, at least the last epoch.
        mixup: mix each image and its label with those of another image of the batch, by a share
            drawn from Beta(mixup, mixup) (Zhang et al. 2018); 0 is off.
        label_smoothing: share of the label of each image that is spread evenly over the classes;
            every image needs a label, and one only.
        seconds: the schedule takes this many seconds of training instead of ``epochs``; 0 is off.

    Raises:
        SwysError: a number outside its range.
    """

    epochs: int = 60
    batch_size: int = 128
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup_epochs: float = 5
    augmentation: Augmentation = Augmentation(
        flip=True, rotate=15, scale=0.15, shift=0.1, jitter=0.2
    )
    views: int = 0
    drop_path: float = 0.05
    patch_drop: float = 0.0
    full_tokens: float = 0.2
    mixup: float = 0.0
    label_smoothing: float = 0.0
    seconds: float = 0.0

    def __post_init__(self):
        for name, (low, high, words) in RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:  # nan is refused, too
                raise SwysError(f"{name} is {value}; give {words}")


def reference_recipe(model_name: str, dataset_name: str = "pneumoniamnist") -> Recipe:
    """The recipe of the shipped runs.

    Args:
        model_name: of the series or of timm; Base's recipe is for ``BASE_MODELS``, Tiny's for all
            others.
        dataset_name: MedMNIST's name; images of the sets in ``TURNED`` are also turned, and those
            of the sets in ``SIDED`` not mirrored.
    """
    recipe = Recipe(epochs=30, batch_size=64, patch_drop=0.5, views=8)
    if get_arch_name(timm_name(model_name)) in BASE_MODELS:
        recipe = replace(recipe, epochs=12, lr=3e-4, full_tokens=0.1)
    if dataset_name in TURNED:
        turned = replace(recipe.augmentation, turns=True)
        recipe = replace(recipe, augmentation=turned)
    if dataset_name in SIDED:
        not_mirrored = replace(recipe.augmentation, flip=False)
        recipe = replace(recipe, augmentation=not_mirrored)
    return recipe


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int, seconds: float = 0.0) -> float:
    """The rate of the next step: a linear rise, then half a cosine to 0 after the last.

    Args:
        recipe: its highest rate, its schedule and its warm-up.
        step: number of steps so far.
        steps_per_epoch: number of steps in an epoch.
        seconds: of training so far, for a schedule in seconds.
    """
    total = recipe.epochs * steps_per_epoch
    done = step / total
    if recipe.seconds:
        done = min(1.0, seconds / recipe.seconds)
    warmup = min(recipe.warmup_epochs / recipe.epochs, MAX_WARMUP)
    if done < warmup:
        return recipe.lr * (done + 1 / total) / (warmup + 1 / total)  # above 0 at the first step
    angle = math.pi * (done - warmup) / (1 - warmup)
    return recipe.lr * 0.5 * (1 + math.cos(angle))


class Batch(NamedTuple):
    """What an objective sees of a training step.

    Attributes:
        inputs: views, float (B, 3, S, S) in [-1, 1].
        targets: float (B, C), 1 for what is true; a row of zeros: the image has no label.
        indices: positions of the images in the training split, int64 (B,), on the CPU.
        view: number of the view that is shown of each image, from 0.
    """

    inputs: Tensor
    targets: Tensor
    indices: Tensor
    view: int


def batches(
    data: Dataset,
    epoch: int,
    recipe: Recipe,
    img_size: int = 28,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Iterator[Batch]:
    """Show the training split once, in random views and in random order.

    Views and order follow from (seed, epoch); where the recipe has a fixed number of views, each
    follows from its own number. Memory-mapped images stay on disk, others lie on the device.

    Args:
        data: its training split is shown.
        epoch: number of the epoch, from 0.
        recipe: batch size and views.
        img_size: side S of the views, px.
        seed: of the run.
        device: where inputs and targets are made.

    Yields:
        Full batches; the images that do not fill the last one are left out.

    Raises:
        SwysError: label smoothing, where an image has no label or may have several.
    """
    if recipe.label_smoothing and (data.info.multi_label or data.train.labels.min() < 0):
        raise SwysError("label_smoothing needs one label for every image; set it to 0")
    images = data.train.images
    if not isinstance(images, np.memmap):
        images = torch.as_tensor(images).to(device)
    labels = torch.as_tensor(data.train.labels)
    view = epoch
    view_seed = 1_000_003 * seed + epoch
    if recipe.views:
        view = view_seed = epoch % recipe.views
    draws = view_draws(len(labels), view_seed)
    mixing = np.random.default_rng([seed, epoch, 1])
    for indices in batch_indices(len(labels), recipe, epoch, seed):
        inputs = make_views(images, indices, draws, recipe.augmentation, img_size, device)
        targets = one_hot(labels[indices], data.info.num_classes).to(device)
        if recipe.label_smoothing:
            even = recipe.label_smoothing / data.info.num_classes
            targets = targets * (1 - recipe.label_smoothing) + even
        if recipe.mixup:
            share = float(mixing.beta(recipe.mixup, recipe.mixup))
            inputs = torch.lerp(inputs.roll(1, 0), inputs, share)  # the order is random already
            targets = torch.lerp(targets.roll(1, 0), targets, share)
        yield Batch(inputs, targets, indices, view)


def batch_indices(count: int, recipe: Recipe, epoch: int, seed: int) -> tuple[Tensor, ...]:
    """Positions, int64 (B,), of the images in each full batch of an epoch.

    Args:
        count: number of training images.
        recipe: the batch size.
        epoch: number of the epoch, from 0.
        seed: of the run.
    """
    order = np.random.default_rng([seed, epoch]).permutation(count)
    size = min(recipe.batch_size, count)
    shown = count // size * size
    return torch.as_tensor(order)[:shown].split(size)


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """Labels as targets of a loss.

    Args:
        labels: int64 (B,), where -1 is no label; or multi-label (B, C), 0 or 1.
        num_classes: number C of classes.

    Returns:
        Float (B, C); a row of zeros where there is no label.
    """
    if labels.ndim == 2:
        return labels.float()
    classes = torch.arange(num_classes, device=labels.device)
    return (labels[:, None] == classes).float()


def class_and_numbers(objective: nn.Module) -> dict:
    """What tells an objective from others: its class, and its attributes that are numbers."""
    settings: dict = {"objective": type(objective).__name__}
    for name, value in vars(objective).items():
        if isinstance(value, (int, float)) and name != "training":
            settings[name] = value
    return settings


class SupervisedObjective(nn.Module):
    """Cross-entropy with the labels; where several can be true, binary cross-entropy for each.

    An objective is called as ``objective(model, batch)`` and returns a scalar loss.

    Args:
        multi_label: whether several labels of an image can be true.
    """

    def __init__(self, multi_label: bool = False):
        super().__init__()
        self.multi_label = multi_label

    def settings(self) -> dict:
        """What a resumed run and a kept model have to share, as JSON values."""
        return class_and_numbers(self)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of logits and targets, both float (B, C).

        It is computed in float32: bfloat16 would round small differences away.
        """
        if self.multi_label:
            return F.binary_cross_entropy_with_logits(logits.float(), targets)
        return F.cross_entropy(logits.float(), targets)

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        """The loss of ``model`` on ``batch``."""
        return self.loss(model(batch.inputs), batch.targets)
