"""The earlier project of this name as it trained: ViT-Tiny at 224 px from its own loader, in float32; and
how long this series needs to get as far."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import Compose, Normalize, Resize, ToTensor

from swys_utils.config import SwysError, default_device, device_name, seed_everything, write_json
from swys_utils.data import Split
from swys_utils.metrics import point_scores
from swys_utils.models import create_model, save_checkpoint
from swys_utils.resume import Run
from swys_utils.training import best_epoch, predict, validate

from .reference import RUNS, read_runs, study_data, write_runs

MODEL = "vit_tiny_patch16_224"
# of its README: AdamW, the rate halved every five epochs, stopped after three without progress
RECIPE = {"epochs": 30, "batch_size": 64, "lr": 1e-5, "step_epochs": 5, "patience": 3}


def original(dataset: str = "pneumoniamnist", folder: str = "") -> None:
    """Train the earlier project's Tiny with its own pipeline; hours on a CPU, safe to kill, goes on where it
    stopped.

    Args:
        dataset: any data set of the reference set.
        folder: where runs are kept; default: runs/<dataset>.
    """
    data, out, device = study_data(dataset), Path(folder or RUNS / dataset), default_device()
    run_id = f"{MODEL}/original/seed0"
    seed_everything(0)
    model = create_model(MODEL, data.info.num_classes).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RECIPE["lr"])
    run = Run(out / f"{run_id}.state.pt", model, torch.nn.Module(), optimizer, RECIPE)
    while len(run.history) < RECIPE["epochs"] and not stopped(run.history, RECIPE["patience"]):
        before = run.history[-1]["seconds"] if run.history else 0.0
        row = epoch(model, optimizer, data.train, len(run.history), before)
        run.history.append(row | validate(model, data))
        if run.history[-1] is best_epoch(run.history):
            run.best = {key: value.clone() for key, value in model.state_dict().items()}
        run.save(now=True)
        print(run.history[-1], flush=True)
    trained = {"last": model, "val_chosen": run.chosen()}
    logits = {when: predict(network, data.test.images) for when, network in trained.items()}
    entry = {"id": run_id, "method": "original", "teacher": None, "seed": 0, "recipe": RECIPE}
    entry |= {"model": MODEL, "img_size": 224, "patch_size": 16}
    entry |= {
        **{key: run.history[-1][key] for key in ("val_accuracy", "val_auc", "seconds")},
        **{when: point_scores(values, data.test.labels, data.info.task) for when, values in logits.items()},
        "history": run.history,
        "predicted": "".join(np.base_repr(c, 36) for c in logits["last"].argmax(axis=1)),
        "device": f"{device_name(device)}, {torch.get_num_threads()} threads",
    }
    facts = {"dataset": data.info.name, "source": data.info.source, "size": data.info.size}
    save_checkpoint(model, out / f"{run_id}.safetensors", facts | entry)
    write_json(out / f"{run_id}.run.json", entry)
    run.path.unlink()
    write_runs(dataset, out)


def epoch(model, optimizer, split: Split, number: int, seconds: float) -> dict:
    """One epoch of the earlier project's loop, ``seconds`` after the start; returns its row of the history.

    Images are resized one by one on the host, as torchvision's transforms do it.
    """
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
        loss = F.cross_entropy(model(inputs.to(device)), targets.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    seconds += time.perf_counter() - start
    steps = (number + 1) * len(loader)
    return {"epoch": number + 1, "steps": steps, "seconds": seconds, "train_loss": total / len(loader)}


def stopped(history: list[dict], patience: int) -> bool:
    """No better validation accuracy in the last ``patience`` epochs?"""
    accuracies = [row["val_accuracy"] for row in history]
    return len(history) > patience and max(accuracies[-patience:]) <= max(accuracies[:-patience])


def time_to_original(dataset: str = "pneumoniamnist", folder: str = "") -> dict:
    """How many times sooner validation AUC is what the original ends with; SwysError without both runs."""
    runs = {run["id"]: run for run in read_runs(Path(folder or RUNS / dataset))}
    try:
        theirs, ours = runs[f"{MODEL}/original/seed0"], runs["vit_tiny/scratch/seed0"]
    except KeyError as error:
        raise SwysError(f"run {error} is missing; use 'swys study original' or 'reference'") from None
    if theirs["device"] != ours["device"]:
        raise SwysError(f"timed on {theirs['device']} and on {ours['device']}; time both on one machine")
    reached = next((row for row in ours["history"] if row["val_auc"] >= theirs["val_auc"]), None)
    if reached is None:
        raise SwysError(f"{ours['id']} never reaches a validation AUC of {theirs['val_auc']:.3f}")
    found = {"original_seconds": theirs["seconds"], "original_test_auc": theirs["last"]["auc"]}
    found |= {"seconds": reached["seconds"], "test_auc": reached.get("test_auc"), "epoch": reached["epoch"]}
    found["ratio"] = theirs["seconds"] / reached["seconds"]
    print(found)
    return found
