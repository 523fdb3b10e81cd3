"""The earlier project of this name as it trained: ViT-Tiny at 224 px from its own loader, in float32; and
how long this series needs to get as far."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.transforms import functional as tv

from swys_utils.config import SwysError, default_device, device_name, seed_everything, write_json
from swys_utils.data import Split
from swys_utils.metrics import point_scores
from swys_utils.models import create_model, save_checkpoint
from swys_utils.resume import UnfinishedRun
from swys_utils.training import best_epoch, predict, run_card, validate

from .reference import RUNS, read_runs, study_data, write_runs

MODEL = "vit_tiny_patch16_224"


@dataclass(frozen=True)
class Original:
    """The recipe of its README: AdamW, the rate halved every five epochs, stopped after three without
    progress."""

    epochs: int = 30
    batch_size: int = 64
    lr: float = 1e-5
    step_epochs: int = 5
    patience: int = 3


class PilImages(torch.utils.data.Dataset):
    """Images resized one by one on the host, as torchvision's Resize, ToTensor and Normalize(0.5, 0.5) do."""

    def __init__(self, split: Split, size: int = 224):
        self.split, self.size = split, size

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int):
        image = Image.fromarray(self.split.images[index]).convert("RGB")
        image = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        return tv.normalize(tv.to_tensor(image), [0.5] * 3, [0.5] * 3), self.split.labels[index]


def original(dataset: str = "pneumoniamnist", folder: str = "") -> None:
    """Train the earlier project's Tiny with its own pipeline; hours on a CPU, safe to kill, goes on where it
    stopped.

    Args:
        dataset: any data set of the reference set.
        folder: where runs are kept; default: runs/<dataset>.
    """
    data, recipe, out = study_data(dataset), Original(), Path(folder or RUNS / dataset)
    device, run_id = default_device(), f"{MODEL}/original/seed0"
    seed_everything(0)
    model = create_model(MODEL, data.info.num_classes).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr)
    state_path = out / f"{run_id}.state.pt"
    run = UnfinishedRun(state_path, model, torch.nn.Module(), optimizer, asdict(recipe))
    while len(run.history) < recipe.epochs and not stopped(run.history, recipe.patience):
        row = epoch(model, optimizer, data.train, recipe, len(run.history), device)
        before = run.history[-1]["seconds"] if run.history else 0.0
        row["seconds"] += before
        run.history.append(row | validate(model, data))
        if run.history[-1] is best_epoch(run.history):
            run.best = {key: value.clone() for key, value in model.state_dict().items()}
        run.save(now=True)
        print(run.history[-1], flush=True)
    scores = {}
    for when, weights in (("last", model.state_dict()), ("val_chosen", run.best)):
        model.load_state_dict(weights)
        logits = predict(model, data.test.images)
        scores[when] = point_scores(logits, data.test.labels, data.info.task)
        if when == "last":
            predicted = "".join(np.base_repr(c, 36) for c in logits.argmax(axis=1))
    last = run.history[-1]
    entry = {
        "id": run_id,
        "model": MODEL,
        "img_size": 224,
        "patch_size": 16,
        "method": "original",
        "teacher": None,
    }
    entry |= {
        "seed": 0,
        "recipe": asdict(recipe),
        "val_accuracy": last["val_accuracy"],
        "val_auc": last["val_auc"],
    }
    entry |= scores | {"seconds": last["seconds"], "history": run.history, "predicted": predicted}
    entry |= {"device": f"{device_name(device)}, {torch.get_num_threads()} threads"}
    save_checkpoint(model, out / f"{run_id}.safetensors", run_card(data, recipe, 0, run.history) | entry)
    write_json(out / f"{run_id}.run.json", entry)
    state_path.unlink()
    write_runs(dataset, out)


def epoch(model, optimizer, split: Split, recipe: Original, number: int, device) -> dict:
    """One epoch of the earlier project's loop; returns its row of the history."""
    seed_everything(number)
    loader = torch.utils.data.DataLoader(PilImages(split), batch_size=recipe.batch_size, shuffle=True)
    for group in optimizer.param_groups:
        group["lr"] = recipe.lr * 0.5 ** (number // recipe.step_epochs)
    model.train()
    start, total = time.perf_counter(), 0.0
    for inputs, targets in loader:
        loss = F.cross_entropy(model(inputs.to(device)), targets.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    seconds = time.perf_counter() - start
    steps = (number + 1) * len(loader)
    return {"epoch": number + 1, "steps": steps, "seconds": seconds, "train_loss": total / len(loader)}


def stopped(history: list[dict], patience: int) -> bool:
    """No better validation accuracy in the last ``patience`` epochs?"""
    accuracies = [row["val_accuracy"] for row in history]
    return len(history) > patience and max(accuracies[-patience:]) <= max(accuracies[:-patience])


def time_to_original(dataset: str = "pneumoniamnist", folder: str = "") -> dict:
    """Seconds of training until validation AUC is what the original ends with, as a ratio to the original's
    seconds.

    Raises:
        SwysError: a run that is compared is missing.
    """
    runs = {run["id"]: run for run in read_runs(Path(folder or RUNS / dataset))}
    try:
        theirs, ours = runs[f"{MODEL}/original/seed0"], runs["vit_tiny/scratch/seed0"]
    except KeyError as error:
        raise SwysError(
            f"run {error} is missing; train it with 'swys study original' or 'reference'"
        ) from None
    reached = next((row for row in ours["history"] if row["val_auc"] >= theirs["val_auc"]), None)
    if reached is None:
        raise SwysError(f"{ours['id']} never reaches a validation AUC of {theirs['val_auc']:.3f}")
    found = {"original_seconds": theirs["seconds"], "original_test_auc": theirs["last"]["auc"]}
    found |= {"seconds": reached["seconds"], "test_auc": reached.get("test_auc"), "epoch": reached["epoch"]}
    found["ratio"] = theirs["seconds"] / reached["seconds"]
    print(found)
    return found
