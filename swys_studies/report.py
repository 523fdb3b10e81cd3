"""What the reference set says: each kind of run with its spread, each difference with a test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from swys_utils.config import CHECKPOINTS, SwysError
from swys_utils.metrics import mcnemar, t_interval
from swys_utils.results import as_table

from .intervals import accuracy_interval
from .kinds import (
    BASE,
    BETTER_TEACHERS,
    FEW_ANSWERS,
    FEW_CONTROL,
    FEW_LABELS,
    ORIGINAL,
    RESNET_TEACHERS,
    STRONG_WHOLE_TINY,
    TINY,
    TWO_TEACHERS,
    WHOLE_TINY,
    Kind,
    all_kinds,
    kind_of,
    studied_kinds,
    taught_pairs,
)
from .reference import one_label_data
from .runs import answers, read_runs

ROUNDED = 1e-4  # accuracies in runs.json have five digits


def report(dataset: str = "pneumoniamnist", runs: str = "") -> None:
    """Print the table of the reference set, with intervals and paired tests, from runs.json.

    Args:
        dataset: pneumoniamnist or bloodmnist.
        runs: a runs.json or a folder of runs; default: checkpoints/<dataset>/runs.json.

    Raises:
        SwysError: there is no such file, no run in it, or it is damaged; or there are no real
            images with one label each.
    """
    path = Path(runs or CHECKPOINTS / dataset / "runs.json")
    if not path.exists():
        raise SwysError(f"'{path}' does not exist; train the set with 'swys study reference' first")
    entries = read_runs(path)
    if not entries:
        raise SwysError(f"'{path}' has no finished run; train some with 'swys study reference'")
    labels = one_label_data(dataset).test.labels
    devices = sorted({entry["device"] for entry in entries})
    print(f"{dataset}: {len(entries)} runs, {len(labels)} test images; ", end="")
    print("last epoch; of a fixed schedule, but for the earlier project's recipe\n")
    print(as_table(kinds(entries, labels)), "\n")
    print(as_table(differences(entries, labels)))
    print(f"\ntrained on {', '.join(devices)}; intervals 95 %")


def kinds(entries: Sequence[dict], labels: np.ndarray) -> list[dict]:
    """One row for each kind of run: its scores, as mean and standard deviation over seeds.

    Args:
        entries: finished runs, as ``read_runs`` returns them.
        labels: int (N,), of the test images.

    Returns:
        Rows for ``as_table``. The interval of the accuracy is over images and seeds;
        ``val-chosen %`` is the accuracy at the epoch that validation chooses.

    Raises:
        SwysError: a run predicts other images.
    """
    groups = grouped(entries)
    rows = []
    for kind in all_kinds():
        runs = list(groups[kind].values())
        if not runs:
            continue
        correct = np.stack([right(run, labels) for run in runs])
        low, high = np.clip(accuracy_interval(correct), 0.0, 1.0)
        row = {
            "trained": kind.title,
            "seeds": len(runs),
            "accuracy %": spread([100 * run["last"]["accuracy"] for run in runs], 1),
            "95 %": f"{100 * low:.1f} to {100 * high:.1f}",
            "AUC": spread([run["last"]["auc"] for run in runs], 4),
            "ECE": spread([run["last"]["ece"] for run in runs], 3),
            "val AUC": spread([run["val_auc"] for run in runs], 4),
            "val-chosen %": spread([100 * run["val_chosen"]["accuracy"] for run in runs], 1),
        }
        rows.append(row)
    return rows


def differences(entries: Sequence[dict], labels: np.ndarray) -> list[dict]:
    """One row for each comparison of two kinds, paired by seed.

    Runs with the same seed have the same order of images and, where ``initial_weights`` of their
    entries agree, the same initial weights: on another processor these can differ by rounding.
    (The earlier project's recipe has an order of its own, and a run of few labels alone repeats the
    images that have one.)

    Args:
        entries: finished runs, as ``read_runs`` returns them.
        labels: int (N,), of the test images.

    Returns:
        Rows for ``as_table``: the difference of accuracy in points and of AUC, and the p of
        McNemar's test between the runs of the first seed.

    Raises:
        SwysError: a run predicts other images.
    """
    groups = grouped(entries)
    rows = []
    for a, b in compared_kinds():
        seeds = sorted(groups[a].keys() & groups[b].keys())
        if not seeds:
            continue
        correct_a = np.stack([right(groups[a][seed], labels) for seed in seeds])
        correct_b = np.stack([right(groups[b][seed], labels) for seed in seeds])
        auc_a = np.array([groups[a][seed]["last"]["auc"] for seed in seeds])
        auc_b = np.array([groups[b][seed]["last"]["auc"] for seed in seeds])
        gained = correct_a.astype(float) - correct_b
        low, high = accuracy_interval(gained)
        row = {
            "difference": f"{a.title} - {b.title}",
            "pairs": len(seeds),
            "points": f"{100 * gained.mean():+.1f}",
            "95 %": f"{100 * low:+.1f} to {100 * high:+.1f}",
            "AUC": f"{np.mean(auc_a - auc_b):+.4f}",
            "95 % over seeds": seed_interval(auc_a - auc_b),
            "McNemar p, first seed": mcnemar(correct_a[0], correct_b[0]),
        }
        rows.append(row)
    return rows


def compared_kinds() -> list[tuple[Kind, Kind]]:
    """Pairs (a, b) of kinds; the table has a - b."""
    answers_of_base = next(kind for kind in studied_kinds() if kind.method == "answers")
    return [
        (BASE, TINY),
        *taught_pairs(),
        (TWO_TEACHERS, TINY),
        (FEW_ANSWERS, FEW_LABELS),
        (FEW_CONTROL, FEW_LABELS),
        (FEW_ANSWERS, FEW_CONTROL),
        (BETTER_TEACHERS, TINY),
        (BETTER_TEACHERS, answers_of_base),
        (RESNET_TEACHERS, TINY),
        (WHOLE_TINY, TINY),
        (STRONG_WHOLE_TINY, TINY),
        (TINY, ORIGINAL),
    ]


def grouped(entries: Sequence[dict]) -> dict[Kind, dict[int, dict]]:
    """The runs of each kind; runs of no kind are left out.

    Args:
        entries: finished runs, as ``read_runs`` returns them.

    Returns:
        Kind -> seed -> entry.
    """
    groups: dict[Kind, dict[int, dict]] = {kind: {} for kind in all_kinds()}
    for entry in entries:
        kind = kind_of(entry)
        if kind is not None:
            groups[kind][entry["seed"]] = entry
    return groups


def right(entry: dict, labels: np.ndarray) -> np.ndarray:
    """Which test images a run has right.

    Args:
        entry: a finished run; ``predicted`` has one character for each test image.
        labels: int (N,), of the test images.

    Returns:
        bool (N,).

    Raises:
        SwysError: the run predicts other images.
    """
    predicted = answers(entry)
    if len(predicted) != len(labels):
        raise SwysError(
            f"{entry['id']} has {len(predicted)} predictions for {len(labels)} test images"
        )
    correct = predicted == labels
    if abs(correct.mean() - entry["last"]["accuracy"]) > ROUNDED:
        raise SwysError(f"{entry['id']} answered other images; take the data it was scored on")
    return correct


def spread(values: Sequence[float], digits: int) -> str:
    """The mean, and the standard deviation where there are several values.

    Args:
        values: one value for each run.
        digits: number of digits after the point.
    """
    mean = f"{np.mean(values):.{digits}f}"
    if len(values) == 1:
        return mean
    deviation = np.std(values, ddof=1)
    return f"{mean} ± {deviation:.{digits}f}"


def seed_interval(values: np.ndarray) -> str:
    """The 95 % t interval of a mean over seeds.

    Args:
        values: float (S,), one for each seed.
    """
    if len(values) == 1:
        return "one seed"
    low, high = t_interval(values)
    return f"{low:+.4f} to {high:+.4f}"
