"""Recipes tried one change at a time: ``swys study trials``.

Each trial trains Tiny without one fold of look-alikes, see ``lookalikes``, and is ranked by the AUC
on that fold. Scores on the test split are stored beside, and shown only when asked for: they tell
in the end whether the choice was right, and choose nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from swys_utils.config import (
    CHECKPOINTS,
    SwysError,
    default_device,
    device_name,
)
from swys_utils.data import Dataset
from swys_utils.metrics import point_scores
from swys_utils.recipe import Recipe, reference_recipe
from swys_utils.results import as_table
from swys_utils.splits import Split
from swys_utils.training import build, fit, predict

from .lookalikes import Fold, grouped_folds
from .pretraining import masked_recipe, pretrained, start_from
from .reference import study_data
from .result_files import Entries, images_digest
from .runs import RUNS, refuse_no_seeds

SPLITS = ("grouped", "random", "test")  # where each trial is scored


@dataclass(frozen=True)
class Trial:
    """One change to the recipe of Tiny.

    Attributes:
        name: of the trial.
        predicted: what was expected of it before it ran.
        changes: fields of the recipe.
        augmentation: fields of its augmentation.
        pretraining: epochs of masked-autoencoder pretraining before it; 0 is none.
    """

    name: str
    predicted: str
    changes: dict[str, Any] = field(default_factory=dict)
    augmentation: dict[str, Any] = field(default_factory=dict)
    pretraining: int = 0

    def recipe(self, dataset: str) -> Recipe:
        """The whole recipe of the trial.

        Args:
            dataset: name of the data set.
        """
        recipe = reference_recipe("vit_tiny", dataset)
        augmentation = replace(recipe.augmentation, **self.augmentation)
        return replace(recipe, augmentation=augmentation, **self.changes)


FRESH = {"views": 0}  # new views in each epoch instead of eight fixed ones
SIXTY = FRESH | {"epochs": 60}
CROP = {"crop": 0.3, "jitter": 0.3, "rotate": 10}
SHARP = {"rotate": 0.0, "scale": 0.0}  # nothing is interpolated, so nothing is blurred
TRIALS = [
    Trial("60 epochs", "+.005 to the reference", SIXTY),
    Trial("60 epochs, crop .3", "+.008", SIXTY, CROP),
    Trial("masked first, 60 epochs", "+.015", SIXTY, {}, 150),
    Trial("60 epochs, mixup .2", "+.006", SIXTY | {"mixup": 0.2}),
    Trial("weak", "-.010", FRESH, {"rotate": 0.0, "scale": 0.0, "jitter": 0.0}),
    Trial("reference", "the recipe of the shipped runs"),
    Trial("sharp", "+.010 to the reference", {}, SHARP),
    Trial("sharp, 60 epochs", "+.012", SIXTY, SHARP),
    Trial("masked first, sharp, 60 epochs", "+.018", SIXTY, SHARP, 150),
    Trial("60 epochs, smoothing .1", "+.005", SIXTY | {"label_smoothing": 0.1}),
    Trial("120 epochs, crop .3", "+.015", FRESH | {"epochs": 120}, CROP),
    Trial("60 epochs, all tokens", "+.007", SIXTY | {"patch_drop": 0.0}),
    Trial("60 epochs, crop .08", "+.004", SIXTY, CROP | {"crop": 0.08}),
    Trial("masked first, 60 epochs, crop .3", "+.018", SIXTY, CROP, 150),
]


def trials(
    dataset: str = "pneumoniamnist",
    only: str = "",
    seeds: int = 2,
    fold: int = 2,
    folder: str = "",
    test: bool = False,
) -> None:
    """Try recipes on Tiny, and print how they do on a held-out fold of look-alikes.

    What is done is skipped, and a killed trial goes on.

    Args:
        dataset: pneumoniamnist or bloodmnist.
        only: part of the names of the trials to train; "none" trains nothing.
        seeds: number of runs of each trial.
        fold: number of the fold that is held out, from 0; only trials of one fold can be compared.
            The third is the hardest of PneumoniaMNIST for a linear model.
        folder: where unfinished trials are kept; default: runs/<dataset>/trials.
        test: show the scores on the test split, and how well each validation ranks the trials.

    Raises:
        SwysError: no seed, no real images, or no such trial or fold.
    """
    refuse_no_seeds(seeds)
    data = study_data(dataset)
    done = Entries(CHECKPOINTS / dataset / "trials.json", "trials")
    out = Path(folder or RUNS / dataset / "trials")
    wanted = [trial for trial in TRIALS if only in trial.name]
    if not wanted and only != "none":
        names = ", ".join(trial.name for trial in TRIALS)
        raise SwysError(f"no trial matches '{only}'; choose one of {names}, or none")
    if wanted:
        folds = grouped_folds(data)
        if not 0 <= fold < len(folds):
            raise SwysError(f"fold {fold} does not exist; choose 0 to {len(folds) - 1}")
    for seed in range(seeds):
        for trial in wanted:
            _train_once(trial, seed, fold, folds[fold], data, out, done)
    entries = [entry for entry in done.read() if entry["fold"] == fold]
    print(as_table([_printed(row) for row in summary(entries, test)]))
    if test:
        for split, correlation in ranking(entries).items():
            print(f"rank correlation of the {split} AUC with the test AUC: {correlation:+.2f}")


def summary(entries: list[dict], test: bool = False) -> list[dict]:
    """One row a trial, the best mean AUC on the held-out groups first.

    Args:
        entries: of trials.json.
        test: add the scores on the test split.
    """
    shown = SPLITS if test else SPLITS[:-1]
    rows = []
    for name in dict.fromkeys(entry["trial"] for entry in entries):
        runs = [entry for entry in entries if entry["trial"] == name]
        row = {"trial": name, "runs": len(runs)}
        for split in shown:
            row[f"{split} AUC"] = float(np.mean([run[split]["auc"] for run in runs]))
        row["train loss"] = float(np.mean([run["train_loss"] for run in runs]))
        # of a pretraining, which trials may share, nothing is stored
        row["minutes after pretraining"] = float(np.mean([run["seconds"] for run in runs])) / 60
        row["predicted"] = runs[0]["predicted"]
        rows.append(row)
    return sorted(rows, key=lambda row: -row["grouped AUC"])


def _printed(row: dict) -> dict:
    """The row with four digits of each AUC: trials differ in the third."""
    return {key: f"{row[key]:.4f}" if "AUC" in key else row[key] for key in row}


def ranking(entries: list[dict]) -> dict[str, float]:
    """How well each validation ranks the trials: Spearman's correlation with the test AUC.

    Args:
        entries: of trials.json, of three trials or more: two are always in order.

    Returns:
        Validation -> rank correlation over trials, of means over their runs.
    """
    rows = summary(entries, test=True)
    by_test = [row["test AUC"] for row in rows]
    found = {}
    for split in SPLITS[:-1]:
        values = [row[f"{split} AUC"] for row in rows]
        found[split] = float(spearmanr(values, by_test).statistic)
    return found


def _train_once(
    trial: Trial, seed: int, number: int, fold: Fold, data: Dataset, out: Path, done: Entries
) -> None:
    """Train and score one trial, unless that is done or another process does it."""
    run_id = f"{trial.name}/fold{number}/seed{seed}"
    state_path = out / f"{run_id.replace('/', ', ')}.state.pt"
    facts = {"trial": trial.name, "seed": seed, "fold": number}
    done.train_once(
        run_id,
        state_path,
        train=lambda: facts | _trained(trial, seed, fold, data, state_path),
    )


def _trained(trial: Trial, seed: int, fold: Fold, data: Dataset, state_path: Path) -> dict:
    """Train one trial; returns its scores."""
    recipe = trial.recipe(data.info.name)
    device = default_device()
    parts = replace(data, train=fold.train, val=fold.grouped)
    model = build("vit_tiny", data, recipe, seed)
    if trial.pretraining:
        start_from(model, _pretrained(trial, seed, parts, state_path.parent))
    state = fit(model, parts, recipe, seed=seed, device=device, state_path=state_path)
    history = state.history
    scores = {}
    for name, split in zip(SPLITS, (fold.grouped, fold.random, data.test)):
        logits = predict(model, split.images)
        mirrored = predict(model, split.images[:, :, ::-1].copy())
        scores[name] = _rounded_scores(logits, split, data.info.task)
        scores[f"{name}, mirrored"] = _rounded_scores(logits + mirrored, split, data.info.task)
    return scores | {
        "predicted": trial.predicted,
        "recipe": asdict(recipe),
        "train_loss": round(history[-1]["train_loss"], 5),
        "seconds": round(history[-1]["seconds"], 1),
        "device": f"{device_name(device)}, {torch.get_num_threads()} threads",
    }


def _pretrained(trial: Trial, seed: int, data: Dataset, folder: Path) -> dict[str, Tensor]:
    """Weights of the trial's masked autoencoder; another trial of the same fold may have them."""
    recipe = replace(masked_recipe("vit_tiny"), epochs=trial.pretraining)
    digest = images_digest(data.train.images)
    path = folder / f"masked{trial.pretraining}, {digest}, seed{seed}.pt"
    return pretrained("vit_tiny", data, recipe, seed, path)


def _rounded_scores(logits: np.ndarray, split: Split, task: str) -> dict[str, float]:
    scores = point_scores(logits, split.labels, task)
    return {name: round(value, 5) for name, value in scores.items()}
