"""One training loop and one prediction path for every model of the series."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from timm.models.vision_transformer import VisionTransformer
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn
from tqdm.auto import tqdm

from .config import SwysError, default_device, fast_bf16, no_bar, seed_everything
from .data import Dataset
from .metrics import point_scores
from .models import create_model
from .processes import ProcessShare
from .recipe import Batch, Recipe, SupervisedObjective, batch_indices, batches, learning_rate
from .resume import TrainingState, objective_settings
from .vit_internals import evaluation_mode, input_batches, plain_attention

Callback = Callable[[nn.Module, float, int], None]


def build(
    name: str, data: Dataset, recipe: Recipe, seed: int = 0, **geometry: int | None
) -> VisionTransformer:
    """A model with the initial weights of a seed.

    Args:
        name: of the series or of timm.
        data: gives the number of classes.
        recipe: gives the shares of stochastic depth and PatchDropout.
        seed: of the weights.
        **geometry: for ``create_model``: img_size, patch_size, ...
    """
    seed_everything(seed)
    return create_model(
        name,
        data.info.num_classes,
        drop_path_rate=recipe.drop_path,
        patch_drop_rate=recipe.patch_drop,
        **geometry,
    )


def fit(
    model: VisionTransformer,
    data: Dataset,
    recipe: Recipe,
    objective: nn.Module | None = None,
    *,
    seed: int = 0,
    device: torch.device | str | None = None,
    state_path: str | Path | None = None,
    callback: Callback | None = None,
) -> TrainingState:
    """Train a model on a CPU, one GPU, or several under ``accelerate launch``.

    Each epoch's randomness follows from (seed, epoch): a resumed run repeats an uninterrupted one.

    Args:
        model: a timm ViT, trained in place; at the end in eval mode, with the last epoch's weights.
        data: training and validation split.
        recipe: how it is trained.
        objective: called as ``objective(model, batch)``; None: the loss on the labels.
        seed: of the order of images and their views.
        device: one for the whole process; None: the default. Accelerate chooses among several GPUs.
        state_path: file of an unfinished run; when it exists, the run goes on from it.
        callback: called as ``callback(model, seconds, step)`` after each tenth of an epoch.

    Raises:
        SwysError: the file is of another run, or cannot be written; the model does not fit the
            data, the objective, the device or the processes do not fit; infinite loss.
    """
    if objective is None:
        objective = SupervisedObjective(data.info.multi_label)
    _refuse_other_classes(model, data)
    accelerator = _accelerator(torch.device(device or default_device()))
    _refuse_processes(accelerator.num_processes, data, recipe)
    if hasattr(objective, "check"):
        objective.check(model)
    prepared = _prepared(model, objective, recipe, accelerator)
    settings = _settings(objective, data, recipe, seed)
    state = TrainingState(state_path, model, objective, prepared.optimizer, settings)
    attention = _attention(accelerator.device)
    while not finished(state.history, recipe):
        with attention(prepared.wrapped):
            row = train_epoch(prepared, data, recipe, seed, state.history, callback)
        state.history.append(row | validate(model, data))
        if state.history[-1] is best_epoch(state.history):
            state.keep_best()
        if accelerator.is_main_process:
            state.save(now=finished(state.history, recipe))
    model.eval()
    return state


def _attention(device: torch.device) -> Callable[..., AbstractContextManager]:
    """The fused kernel, but where its backward pass is slow: on a CPU that uses bfloat16."""
    is_slow = device.type == "cpu" and fast_bf16(device)
    return plain_attention if is_slow else nullcontext


class Prepared(NamedTuple):
    """What Accelerate has put on the device and, for several processes, wrapped.

    Attributes:
        wrapped: a :class:`ModelAndObjective`, or Accelerate's wrapper of one.
        optimizer: of the parameters of model and objective.
        accelerator: knows the device and the processes.
    """

    wrapped: nn.Module
    optimizer: torch.optim.Optimizer
    accelerator: Accelerator


class ModelAndObjective(nn.Module):
    """Both as one module, which Accelerate wraps: an objective can learn, too (a projector).

    Args:
        model: gives logits of images.
        objective: gives the loss of a model.
    """

    def __init__(self, model: nn.Module, objective: nn.Module):
        super().__init__()
        self.model = model
        self.objective = objective

    def forward(self, batch: Batch) -> Tensor:
        """The loss of the batch."""
        return self.objective(self.model, batch)


def _accelerator(device: torch.device) -> Accelerator:
    """Accelerate for this device; a process has one device and one precision from then on."""
    precision = "bf16" if fast_bf16(device) else "no"
    try:
        accelerator = Accelerator(mixed_precision=precision, cpu=device.type == "cpu")
    except ValueError:  # by AcceleratorState, of another precision or of a CPU after a GPU
        used = "on another device or in another precision"
        raise SwysError(f"this process trains {used} already; restart it to use {device}") from None
    # an empty tensor says which GPU "cuda" is
    if torch.empty(0, device=accelerator.device).device != torch.empty(0, device=device).device:
        way = f"restart it to use {device}"
        if device.index:
            way = f"start it with CUDA_VISIBLE_DEVICES={device.index} to use {device}"
        raise SwysError(f"this process trains on {accelerator.device}; {way}")
    return accelerator


def _refuse_other_classes(model: VisionTransformer, data: Dataset) -> None:
    """Raise a SwysError where a model has not the classes of the data."""
    if model.num_classes != data.info.num_classes:
        counts = f"the model has {model.num_classes} classes, the data {data.info.num_classes}"
        raise SwysError(f"{counts}; make it with num_classes=data.info.num_classes")


def _refuse_processes(processes: int, data: Dataset, recipe: Recipe) -> None:
    """Raise a SwysError where several processes cannot train together."""
    if processes > min(recipe.batch_size, len(data.train)):
        raise SwysError(f"{processes} processes share batches of {recipe.batch_size}; enlarge them")
    if processes > 1 and recipe.seconds:
        clocks = f"{processes} processes have {processes} clocks"
        raise SwysError(f"{clocks}; train by epochs, with seconds=0")


def _prepared(
    model: nn.Module, objective: nn.Module, recipe: Recipe, accelerator: Accelerator
) -> Prepared:
    """Model, objective and a new optimizer on the device."""
    module = ModelAndObjective(model, objective).to(accelerator.device)
    groups = param_groups_weight_decay(module, recipe.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=recipe.lr, fused=True)
    wrapped, optimizer = accelerator.prepare(module, optimizer)
    return Prepared(wrapped, optimizer, accelerator)


def _settings(objective: nn.Module, data: Dataset, recipe: Recipe, seed: int) -> dict:
    """What a run has to share with a state to go on from it."""
    return {
        "recipe": asdict(recipe),
        "seed": seed,
        "data": data.info.results_name,
        "images": len(data.train),
        "objective": objective_settings(objective),
    }


def train_epoch(
    prepared: Prepared,
    data: Dataset,
    recipe: Recipe,
    seed: int,
    history: list[dict],
    callback: Callback | None = None,
) -> dict:
    """Train one more epoch, or until the recipe's seconds are over; returns its row of the history.

    Args:
        prepared: model, objective and optimizer.
        data: its training split is shown once.
        recipe: how it is trained.
        seed: of the run.
        history: the rows of the epochs so far.
        callback: called after each tenth of the epoch; its time does not count.
    """
    accelerator = prepared.accelerator
    model = accelerator.unwrap_model(prepared.wrapped).model
    epoch = len(history)
    step = history[-1]["steps"] if history else 0
    seconds = history[-1]["seconds"] if history else 0.0
    steps_per_epoch = max(1, len(data.train) // recipe.batch_size)
    img_size = model.patch_embed.img_size[0]
    shown = batches(data, epoch, recipe, img_size, seed, accelerator.device)
    title = f"epoch {epoch + 1}" + ("" if recipe.seconds else f" of {recipe.epochs}")
    losses = []
    seed_everything(1_000_003 * seed + epoch)
    model.train()
    start = time.perf_counter()
    hidden = no_bar() or callback is not None  # a callback shows how far it is
    for batch in tqdm(shown, title, steps_per_epoch, leave=False, delay=5, disable=hidden):
        rate = learning_rate(recipe, step, steps_per_epoch, seconds)
        _set_patch_drop(model, recipe, epoch, seconds)
        losses.append(_train_step(prepared, batch, rate))
        step += 1
        seconds += time.perf_counter() - start
        out_of_time = 0 < recipe.seconds <= seconds
        if callback and (out_of_time or _is_tenth(len(losses), steps_per_epoch)):
            callback(model, seconds, step)
        if out_of_time:
            break
        start = time.perf_counter()
    batch_losses = accelerator.reduce(torch.stack(losses), "mean").cpu()
    _refuse_infinite(batch_losses, data, recipe, seed, epoch)
    loss = float(batch_losses.mean())
    return {"epoch": epoch + 1, "steps": step, "seconds": seconds, "lr": rate, "train_loss": loss}


def _set_patch_drop(model: nn.Module, recipe: Recipe, epoch: int, seconds: float) -> None:
    """Drop the recipe's share of patch tokens, and none in the last part of the schedule."""
    if not hasattr(model.patch_drop, "prob"):
        return  # a model that was built without PatchDropout
    done = epoch / recipe.epochs
    if recipe.seconds:
        done = seconds / recipe.seconds
    is_last_epoch = epoch + 1 == recipe.epochs and not recipe.seconds
    in_last_part = done >= 1 - recipe.full_tokens or (is_last_epoch and recipe.full_tokens > 0)
    model.patch_drop.prob = 0.0 if in_last_part else recipe.patch_drop


