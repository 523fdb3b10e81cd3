"""Small models, few images and the objectives by name: what many test files need."""

from dataclasses import replace
from pathlib import Path

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import swys.train  # noqa: F401 (adds a way to teach)
from swys_studies.kinds import BETTER_TEACHERS
from swys_utils import distillation
from swys_utils.data import Dataset
from swys_utils.models import create_model, save_checkpoint
from swys_utils.recipe import Recipe, SupervisedObjective

SMALL = {"patch_size": 14, "depth": 2, "embed_dim": 48, "num_heads": 3}
RECIPE = Recipe(epochs=2, batch_size=16, warmup_epochs=1, patch_drop=0.5, views=2)
OBJECTIVES = tuple(distillation.OBJECTIVES)


def vit(
    classes: int = 2, seed: int = 0, noise: float = 0.0, name: str = "vit_tiny", **geometry
) -> VisionTransformer:
    """A two-block ViT for 28 px, in eval mode; ``noise`` spreads its weights: maps differ."""
    torch.manual_seed(seed)
    model = create_model(name, classes, **(SMALL | geometry)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
    return model


def some(data: Dataset, train: int = 48, val: int = 16, test: int = 32) -> Dataset:
    """A few images of each split."""
    return replace(
        data,
        train=data.train.sample(train),
        val=data.val.sample(val),
        test=data.test.sample(test),
    )


def objective(
    kind: str,
    student: VisionTransformer,
    teacher: nn.Module,
    multi_label: bool = False,
) -> nn.Module:
    """The objective of that id; ``teacher`` is a model."""
    entry = distillation.OBJECTIVES[kind]
    labels = SupervisedObjective(multi_label)
    return entry.make(distillation.Teacher(teacher), labels, student)


def run_entry(run_id: str, predicted: str = "0", accuracy: float = 0.5, **changes) -> dict:
    """A finished run as ``swys study reference`` lists it; ``predicted``: one digit an image."""
    _, method, seed = run_id.split("/")
    scores = {"accuracy": accuracy, "auc": 0.5, "ece": 0.1}
    entry = {
        "id": run_id,
        "method": method,
        "seed": int(seed.removeprefix("seed")),
        "device": "drawn",
        "predicted": predicted,
        "val_auc": 0.5,
        "last": scores,
        "val_chosen": scores,
    }
    return entry | changes


def ship_teachers(shipped: Path) -> None:
    """Small models under the names of the shipped ones that teach."""
    card = {"model": "vit_tiny_patch16_224", "dataset": "pneumoniamnist"}
    for seed, name in enumerate(BETTER_TEACHERS.teachers, start=10):
        save_checkpoint(vit(seed=seed), shipped / "pneumoniamnist" / name, card)
