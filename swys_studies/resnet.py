"""A ResNet-18 for small images: made, trained, asked. A convolutional network beside the ViTs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import timm
import torch
from torch import Tensor, nn

from swys_utils.config import (
    SwysError,
    default_device,
    fast_bf16,
    replacing,
    seed_everything,
)
from swys_utils.data import Dataset, to_model_input
from swys_utils.models import weights_digest
from swys_utils.recipe import Batch, Recipe, SupervisedObjective, batches, learning_rate

MODEL = "resnet18"
BATCH = 64


def small_resnet(num_classes: int, seed: int) -> nn.Module:
    """ResNet-18 for small images: its first layer neither strides nor pools.

    So 28 px become 4 positions a side at the end, and not 1.

    Args:
        num_classes: width of the head.
        seed: of the weights.
    """
    seed_everything(seed)
    model = timm.create_model(MODEL, num_classes=num_classes)
    model.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model.to(default_device())


def load_resnet(path: Path, num_classes: int) -> nn.Module:
    """A trained ResNet, in eval mode.

    Args:
        path: of its weights.
        num_classes: of the data.

    Raises:
        SwysError: it was not trained yet.
    """
    if not path.is_file():
        raise SwysError(f"there is no ResNet at '{path}'; train it first, with swys study cnn")
    model = small_resnet(num_classes, seed=0)
    model.load_state_dict(torch.load(path, map_location=default_device(), weights_only=True))
    return model.eval()


def train_resnet(
    model: nn.Module, data: Dataset, recipe: Recipe, seed: int, state_path: Path | None = None
) -> list[float]:
    """Train a model on the labels, in place; each epoch's randomness follows from (seed, epoch).

    Args:
        model: any classifier of images.
        data: its training split is shown.
        recipe: batches, views and the learning rate.
        seed: of the order of the images and their views.
        state_path: file of an unfinished run; when it exists, the run goes on from it.

    Returns:
        The mean loss of each epoch.
    """
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=recipe.weight_decay)
    losses: list[float] = []
    if state_path and state_path.is_file():
        state = torch.load(state_path, map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        losses = state["losses"]
    while len(losses) < recipe.epochs:
        losses.append(_train_epoch(model, optimizer, data, recipe, seed, len(losses)))
        if state_path:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            with replacing(state_path) as part:
                torch.save(state | {"losses": losses}, part)
            print(f"    epoch {len(losses)} of {recipe.epochs}: loss {losses[-1]:.3f}", flush=True)
    model.eval()
    return losses


def _train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: Dataset,
    recipe: Recipe,
    seed: int,
    epoch: int,
) -> float:
    """Show the training split once; returns the mean loss."""
    device = default_device()
    objective = SupervisedObjective()
    steps_per_epoch = max(1, len(data.train) // recipe.batch_size)
    losses: list[float] = []
    model.train()
    for batch in batches(data, epoch, recipe, seed=seed, device=device):
        step = epoch * steps_per_epoch + len(losses)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step, steps_per_epoch)
        with torch.autocast(device.type, torch.bfloat16, enabled=fast_bf16(device)):
            loss = objective(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return float(np.mean(losses))


@torch.no_grad()
def resnet_logits(model: nn.Module, images: np.ndarray) -> np.ndarray:
    """Answers of a model.

    Args:
        model: in eval mode.
        images: uint8 (N, H, W) or (N, H, W, 3).

    Returns:
        Float32 (N, C).
    """
    logits = []
    for start in range(0, len(images), BATCH):
        inputs = to_model_input(images[start : start + BATCH], device=default_device())
        logits.append(model(inputs).float().cpu().numpy())
    return np.concatenate(logits)


class ResnetTeacher(nn.Module):
    """A trained ResNet that answers like ``distillation.Teacher``, but has no map to teach.

    Args:
        model: the trained model; it is asked in eval mode.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.num_classes = model.num_classes

    @property
    def digest(self) -> str:
        """Which teacher it is: two with the same weights have the same digest."""
        return weights_digest(self.model)

    @torch.no_grad()
    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, C) of a batch, detached."""
        return self.model(batch.inputs)

    @torch.no_grad()
    def logits_and_maps(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, C) of model input (B, 3, H, W), and maps without a patch, (B, 0, 0)."""
        return self.model(inputs), inputs.new_zeros(len(inputs), 0, 0)
