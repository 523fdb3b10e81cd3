"""One recipe, one training loop and one prediction path for every model of the series."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from timm.models.vision_transformer import VisionTransformer
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn
from tqdm import tqdm

from .config import SwysError, default_device, fast_bf16, seed_everything
from .data import Dataset, to_model_input
from .gradcam import evaluation_mode
from .images import Augmentation, Batch, batches, one_hot
from .metrics import point_scores
from .models import create_model, plain_attention
from .resume import UnfinishedRun


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run, apart from the seed.

    Attributes:
        epochs, batch_size, lr, weight_decay: of AdamW (Loshchilov & Hutter 2019); lr is the peak.
        warmup_epochs: linear rise of the learning rate; then half a cosine down to 0.
        augmentation: the random views. views: so many different ones of each image, shown in turn and the same in
            every run, so that a teacher can look at them beforehand; 0 draws new ones each epoch.
        drop_path: stochastic depth of the last block, rising linearly from 0 (Huang et al. 2016).
        patch_drop: share of the patch tokens left out at random (PatchDropout, Liu et al. 2023), which saves as
            much of the time, but for the last ``full_tokens`` of the epochs.
        seconds: squeeze the whole schedule into so many seconds of training, whatever ``epochs`` says; 0 is off.
    """

    epochs: int = 60
    batch_size: int = 128
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup_epochs: float = 5
    augmentation: Augmentation = Augmentation(flip=True, rotate=15, scale=0.15, shift=0.1, jitter=0.2)
    views: int = 0
    drop_path: float = 0.05
    patch_drop: float = 0.0
    full_tokens: float = 0.2
    seconds: float = 0.0


TURNED = ("bloodmnist", "pathmnist", "dermamnist", "tissuemnist")  # cells and tissue have no up or down


def reference_recipe(model_name: str, dataset_name: str = "pneumoniamnist") -> Recipe:
    """The recipe of the shipped runs; images without an up and down are also turned."""
    recipe = Recipe(patch_drop=0.5, views=16)
    if "base" in model_name:
        recipe = replace(recipe, epochs=30, lr=3e-4, full_tokens=0.1)
    if dataset_name in TURNED:
        recipe = replace(recipe, augmentation=replace(recipe.augmentation, turns=True))
    return recipe


def build(
    name: str,
    data: Dataset,
    recipe: Recipe,
    seed: int = 0,
    img_size: int | None = None,
    patch_size: int | None = None,
    **kwargs,
) -> VisionTransformer:
    """``create_model`` with the initial weights of ``seed``: the same for every run of that model and seed."""
    seed_everything(seed)
    rates = {"drop_path_rate": recipe.drop_path, "patch_drop_rate": recipe.patch_drop}
    return create_model(name, data.info.num_classes, img_size, patch_size, **rates, **kwargs)


