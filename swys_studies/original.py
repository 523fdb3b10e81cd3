"""The earlier project of this name as it trained, and how long this series needs to get as far.

The earlier project trained ViT-Tiny at 224 px from its own loader, which resizes images one by one.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.optim import Optimizer
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
from swys_utils.data import Dataset, Split
from swys_utils.metrics import point_scores
from swys_utils.models import create_model
from swys_utils.recipe import Recipe
from swys_utils.resume import TrainingState
from swys_utils.training import best_epoch, build, fit, predict, validate
from swys_utils.views import Augmentation
from swys_utils.vit_internals import plain_attention

from .reference import one_label_data
from .run_scores import finish
from .runs import RUNS, finished_runs, read_runs, write_runs

MODEL = "vit_tiny_patch16_224"
RUN_ID = f"{MODEL}/original/seed0"
# of its README: AdamW, the rate halved every five epochs, stopped after three without progress
RECIPE = {
    "epochs": 30,
    "batch_size": 64,
    "lr": 1e-5,
    "step_epochs": 5,
    "patience": 3,
}


def original(dataset: str = "pneumoniamnist", folder: str = "") -> None:
    """Train the earlier project's Tiny with its own pipeline.

    A run that is finished, also a shipped one, is not trained again.

    Only the arithmetic is not its own: bfloat16 where the device has it, three times faster on a
    CPU. Safe to kill: the same command goes on where it stopped.

    Args:
        dataset: any data set of the reference set.
        folder: where runs are kept; default: runs/<dataset>.

    Raises:
        SwysError: no real images, several labels an image, or a state of other images.
    """
    data = one_label_data(dataset)
    out = Path(folder or RUNS / dataset)
    state_path = out / f"{RUN_ID}.state.pt"
    if RUN_ID in finished_runs(dataset, out):
        write_runs(dataset, out)  # also after a kill just before
        state_path.unlink(missing_ok=True)
        print(f"{RUN_ID} is done")
        return

    seed_everything(0)
    model, optimizer = model_and_optimizer(data)
    no_objective = torch.nn.Module()  # the loop below has its own loss, without anything to learn
    settings = RECIPE | {"data": data.info.results_name, "images": len(data.train)}
    state = TrainingState(state_path, model, no_objective, optimizer, settings)
    while not finished(state.history):
        train_epoch(state, optimizer, data)

    entry = {
        "id": RUN_ID,
        "model": MODEL,
        "method": "original",
        "teacher": None,
        "seed": 0,
        "recipe": RECIPE,
        "history": state.history,
    }
    finish(state, entry, data, out)
    write_runs(dataset, out)
    state_path.unlink()


def find_run(path: Path) -> dict | None:
    """The entry of the earlier project's run.

    Args:
        path: a folder of runs, or a runs.json.

    Returns:
        The entry, or None when the run is not there.
    """
    for run in read_runs(path):
        if run["id"] == RUN_ID:
            return run
    return None


def model_and_optimizer(data: Dataset) -> tuple[VisionTransformer, Optimizer]:
    """The earlier project's model with random weights, on the device, and its optimizer.

    Args:
        data: the model gets its number of classes.

    Returns:
        ViT-Tiny at 224 px, and AdamW.
    """
    model = create_model(MODEL, data.info.num_classes)
    model = model.to(default_device())
    optimizer = torch.optim.AdamW(model.parameters(), lr=RECIPE["lr"])
    return model, optimizer


def finished(history: list[dict]) -> bool:
    """Whether the earlier project would stop after these epochs.

    Args:
        history: one row for each epoch, with ``val_accuracy``.

    Returns:
        True after all epochs of its recipe, or when ``stopped`` says so.
    """
    if len(history) >= RECIPE["epochs"]:
        return True
    return stopped(history, patience=int(RECIPE["patience"]))


def stopped(history: list[dict], patience: int) -> bool:
    """Whether validation accuracy has not risen for some epochs.

    Args:
        history: one row for each epoch, with ``val_accuracy``.
        patience: number of epochs, 1 or more.

    Returns:
        True when none of the last ``patience`` epochs is better than the best one before them.
    """
    if len(history) <= patience:
        return False
    accuracies = [row["val_accuracy"] for row in history]
    return max(accuracies[-patience:]) <= max(accuracies[:-patience])


def train_epoch(state: TrainingState, optimizer: Optimizer, data: Dataset) -> None:
    """Train one epoch more, validate, and save the state.

    Args:
        state: of the run; changed in place.
        optimizer: of the model's parameters.
        data: trained on its training split, validated on its validation split.
    """
    history = state.history
    seconds = 0.0
    if history:
        seconds = history[-1]["seconds"]
    bf16 = fast_bf16(default_device())
    with plain_attention(state.model):
        row = epoch(state.model, optimizer, data.train, len(history), seconds, bf16)
    row |= validate(state.model, data)
    history.append(row)
    if row is best_epoch(history):
        state.keep_best()
    state.save(now=True)
    print(row, flush=True)


def epoch(
    model: VisionTransformer,
    optimizer: Optimizer,
    split: Split,
    number: int,
    seconds: float,
    bf16: bool,
) -> dict:
    """One epoch of the earlier project's loop.

    Args:
        model: reads 224 px; trained in place.
        optimizer: of its parameters.
        split: to train on.
        number: of epochs before this one.
        seconds: of training before this epoch.
        bf16: compute in bfloat16.

    Returns:
        The epoch's row of the history: epoch, steps, seconds, train_loss.
    """
    seed_everything(number)
    loader = image_loader(split)
    for group in optimizer.param_groups:
        group["lr"] = RECIPE["lr"] * 0.5 ** (number // RECIPE["step_epochs"])
    device = next(model.parameters()).device
    model.train()
    total = 0.0
    start = time.perf_counter()
    for inputs, targets in loader:
        with torch.autocast(device.type, torch.bfloat16, bf16):
            logits = model(inputs.to(device))
            loss = F.cross_entropy(logits, targets.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    seconds += time.perf_counter() - start
    return {
        "epoch": number + 1,
        "steps": (number + 1) * len(loader),
        "seconds": seconds,
        "train_loss": total / len(loader),
    }


def image_loader(split: Split) -> DataLoader:
    """The earlier project's loader: it resizes images one by one, on the host.

    Args:
        split: images and labels.

    Returns:
        Batches in random order: inputs, float32 (B, 3, 224, 224) in [-1, 1], and labels, int64
        (B,).
    """
    transform = Compose(
        [
            Resize((224, 224)),
            ToTensor(),
            Normalize([0.5] * 3, [0.5] * 3),
        ]
    )

    def collate(indices: list[int]) -> tuple[Tensor, Tensor]:
        inputs = []
        for index in indices:
            image = Image.fromarray(split.images[index])
            inputs.append(transform(image.convert("RGB")))
        labels = torch.as_tensor(split.labels[indices])
        return torch.stack(inputs), labels

    return DataLoader(
        range(len(split)),
        RECIPE["batch_size"],
        shuffle=True,
        collate_fn=collate,
    )


def time_to_original(
    dataset: str = "pneumoniamnist",
    runs: str = "",
    seconds: float = 60,
) -> dict:
    """How many times sooner Tiny has the validation AUC that the original ends with.

    Both are timed here. The original's time is that of one epoch in float32, measured, times the
    epochs of its run.

    Args:
        dataset: any data set of the reference set.
        runs: where the original's run is; default: checkpoints/<dataset>/runs.json.
        seconds: of the schedule of a Tiny of 28 px in patches of 7.

    Returns:
        The device; Tiny's scores when it is as good, and at its end; the original's epochs, seconds
        an epoch and scores; and the ratio.

    Raises:
        SwysError: the original's run is not there, or Tiny is not as good within ``seconds``.
    """
    path = Path(runs or CHECKPOINTS / dataset / "runs.json")
    run = find_run(path)
    if run is None:
        raise SwysError(f"'{path}' has no run {RUN_ID}; train it with 'swys study original'")
    data = one_label_data(dataset)
    epochs = len(run["history"])
    epoch_seconds = time_original_epoch(data)

    goal = run["val_auc"]
    curve = tiny_curve(data, seconds)
    as_good = [row for row in curve if row["val_auc"] >= goal]
    if not as_good:
        best = max(row["val_auc"] for row in curve)
        raise SwysError(
            f"{seconds} s reach validation AUC {best:.3f}, not {goal:.3f}; raise --seconds"
        )
    first = as_good[0]
    times = {
        "device": f"{device_name(default_device())}, {torch.get_num_threads()} threads",
        "tiny": first,
        "tiny_at_its_end": curve[-1],
        "original": {"epochs": epochs, "epoch_seconds": epoch_seconds, **run["last"]},
        "ratio": epoch_seconds * epochs / first["seconds"],
    }
    print(times)
    return times


def time_original_epoch(data: Dataset) -> float:
    """Seconds of one epoch of the earlier project's training in float32.

    Args:
        data: trained on its training split.

    Returns:
        Seconds, measured.
    """
    model, optimizer = model_and_optimizer(data)
    row = epoch(model, optimizer, data.train, 0, 0.0, bf16=False)
    return row["seconds"]


def tiny_curve(data: Dataset, seconds: float) -> list[dict]:
    """Train a Tiny with 16 patches, and score it after each tenth of an epoch.

    Args:
        data: trained on its training split.
        seconds: of the whole schedule.

    Returns:
        Rows with the seconds of training, ``test_auc``, ``val_accuracy``, ``val_auc``, ``val_ece``.
    """
    recipe = Recipe(
        batch_size=32,
        lr=5e-4,
        augmentation=Augmentation(flip=True, shift=0.1),
        drop_path=0,
        seconds=seconds,
    )
    tiny = build("vit_tiny", data, recipe, patch_size=7)
    curve: list[dict] = []

    def score(model: VisionTransformer, seconds: float, step: int) -> None:
        logits = predict(model, data.test.images)
        test = point_scores(logits, data.test.labels, data.info.task)
        row = {"seconds": seconds, "test_auc": test["auc"]}
        curve.append(row | validate(model, data))

    fit(tiny, data, recipe, device=default_device(), callback=score)
    return curve
