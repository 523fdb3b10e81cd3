"""One recipe, one training loop and one prediction path for every model of the series."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import asdict
from itertools import islice

import numpy as np
import torch
from accelerate import Accelerator
from timm.models.vision_transformer import VisionTransformer
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn
from tqdm import tqdm

from . import models
from .config import SwysError, default_device, fast_bf16, seed_everything
from .data import Dataset, to_model_input
from .metrics import point_scores
from .processes import ProcessShare
from .recipe import Batch, Recipe, SupervisedObjective, batches, learning_rate
from .resume import TrainingState
from .vit_internals import evaluation_mode, plain_attention


def build(name: str, data: Dataset, recipe: Recipe, seed: int = 0, **geometry) -> VisionTransformer:
    """``create_model`` (geometry: img_size, patch_size, ...) with the initial weights of ``seed``."""
    seed_everything(seed)
    rates = {"drop_path_rate": recipe.drop_path, "patch_drop_rate": recipe.patch_drop}
    return models.create_model(name, data.info.num_classes, **rates, **geometry)


def fit(
    model,
    data: Dataset,
    recipe: Recipe,
    objective=None,
    *,
    seed=0,
    device=None,
    state_path=None,
    callback=None,
) -> TrainingState:
    """Train ``model`` by ``recipe`` on a CPU, one GPU, or several under ``accelerate launch``.

    Each epoch's randomness follows from (seed, epoch), so a resumed run repeats an uninterrupted one.

    Args:
        model: a timm ViT, trained in place. seed: of the order of images and their views.
        objective: nn.Module, called as ``objective(model, batch)``; default: :class:`SupervisedObjective`.
        state_path: file that keeps an unfinished run; when it is there, the run goes on from it.
        callback: called as ``callback(model, seconds, step)`` after each tenth of an epoch and at the end.

    One process trains on one device (of several GPUs, Accelerate chooses). Raises SwysError: a state of
    another recipe or model, an objective that does not fit the model, an unwritable path, a loss that is not
    finite, more processes than images in a batch.
    """
    device = torch.device(device or default_device())
    accelerator = Accelerator(
        mixed_precision="bf16" if fast_bf16(device) else "no", cpu=device.type == "cpu"
    )
    if accelerator.device.type != device.type:
        raise SwysError(
            f"this process trains on {accelerator.device} already; restart it to use {device}"
        )
    if (processes := accelerator.num_processes) > min(recipe.batch_size, len(data.train)):
        raise SwysError(f"{processes} processes share batches of {recipe.batch_size}; enlarge them")
    if processes > 1 and recipe.seconds:
        raise SwysError(
            f"{processes} processes have {processes} clocks; train by epochs, with seconds=0"
        )
    objective = objective or SupervisedObjective(data.info.multi_label)
    if hasattr(objective, "check"):
        objective.check(model)
    both = ModelAndObjective(model, objective).to(accelerator.device)
    groups = param_groups_weight_decay(both, recipe.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=recipe.lr, fused=True)
    both, optimizer = accelerator.prepare(both, optimizer)
    settings = {
        key: v for key, v in vars(objective).items() if isinstance(v, (int, float))
    }  # alpha, ...
    settings.pop("training", None)
    teacher = getattr(getattr(objective, "teacher", None), "model", None)
    facts = {"recipe": asdict(recipe), "seed": seed, "data": data.info.results_name}
    facts |= {"images": len(data.train), "objective": type(objective).__name__, **settings}
    facts["teacher"] = models.weights_digest(teacher) if teacher is not None else ""
    run = TrainingState(state_path, model, objective, optimizer, facts)
    while not finished(run.history, recipe):
        row = train_epoch(both, optimizer, accelerator, data, recipe, seed, run.history, callback)
        run.history.append(row | validate(model, data))
        if run.history[-1] is best_epoch(run.history):
            run.best = {key: value.detach().clone() for key, value in model.state_dict().items()}
        if accelerator.is_main_process:
            run.save(now=finished(run.history, recipe))
    model.eval()
    return run


def run_card(data: Dataset, recipe: dict, seed: int, history: list[dict]) -> dict:
    """What a checkpoint's card says of a run; ``recipe``: its fields."""
    facts = {key: getattr(data.info, key) for key in ("size", "source", "synthetic")}
    splits = {name: len(getattr(data, name)) for name in ("train", "val", "test")}
    run = {"seed": seed, "recipe": recipe, "history": history}
    return {"dataset": data.info.name, **facts, "splits": splits, **run}