class SupervisedObjective(nn.Module):
    """Cross-entropy with the labels; binary cross-entropy for each label where several can be true.

    An objective is called as ``objective(model, batch)`` and returns a scalar loss.
    """

    def __init__(self, multi_label: bool = False):
        super().__init__()
        self.multi_label = multi_label

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Of logits and targets, both (B, C)."""
        if self.multi_label:
            return F.binary_cross_entropy_with_logits(logits, targets)
        return F.cross_entropy(logits, targets)

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        """The loss of ``model`` on ``batch``."""
        return self.loss(model(batch.inputs), batch.targets)


@dataclass
class FitResult:
    """``model`` has the last epoch's weights; ``val_chosen`` those of the epoch with the best validation accuracy.

    ``history``: for each epoch its number, steps so far, lr, train_loss, val_loss, val_accuracy, val_auc, and the
    seconds of training so far (validation and watching do not count).
    """

    model: VisionTransformer
    val_chosen: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict] = field(default_factory=list)

    def val_chosen_model(self) -> VisionTransformer:
        """A copy of the model with the validation-chosen weights."""
        model = deepcopy(self.model)
        model.load_state_dict(self.val_chosen)
        return model.eval()


def fit(
    model: VisionTransformer,
    data: Dataset,
    recipe: Recipe,
    objective: nn.Module | None = None,
    *,
    seed: int = 0,
    device: torch.device | str | None = None,
    state_path: str | Path | None = None,
    watch: Callable[[nn.Module, float, int], object] | None = None,
) -> FitResult:
    """Train ``model`` by ``recipe`` on a CPU, one GPU, or several under ``accelerate launch``.

    Each epoch's randomness follows from (seed, epoch), so a resumed run repeats an uninterrupted one.

    Args:
        objective: see :class:`SupervisedObjective`, which is the default.
        state_path: .safetensors file that keeps an unfinished run; when it is there, the run goes on from it.
        watch: called as ``watch(model, seconds, step)`` after each tenth of an epoch.

    Raises:
        SwysError: a state of another recipe or model, an unwritable path, a loss that is not finite.
    """
    device = torch.device(device or default_device())
    accelerator = Accelerator(mixed_precision="bf16" if fast_bf16(device) else "no", cpu=device.type == "cpu")
    objective = objective or SupervisedObjective(data.info.multi_label)
    if hasattr(objective, "check"):
        objective.check(model)
    both = ModelAndObjective(model, objective).to(accelerator.device)
    optimizer = torch.optim.AdamW(param_groups_weight_decay(both, recipe.weight_decay), lr=recipe.lr)
    both, optimizer = accelerator.prepare(both, optimizer)
    facts = {"recipe": asdict(replace(recipe, epochs=0)), "seed": seed}
    run = UnfinishedRun(state_path, model, objective, optimizer, facts)
    while not finished(run.history, recipe):
        row = train_epoch(both, optimizer, accelerator, data, recipe, seed, run.history, watch)
        run.history.append(row | validate(model, data))
        if run.history[-1] is best_epoch(run.history):
            run.best = {key: value.detach().clone() for key, value in model.state_dict().items()}
        if accelerator.is_main_process:
            run.save(now=finished(run.history, recipe))
    return FitResult(model.eval(), run.best, run.history)


def train_epoch(
    both, optimizer, accelerator, data: Dataset, recipe: Recipe, seed: int, history: list[dict], watch
) -> dict:
    """One epoch more; returns its row of the history. ``both``: model and objective, wrapped by Accelerate."""
    model, device, epoch, losses = accelerator.unwrap_model(both).model, accelerator.device, len(history), []
    step, seconds = (history[-1]["steps"], history[-1]["seconds"]) if history else (0, 0.0)
    size = min(recipe.batch_size, len(data.train))
    steps = len(data.train) // size
    if hasattr(model.patch_drop, "prob"):
        model.patch_drop.prob = recipe.patch_drop if epoch < (1 - recipe.full_tokens) * recipe.epochs else 0.0
    img_size, how = model.patch_embed.img_size[0], recipe.augmentation
    shown = batches(data, epoch, how, recipe.views, size, img_size, seed, device)
    process, processes = accelerator.process_index, accelerator.num_processes
    seed_everything(1_000_003 * seed + epoch + 7919 * process)
    model.train()
    start = time.perf_counter()
    with plain_attention(both) if device.type == "cpu" else nullcontext():
        for batch in tqdm(shown, f"epoch {epoch + 1} of {recipe.epochs}", steps, leave=False, disable=None):
            mine = [part.tensor_split(processes)[process] for part in batch[:3]]
            rate = learning_rate(recipe, step, steps, seconds)
            for group in optimizer.param_groups:
                group["lr"] = rate
            with accelerator.autocast():
                loss = both(Batch(*mine, batch.view))
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.detach().float())
            step, seconds = step + 1, seconds + time.perf_counter() - start
            if watch and step % max(1, steps // 10) == 0:
                watch(model, seconds, step)
            start = time.perf_counter()
            if recipe.seconds and seconds >= recipe.seconds:
                break
    train_loss = torch.stack(losses).mean().item()
    if not math.isfinite(train_loss):
        raise SwysError(
            f"the loss is {train_loss} in epoch {epoch + 1}; lower the learning rate ({recipe.lr})"
        )
    return {"epoch": epoch + 1, "steps": step, "seconds": seconds, "lr": rate, "train_loss": train_loss}


def validate(model: VisionTransformer, data: Dataset) -> dict[str, float]:
    """Loss, accuracy, AUC and ECE on the validation split, under the names of a row of the history."""
    logits = predict(model, data.val.images, bf16=True)
    targets = one_hot(torch.as_tensor(data.val.labels), data.info.num_classes)
    loss = SupervisedObjective(data.info.multi_label).loss(torch.as_tensor(logits), targets).item()
    scores = point_scores(logits, data.val.labels, data.info.task)
    return {"val_loss": loss} | {f"val_{name}": value for name, value in scores.items()}


def best_epoch(history: list[dict]) -> dict:
    """The row that validation chooses: best accuracy, then lowest loss."""
    return max(history, key=lambda row: (row["val_accuracy"], -row["val_loss"]))


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int, seconds: float = 0.0) -> float:
    """The rate of the next step, after ``step`` steps and ``seconds`` of training."""
    total = recipe.epochs * steps_per_epoch
    done = min(1.0, seconds / recipe.seconds) if recipe.seconds else step / total
    warmup = min(recipe.warmup_epochs / recipe.epochs, 0.2)
    if done < warmup:
        return recipe.lr * (done + 1 / total) / (warmup + 1 / total)
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))


def finished(history: list[dict], recipe: Recipe) -> bool:
    """Whether the schedule ends after these epochs."""
    if recipe.seconds:
        return bool(history) and history[-1]["seconds"] >= recipe.seconds
    return len(history) >= recipe.epochs


class ModelAndObjective(nn.Module):
    """Both as one module, so that Accelerate wraps and synchronises both (a projector learns, too)."""

    def __init__(self, model: nn.Module, objective: nn.Module):
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: Batch) -> Tensor:
        """The loss of the batch."""
        return self.objective(self.model, batch)


@torch.no_grad()
def predict(
    model: VisionTransformer,
    images: np.ndarray,
    batch_size: int = 0,
    device: torch.device | str | None = None,
    progress: bool = False,
    bf16: bool = False,
) -> np.ndarray:
    """Logits of uint8 images (N, H, W[, 3]) as float32 (N, C), in eval mode; the mode is as before afterwards.

    Args:
        batch_size: default 512 on a GPU, 64 on a CPU. device: default: where the model is.
        bf16: compute in bfloat16 where the device has it (validation during training).
    """
    device = torch.device(device) if device else next(model.parameters()).device
    batch_size = batch_size or (64 if device.type == "cpu" else 512)
    starts = tqdm(
        range(0, len(images), batch_size), "predicting", leave=False, disable=None if progress else True
    )
    with (
        evaluation_mode(model),
        torch.autocast(device.type, torch.bfloat16, enabled=bf16 and fast_bf16(device)),
    ):
        size = model.patch_embed.img_size[0]
        logits = [model(to_model_input(images[i : i + batch_size], size, device)).float() for i in starts]
    return torch.cat(logits).cpu().numpy()