def _train_step(prepared: Prepared, batch: Batch, rate: float) -> Tensor:
    """Take one step; returns the loss, detached, of this process's part of the batch."""
    accelerator = prepared.accelerator
    for group in prepared.optimizer.param_groups:
        group["lr"] = rate
    if accelerator.num_processes == 1:
        loss = prepared.wrapped(batch)  # in bfloat16 where Accelerator was told so
    else:
        loss = _loss_of_share(prepared, batch)
    accelerator.backward(loss)
    prepared.optimizer.step()
    prepared.optimizer.zero_grad()
    return loss.detach().float()


def _loss_of_share(prepared: Prepared, batch: Batch) -> Tensor:
    """The loss of this process's images, weighted so that the processes' mean is the batch's."""
    process = prepared.accelerator.process_index
    processes = prepared.accelerator.num_processes
    share = ProcessShare(process, processes, len(batch.indices))
    batch = batch._replace(
        inputs=batch.inputs[share.part],
        targets=batch.targets[share.part],
        indices=batch.indices[share.part],
    )
    with share:
        loss = prepared.wrapped(batch)
    return loss * share.weight


def _is_tenth(steps: int, steps_per_epoch: int) -> bool:
    """Whether this step ends a tenth of the epoch; the last step always does."""
    tenths_before = (steps - 1) * 10 // steps_per_epoch
    return steps * 10 // steps_per_epoch > tenths_before