def train_epoch(
    both,
    optimizer,
    accelerator,
    data: Dataset,
    recipe: Recipe,
    seed: int,
    history: list[dict],
    callback,
) -> dict:
    """One epoch more; returns its row of the history. ``both``: model and objective, wrapped."""
    model, device, epoch, losses = (
        accelerator.unwrap_model(both).model,
        accelerator.device,
        len(history),
        [],
    )
    step, seconds = (history[-1]["steps"], history[-1]["seconds"]) if history else (0, 0.0)
    steps = max(1, len(data.train) // recipe.batch_size)
    shown = batches(data, epoch, recipe, model.patch_embed.img_size[0], seed, device)
    process, processes = accelerator.process_index, accelerator.num_processes
    seed_everything(1_000_003 * seed + epoch)
    model.train()
    start = time.perf_counter()
    with plain_attention(both) if device.type == "cpu" else nullcontext():
        for batch in tqdm(
            shown, f"epoch {epoch + 1} of {recipe.epochs}", steps, leave=False, disable=None
        ):
            mine = ProcessShare(process, processes, len(batch.indices))
            rate = learning_rate(recipe, step, steps, seconds)
            if hasattr(model.patch_drop, "prob"):
                done = seconds / recipe.seconds if recipe.seconds else epoch / recipe.epochs
                model.patch_drop.prob = recipe.patch_drop if done < 1 - recipe.full_tokens else 0.0
            for group in optimizer.param_groups:
                group["lr"] = rate
            with mine:  # in bfloat16 where Accelerator was told so
                loss = both(Batch(*(part[mine.rows] for part in batch[:3]), view=batch.view))
            accelerator.backward(loss * mine.weight)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.detach().float() * mine.weight)
            step, seconds = step + 1, seconds + time.perf_counter() - start
            ends = 0 < recipe.seconds <= seconds
            if callback and (ends or (steps - len(losses)) % max(1, steps // 10) == 0):
                callback(model, seconds, step)
            start = time.perf_counter()
            if ends:
                break
    values = accelerator.reduce(torch.stack(losses), "mean").cpu()
    if not values.isfinite().all():
        first = int(values.isfinite().int().argmin())
        rows = next(islice(batches(data, epoch, recipe, 28, seed), first, None)).rows[:4].tolist()
        found = f"{values[first]} at step {first + 1} of epoch {epoch + 1}, training images {rows} and more"
        raise SwysError(
            f"loss {found}; lower the rate ({recipe.lr}) or mend them (a saved state is older)"
        )
    loss = float(values.mean())
    return {"epoch": epoch + 1, "steps": step, "seconds": seconds, "lr": rate, "train_loss": loss}


def validate(model: VisionTransformer, data: Dataset) -> dict[str, float]:
    """Accuracy, AUC and ECE on the validation split, under the names of a row of the history."""
    logits = predict(model, data.val.images, bf16=True)
    return {f"val_{k}": v for k, v in point_scores(logits, data.val.labels, data.info.task).items()}


def best_epoch(history: list[dict]) -> dict:
    """The row that validation chooses: the best accuracy, then the best AUC, then the earliest."""
    return max(history, key=lambda row: (row["val_accuracy"], row["val_auc"], -row["epoch"]))


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
def predict(model, images: np.ndarray, batch_size: int = 64, bf16: bool = False) -> np.ndarray:
    """Logits of uint8 images (N, H, W[, 3]) as float32 (N, C), in eval mode, on the model's device.

    ``bf16``: compute in bfloat16 where the device has it (validation during training)."""
    size, device = model.patch_embed.img_size[0], next(model.parameters()).device
    starts = tqdm(
        range(0, len(images), batch_size), "predicting", leave=False, delay=5, disable=None
    )
    with (
        evaluation_mode(model),
        torch.autocast(device.type, torch.bfloat16, bf16 and fast_bf16(device)),
    ):
        logits = [
            model(to_model_input(images[i : i + batch_size], size, device)).float() for i in starts
        ]
    return torch.cat(logits).cpu().numpy()
