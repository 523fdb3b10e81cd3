"""The earlier project of this name as it trained: ViT-Tiny at 224 px from its own loader; and how long this
series needs to get as far."""

from __future__ import annotations

import time
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import Compose, Normalize, Resize, ToTensor

from swys_utils.config import (
    CHECKPOINTS,
    SwysError,
    default_device,
    device_name,
    fast_bf16,
    seed_everything,
)
from swys_utils.data import Split
from swys_utils.metrics import point_scores
from swys_utils.models import create_model
from swys_utils.recipe import Augmentation, Recipe
from swys_utils.resume import TrainingState
from swys_utils.training import best_epoch, build, fit, predict, validate
from swys_utils.vit_internals import plain_attention

from .reference import finish, study_data
from .runs import RUNS, read_runs, write_runs

MODEL = "vit_tiny_patch16_224"
# of its README: AdamW, the rate halved every five epochs, stopped after three without progress
RECIPE = {"epochs": 30, "batch_size": 64, "lr": 1e-5, "step_epochs": 5, "patience": 3}


def original(dataset: str = "pneumoniamnist", folder: str = "") -> None:
    """Train the earlier project's Tiny with its own pipeline, but in bfloat16 where the device has it, three
    times faster on a CPU; safe to kill, goes on where it stopped.

    Args:
        dataset: any data set of the reference set.
        folder: where runs are kept; default: runs/<dataset>.
    """
    data, out, device = study_data(dataset), Path(folder or RUNS / dataset), default_device()
    run_id = f"{MODEL}/original/seed0"
    if run_id in [done["id"] for done in read_runs(out)]:
        return print(f"{run_id} is done")
    seed_everything(0)
    model = create_model(MODEL, data.info.num_classes).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RECIPE["lr"])
    run = TrainingState(out / f"{run_id}.state.pt", model, torch.nn.Module(), optimizer, RECIPE)
    while len(run.history) < RECIPE["epochs"] and not stopped(run.history, RECIPE["patience"]):
        before = run.history[-1]["seconds"] if run.history else 0.0
        with plain_attention(model):
            row = epoch(model, optimizer, data.train, len(run.history), before, fast_bf16(device))
        run.history.append(row | validate(model, data))
        if run.history[-1] is best_epoch(run.history):
            run.best = {key: value.clone() for key, value in model.state_dict().items()}
        run.save(now=True)
        print(run.history[-1], flush=True)
    facts = {
        "id": run_id,
        "model": MODEL,
        "method": "original",
        "teacher": None,
        "seed": 0,
        "recipe": RECIPE,
    }
    finish(run, facts | {"history": run.history}, data, out)
    write_runs(dataset, out)
    run.path.unlink()


def epoch(model, optimizer, split: Split, number: int, seconds: float, bf16: bool) -> dict:
    """One epoch of the earlier project's loop, which resizes images one by one on the host; returns its row
    of the history. ``seconds``: of training before it."""
    seed_everything(number)
    resize = Compose([Resize((224, 224)), ToTensor(), Normalize([0.5] * 3, [0.5] * 3)])

    def collate(rows: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        pixels = [resize(Image.fromarray(split.images[row]).convert("RGB")) for row in rows]
        return torch.stack(pixels), torch.as_tensor(split.labels[rows])

    loader = DataLoader(range(len(split)), RECIPE["batch_size"], shuffle=True, collate_fn=collate)
    for group in optimizer.param_groups:
        group["lr"] = RECIPE["lr"] * 0.5 ** (number // RECIPE["step_epochs"])
    model.train()
    start, total, device = time.perf_counter(), 0.0, next(model.parameters()).device
    for inputs, targets in loader:
        with torch.autocast(device.type, torch.bfloat16, bf16):
            loss = F.cross_entropy(model(inputs.to(device)), targets.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    seconds += time.perf_counter() - start
    steps = (number + 1) * len(loader)
    return {
        "epoch": number + 1,
        "steps": steps,
        "seconds": seconds,
        "train_loss": total / len(loader),
    }


def stopped(history: list[dict], patience: int) -> bool:
    """No better validation accuracy in the last ``patience`` epochs?"""
    accuracies = [row["val_accuracy"] for row in history]
    return len(history) > patience and max(accuracies[-patience:]) <= max(accuracies[:-patience])


def time_to_original(dataset: str = "pneumoniamnist", runs: str = "", seconds: float = 60) -> dict:
    """How many times sooner Tiny's validation AUC is what the original ends with, both timed here.

    The original's time is that of one epoch in float32, measured, times the epochs of its run.

    Args:
        dataset: any data set of the reference set.
        runs: where the original's run is; default: checkpoints/<dataset>/runs.json.
        seconds: of Tiny's schedule, which is that of notebook 3 (28 px in patches of 7).
    """
    path, run_id = Path(runs or CHECKPOINTS / dataset / "runs.json"), f"{MODEL}/original/seed0"
    theirs = next((run for run in read_runs(path) if run["id"] == run_id), None)
    if theirs is None:
        raise SwysError(f"'{path}' has no run {run_id}; train it with 'swys study original'")
    data, device, curve = study_data(dataset), default_device(), []
    model = create_model(MODEL, data.info.num_classes).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RECIPE["lr"])
    one_epoch = epoch(model, optimizer, data.train, 0, 0.0, bf16=False)["seconds"]

    def callback(tiny, at: float, step: int) -> None:
        test = point_scores(predict(tiny, data.test.images), data.test.labels, data.info.task)
        curve.append({"seconds": at, "test_auc": test["auc"]} | validate(tiny, data))

    gentle = Augmentation(flip=True, shift=0.1)
    recipe = Recipe(batch_size=32, lr=5e-4, augmentation=gentle, drop_path=0, seconds=seconds)
    fit(
        build("vit_tiny", data, recipe, patch_size=7),
        data,
        recipe,
        device=device,
        callback=callback,
    )
    ours = next((row for row in curve if row["val_auc"] >= theirs["val_auc"]), None)
    if ours is None:
        best, goal = max(row["val_auc"] for row in curve), theirs["val_auc"]
        raise SwysError(
            f"{seconds} s reach validation AUC {best:.3f}, not {goal:.3f}; raise --seconds"
        )
    found: dict = {"device": f"{device_name(device)}, {torch.get_num_threads()} threads"}
    found |= {"tiny": ours, "tiny_at_its_end": curve[-1]}
    found["original"] = {
        "epochs": len(theirs["history"]),
        "epoch_seconds": one_epoch,
        **theirs["last"],
    }
    found["ratio"] = one_epoch * len(theirs["history"]) / ours["seconds"]
    print(found)
    return found