def _refuse_infinite(losses: Tensor, data: Dataset, recipe: Recipe, seed: int, epoch: int) -> None:
    """Raise a SwysError that names the first step whose loss is not finite, and its images."""
    if losses.isfinite().all():
        return
    first = int(losses.isfinite().int().argmin())
    indices = batch_indices(len(data.train), recipe, epoch, seed)[first]
    where = (
        f"step {first + 1} of epoch {epoch + 1}, training images {indices[:4].tolist()} and more"
    )
    raise SwysError(
        f"loss {losses[first]} at {where}; lower the rate ({recipe.lr}) or mend them"
        " (a saved state is older)"
    )


def validate(model: VisionTransformer, data: Dataset) -> dict[str, float]:
    """Score the validation split.

    Args:
        model: is asked in eval mode.
        data: its validation split is scored.

    Returns:
        ``val_accuracy``, ``val_auc`` and ``val_ece``, fractions.
    """
    logits = predict(model, data.val.images, bf16=True)
    scores = point_scores(logits, data.val.labels, data.info.task)
    return {f"val_{name}": score for name, score in scores.items()}


def best_epoch(history: list[dict]) -> dict:
    """The row that validation chooses: the best accuracy, then the best AUC, then the earliest.

    Args:
        history: rows of at least one epoch.
    """
    return max(history, key=lambda row: (row["val_accuracy"], row["val_auc"], -row["epoch"]))


def finished(history: list[dict], recipe: Recipe) -> bool:
    """Whether the schedule ends after these epochs.

    Args:
        history: rows of the epochs so far.
        recipe: its schedule, in epochs or in seconds.
    """
    if recipe.seconds:
        return bool(history) and history[-1]["seconds"] >= recipe.seconds
    return len(history) >= recipe.epochs


def run_card(data: Dataset, recipe: dict, seed: int, history: list[dict]) -> dict:
    """What the card of a checkpoint says about the run.

    Args:
        data: what the model was trained on.
        recipe: the fields of the recipe.
        seed: of the run.
        history: one row an epoch.
    """
    return {
        "dataset": data.info.name,
        "size": data.info.size,
        "source": data.info.source,
        "synthetic": data.info.synthetic,
        "splits": {"train": len(data.train), "val": len(data.val), "test": len(data.test)},
        "seed": seed,
        "recipe": recipe,
        "history": history,
    }


@torch.no_grad()
def predict(
    model: VisionTransformer, images: np.ndarray, batch_size: int = 64, bf16: bool = False
) -> np.ndarray:
    """Logits of images in eval mode, on the model's device.

    Args:
        model: a timm ViT; its training mode is as before afterwards.
        images: uint8 (N, H, W) or (N, H, W, 3).
        batch_size: number of images at once.
        bf16: compute in bfloat16 where the device has it, as validation during training does.

    Returns:
        float32 (N, C).

    Raises:
        SwysError: no images.
    """
    if not len(images):
        raise SwysError("no images to predict; give at least one")
    device = next(model.parameters()).device
    use_bf16 = bf16 and fast_bf16(device)
    shown = input_batches(model, images, batch_size)
    count = math.ceil(len(images) / batch_size)
    hidden = no_bar() or count == 1
    logits = []
    with evaluation_mode(model), torch.autocast(device.type, torch.bfloat16, use_bf16):
        for _, inputs in tqdm(shown, "predicting", count, leave=False, delay=5, disable=hidden):
            logits.append(model(inputs).float())
    return torch.cat(logits).cpu().numpy()
