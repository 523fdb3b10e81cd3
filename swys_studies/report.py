"""What the reference set says: every kind of run with its spread, every difference with an interval and a
test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from swys_utils.config import CHECKPOINTS, SwysError
from swys_utils.metrics import accuracy_interval, mcnemar, t_interval
from swys_utils.results import as_table

from .reference import study_data
from .runs import read_runs

TITLES = {
    ("vit_base", "scratch"): "Base",
    ("vit_tiny", "scratch"): "Tiny alone",
    ("vit_tiny", "kd_soft"): "Tiny, soft targets",
    ("vit_tiny", "kd_explain"): "Tiny, soft targets and maps",
    ("vit_tiny", "kd_coarse"): "Tiny, soft targets, 16 tokens",
    ("vit_tiny", "few_scratch"): "Tiny alone, 1 % of the labels",
    ("vit_tiny", "few_soft"): "Tiny, soft targets, 1 % of the labels",
    ("vit_tiny_patch16_224", "original"): "Tiny, the earlier project's recipe",
}
COMPARED = (
    ("Base", "Tiny alone"),
    ("Tiny, soft targets", "Tiny alone"),
    ("Tiny, soft targets and maps", "Tiny alone"),
    ("Tiny, soft targets and maps", "Tiny, soft targets"),
    ("Tiny, soft targets, 1 % of the labels", "Tiny alone, 1 % of the labels"),
    ("Tiny alone", "Tiny, the earlier project's recipe"),
)


def report(dataset: str = "pneumoniamnist", runs: str = "") -> None:
    """Print the table of the reference set, with intervals and paired tests, from runs.json.

    Args:
        dataset: pneumoniamnist or bloodmnist.
        runs: a runs.json or a folder of runs; default: checkpoints/<dataset>/runs.json.
    """
    path = Path(runs or CHECKPOINTS / dataset / "runs.json")
    if not path.exists():
        raise SwysError(f"'{path}' does not exist; train the set with 'swys study reference' first")
    entries, labels = read_runs(path), study_data(dataset).test.labels
    print(
        f"{dataset}: {len(entries)} runs, {len(labels)} test images; last epoch of a fixed schedule\n"
    )
    print(as_table(kinds(entries, labels)), "\n")
    print(as_table(differences(entries, labels)))
    print(
        f"\ntrained on {', '.join(sorted({entry['device'] for entry in entries}))}; intervals 95 %"
    )


def kinds(entries: list[dict], labels: np.ndarray) -> list[dict]:
    """One row a kind of run: accuracy with its interval over images and seeds; AUC, and the
    validation-chosen epoch."""
    rows = []
    for title, group in grouped(entries).items():
        low, high = accuracy_interval(np.stack([right(entry, labels) for entry in group.values()]))
        runs = list(group.values())
        rows.append(
            {
                "trained": title,
                "seeds": len(group),
                "accuracy %": spread([100 * run["last"]["accuracy"] for run in runs], 1),
                "95 %": f"{100 * low:.1f} to {100 * high:.1f}",
                "AUC": spread([run["last"]["auc"] for run in runs], 4),
                "ECE": spread([run["last"]["ece"] for run in runs], 3),
                "val AUC": spread([run["val_auc"] for run in runs], 4),
                "val-chosen %": spread([100 * run["val_chosen"]["accuracy"] for run in runs], 1),
            }
        )
    return rows


def differences(entries: list[dict], labels: np.ndarray) -> list[dict]:
    """Paired by seed (same initial weights, same order of images): accuracy in points, AUC, McNemar of the
    first seed."""
    groups, rows = grouped(entries), []
    for a, b in COMPARED:
        seeds = sorted(set(groups.get(a, {})) & set(groups.get(b, {})))
        if not seeds:
            continue
        pairs = [(groups[a][seed], groups[b][seed]) for seed in seeds]
        gained = np.stack([right(x, labels).astype(float) - right(y, labels) for x, y in pairs])
        low, high = accuracy_interval(gained)
        auc = [x["last"]["auc"] - y["last"]["auc"] for x, y in pairs]
        row = {
            "difference": f"{a} - {b}",
            "pairs": len(seeds),
            "points": f"{100 * gained.mean():+.1f}",
        }
        row |= {"95 %": f"{100 * low:+.1f} to {100 * high:+.1f}", "AUC": f"{np.mean(auc):+.4f}"}
        row["95 % over seeds"] = (
            "{:+.4f} to {:+.4f}".format(*t_interval(auc)) if len(auc) > 1 else "one seed"
        )
        row["McNemar p, first seed"] = mcnemar(
            right(pairs[0][0], labels), right(pairs[0][1], labels)
        )
        rows.append(row)
    return rows


def grouped(entries: list[dict]) -> Mapping[str, dict[int, dict]]:
    """Title of each kind of run -> seed -> entry, in the order of ``TITLES``."""
    found: dict[str, dict[int, dict]] = {title: {} for title in TITLES.values()}
    for entry in entries:
        title = TITLES.get((entry["id"].split("/")[0], entry["method"]))
        if title:
            found[title][entry["seed"]] = entry
    return {title: group for title, group in found.items() if group}


def right(entry: dict, labels: np.ndarray) -> np.ndarray:
    """Which test images the run has right, bool (N,), from the characters of ``predicted``.

    Raises:
        SwysError: predictions for other images.
    """
    predicted = np.array([int(character, 36) for character in entry["predicted"]])
    if len(predicted) != len(labels):
        raise SwysError(
            f"{entry['id']} has {len(predicted)} predictions for {len(labels)} test images"
        )
    return predicted == labels


def spread(values: list[float], digits: int) -> str:
    """Mean, and standard deviation over runs where there are several."""
    mean = f"{np.mean(values):.{digits}f}"
    return f"{mean} ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else mean
