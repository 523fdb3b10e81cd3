"""A ResNet-18 for small images: made, trained, asked. A convolutional network beside the ViTs."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from filelock import FileLock
from torch import Tensor, nn

from swys_utils.config import (
    SwysError,
    default_device,
    device_name,
    fast_bf16,
    replacing,
    seed_everything,
    write_json,
)
from swys_utils.data import Dataset, to_model_input
from swys_utils.distillation import Teacher
from swys_utils.metrics import point_scores
from swys_utils.models import weights_digest
from swys_utils.recipe import (
    Batch,
    Recipe,
    SupervisedObjective,
    batches,
    learning_rate,
    reference_recipe,
)
from swys_utils.resume import TrainingState

from .result_files import read_json
from .runs import recalls

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


def resnet_id(seed: int) -> str:
    """The id of a ResNet, like that of a run of the reference set: ``resnet18/labels/seed<k>``.

    Args:
        seed: of the run.
    """
    return f"{MODEL}/labels/seed{seed}"


def resnet_recipe(dataset: str) -> Recipe:
    """The recipe of a ResNet: Tiny's rate and views, and as many passes as Base.

    Args:
        dataset: name of the data set.
    """
    return replace(
        reference_recipe("vit_tiny", dataset),
        epochs=reference_recipe("vit_base", dataset).epochs,
        patch_drop=0.0,
        drop_path=0.0,
    )


def trained_resnet(run_id: str, data: Dataset, out: Path) -> nn.Module:
    """A ResNet in eval mode: as it was trained before, else it is trained and scored now.

    A killed training goes on, and another process that trains it is waited for.

    Args:
        run_id: of ``resnet_id``.
        data: data of the reference set.
        out: folder of runs; weights and scores are kept there.

    Raises:
        SwysError: the folder has one of another data set, or a state of another recipe.
    """
    seed = int(run_id.rsplit("seed", 1)[1])
    model = small_resnet(data.info.num_classes, seed)
    path = out / f"{run_id}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not _entry_path(run_id, out).is_file():
            print(f"{run_id} ...", flush=True)
            _train_and_score(model, run_id, seed, data, path, out)
    trained_on = resnet_entry(run_id, out)["dataset"]
    if trained_on != data.info.name:
        raise SwysError(f"'{path}' learned {trained_on}, not {data.info.name}; name another folder")
    weights = torch.load(path, map_location=default_device(), weights_only=True)
    model.load_state_dict(weights)
    return model.eval()


def resnet_entry(run_id: str, out: Path) -> dict[str, Any]:
    """What is known of a trained ResNet: recipe, losses, scores and answers.

    Args:
        run_id: of ``resnet_id``.
        out: folder of runs.
    """
    return read_json(_entry_path(run_id, out))


def _entry_path(run_id: str, out: Path) -> Path:
    """Where the scores of a ResNet are kept: beside its weights, and written after them."""
    return out / f"{run_id}.json"


def _train_and_score(
    model: nn.Module, run_id: str, seed: int, data: Dataset, path: Path, out: Path
) -> None:
    """Train a ResNet, and write its weights and what is known of it."""
    recipe = resnet_recipe(data.info.name)
    state_path = path.with_suffix(".state.pt")
    losses = train_resnet(model, data, recipe, seed, state_path)
    logits = resnet_logits(model, data.test.images)
    answers = logits.argmax(axis=1)
    validation = resnet_logits(model, data.val.images)
    entry = {
        "id": run_id,
        "dataset": data.info.name,
        "seed": seed,
        "recipe": asdict(recipe),
        "train_loss": losses,
        "validation": point_scores(validation, data.val.labels, data.info.task),
        "last": point_scores(logits, data.test.labels, data.info.task),
        "predicted": "".join(np.base_repr(answer, 36) for answer in answers),
        "recall": recalls(answers, data.test.labels, data.info.num_classes),
        "device": f"{device_name(default_device())}, {torch.get_num_threads()} threads",
    }
    with replacing(path) as part:
        torch.save(model.state_dict(), part)
    write_json(_entry_path(run_id, out), entry)  # last: it says that the run is done
    state_path.unlink(missing_ok=True)


def train_resnet(
    model: nn.Module, data: Dataset, recipe: Recipe, seed: int, state_path: Path | None = None
) -> list[float]:
    """Train a model on the labels, in place; each epoch's randomness follows from (seed, epoch).

    AdamW's weight decay holds for all weights, also for those of the batch normalisation.

    Args:
        model: any classifier of images.
        data: its training split is shown.
        recipe: batches, views and the learning rate.
        seed: of the order of the images and their views.
        state_path: file of an unfinished run; when it exists, the run goes on from it.

    Returns:
        The mean loss of each epoch.

    Raises:
        SwysError: the file is damaged, or of another run.
    """
    objective = SupervisedObjective(data.info.multi_label)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=recipe.weight_decay)
    settings = {
        "recipe": asdict(recipe),
        "seed": seed,
        "data": data.info.results_name,
        "images": len(data.train),
    }
    state = TrainingState(state_path, model, objective, optimizer, settings)
    while len(state.history) < recipe.epochs:
        epoch = len(state.history)
        loss = _train_epoch(model, objective, optimizer, data, recipe, seed, epoch)
        state.history.append({"train_loss": loss})
        state.save(now=True)
        print(f"    epoch {epoch + 1} of {recipe.epochs}: loss {loss:.3f}", flush=True)
    model.eval()
    return [row["train_loss"] for row in state.history]


def _train_epoch(
    model: nn.Module,
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: Dataset,
    recipe: Recipe,
    seed: int,
    epoch: int,
) -> float:
    """Show the training split once; returns the mean loss."""
    device = default_device()
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
    """A trained ResNet that answers a student; it has no map to teach.

    Its layout in memory is changed to the one that convolutions of a CPU are twice as fast in.

    Args:
        model: the trained model; it stays in eval mode.

    Attributes:
        digest: two teachers with the same weights have the same.
        num_classes: number of classes that it answers for.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.digest = weights_digest(model)
        self.num_classes = model.num_classes
        self.model = model.to(memory_format=torch.channels_last).requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> ResnetTeacher:
        """Stay in eval mode, whatever ``mode`` is: batch normalisation must not learn."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, C) of a batch."""
        return self.model(batch.inputs)

    @torch.no_grad()
    def logits_and_maps(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, C) of model input (B, 3, H, W), and maps without a patch, (B, 0, 0)."""
        return self.model(inputs), inputs.new_zeros(len(inputs), 0, 0)


AnyTeacher = Teacher | ResnetTeacher
