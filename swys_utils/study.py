"""Does a student look where its teacher looks? Asked of all runs in a folder, so that the answer is about ways of
teaching and not about one pair of models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch

from .benchmark import device_name
from .config import SwysError, default_device
from .data import Dataset, single_labels
from .explain import (
    Agreement,
    Method,
    Rows,
    agreement,
    deletion_insertion,
    heatmaps,
    mean_interval,
    outcome_groups,
    prediction_agreement,
    random_maps,
    shuffled,
)
from .gradcam import METHODS, grad_cam
from .models import load_checkpoint
from .reference import check_dataset, model_of, read_runs
from .stats import t_interval
from .training import predict

HEADLINE = "grad_cam"
GROUPS = {"scratch": "alone", "kd_soft": "soft targets", "kd_features": "features", "kd_explain": "maps"}
FLOOR, CEILING = "alone", "another teacher"
COMPARED = (("soft targets", "alone"), ("maps", "alone"), ("maps", "soft targets"))


def agreement_over_runs(
    folder: str | Path,
    data: Dataset,
    images: int = 1000,
    device: torch.device | str | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict:
    """Agreement of every run's heatmaps with those of the teacher's, by several kinds of map, and what differs.

    Args:
        folder: finished runs of ``reference.reproduce``.
        images: at most so many test images, a fixed sample (0: all). None of them chose anything.

    Returns:
        ``runs``: each run's group (alone, soft targets, features, maps, another teacher), seed, accuracy, share of
        predictions equal to the teacher's, KL(teacher || run) in nats; of its own Grad-CAM maps the share that is empty
        and the deletion/insertion gap, beside the gap of random maps. ``teacher``: its id, and the same of its maps.
        ``maps``: name of the map -> ``runs``: id -> mean Spearman correlation with the teacher's signed maps for the
        teacher's class (or the class named), its interval over images, chance (the same maps, images shuffled), mean
        IoU of the strongest fifth, undefined maps, and for Grad-CAM the mean by who is right; ``differences``: paired
        over seeds, with t intervals; ``closed``: of the distance from students alone to another teacher, the share
        each group covers.

    Raises:
        SwysError: no runs, or none that had a teacher.
    """
    folder, device, say = Path(folder), torch.device(device or default_device()), progress or (lambda line: None)
    check_dataset(folder, data.info.name)
    entries = read_runs(folder)
    teachers = {entry["teacher"] for entry in entries} - {None}
    if len(teachers) != 1 or not teachers <= {entry["id"] for entry in entries}:
        raise SwysError(
            f"'{folder}' has no finished run with its teacher; run 'swys reproduce --save_path {folder}' first"
        )
    (teacher_id,) = teachers
    test = data.test.head(images)
    labels = single_labels(test)
    teacher, _ = load_checkpoint(folder / f"{teacher_id}.safetensors", device, data.info.num_classes)
    teacher_logits = predict(teacher, test.images, progress=False)
    kinds = _kinds(teacher, data, teacher_logits.argmax(axis=1))
    theirs = {
        name: heatmaps(teacher, test.images, method, classes, signed=True) for name, (method, classes) in kinds.items()
    }

    teacher_accuracy = next(entry["last"]["accuracy"] for entry in entries if entry["id"] == teacher_id)
    runs, found = [], {name: {} for name in kinds}
    for entry in entries:
        group = _group(entry, teacher_id)
        if group is None:
            continue
        model, _ = load_checkpoint(folder / f"{entry['id']}.safetensors", device, data.info.num_classes)
        logits = predict(model, test.images, progress=False)
        same, kl = prediction_agreement(teacher_logits, logits)
        who = outcome_groups(labels, teacher_logits, logits)
        for name, (method, classes) in kinds.items():
            ours = heatmaps(model, test.images, method, classes, signed=True)
            found[name][entry["id"]] = _row(theirs[name], ours, who if name == HEADLINE else {})
        runs.append({"id": entry["id"], "group": group, "seed": entry["seed"], "accuracy": entry["last"]["accuracy"],
                     "same_prediction": same["mean"], "kl": kl["mean"],
                     **_faithfulness(model, test.images, logits.argmax(axis=1))})  # fmt: skip
        say(f"{entry['id']}: agreement {found[HEADLINE][entry['id']]['spearman']:.3f}")
    maps = {}
    for name, rows in found.items():
        spearman = _spearman(rows)
        maps[name] = {"runs": rows, "differences": differences(runs, spearman), "closed": closed(runs, spearman)}
    return {
        "dataset": data.info.name,
        "source": data.info.source,
        "teacher": {"id": teacher_id, "accuracy": teacher_accuracy,
                    **_faithfulness(teacher, test.images, teacher_logits.argmax(axis=1))},
        "images": len(test),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "runs": runs,
        "differences": {
            what: differences(runs, {run["id"]: run[what] for run in runs}) for what in ("accuracy", "gap", "kl")
        },
        "maps": maps,
    }  # fmt: skip


def differences(runs: list[dict], values: Mapping[str, float]) -> list[dict]:
    """Paired differences between ways of teaching: same seed, so same initial weights and order of images.

    Args:
        runs: with id, group and seed. values: run id -> what is compared.

    Returns:
        One dict for each comparison with at least two pairs: ``of`` - ``to``, mean, t interval, each seed's.
    """
    rows = []
    for of, to in COMPARED:
        a, b = ({run["seed"]: values[run["id"]] for run in runs if run["group"] == group} for group in (of, to))
        each = [a[seed] - b[seed] for seed in sorted(set(a) & set(b))]
        if len(each) > 1:
            low, high = t_interval(each)
            rows.append({"of": of, "to": to, "mean": float(np.mean(each)), "low": low, "high": high, "seeds": each})
    return rows


def closed(runs: list[dict], values: Mapping[str, float]) -> dict[str, float]:
    """Share of the distance from floor (alone) to ceiling (another teacher) that each group covers; may be over 1."""
    means = group_means(runs, values)
    if FLOOR not in means or CEILING not in means:
        return {}
    floor, distance = means[FLOOR], means[CEILING] - means[FLOOR]
    return {group: (mean - floor) / distance for group, mean in means.items() if group not in (FLOOR, CEILING)}


def group_means(runs: list[dict], values: Mapping[str, float]) -> dict[str, float]:
    """Mean over the runs of each group, in the order of the ladder; a group without runs is left out."""
    order = [*GROUPS.values(), CEILING]
    each = {group: [values[run["id"]] for run in runs if run["group"] == group] for group in order}
    return {group: float(np.mean(found)) for group, found in each.items() if found}


def summary(study: dict) -> Rows:
    """One row a kind of map: the mean of each group, and what soft targets and maps change, with t intervals."""
    rows = Rows()
    for name, part in study["maps"].items():
        row = {"map": name, "chance": float(np.mean([r["chance"] for r in part["runs"].values()]))}
        row |= group_means(study["runs"], _spearman(part["runs"]))
        for d in part["differences"]:
            row[f"{d['of']} - {d['to']}"] = f"{d['mean']:+.2f} [{d['low']:+.2f}, {d['high']:+.2f}]"
        rows.append(row)
    return rows


def _kinds(teacher, data: Dataset, classes: np.ndarray) -> dict[str, tuple[Method, np.ndarray | int]]:
    """Name -> (method, class explained): every method and an earlier block for the teacher's class, then each class."""
    block = 3 * len(teacher.blocks) // 4
    kinds = {name: (method, classes) for name, method in METHODS.items()}
    kinds[f"grad_cam, block {block}"] = (partial(grad_cam, block=block), classes)
    for c, name in enumerate(data.info.class_names):
        kinds[f"grad_cam, class {name}"] = (grad_cam, c)
    return kinds


def _group(entry: dict, teacher_id: str) -> str | None:
    """Which rung of the ladder a run belongs to; None for the teacher itself and for runs of other recipes."""
    if model_of(entry["id"]) != model_of(teacher_id):
        return GROUPS.get(entry["method"])
    return CEILING if entry["id"] != teacher_id and entry["method"] == "scratch" else None


def _row(theirs: np.ndarray, ours: np.ndarray, who: Mapping[str, np.ndarray]) -> dict:
    same: Agreement = agreement(theirs, ours)
    mean, low, high = mean_interval(same.spearman)
    row = {"spearman": mean, "low": low, "high": high, "iou": mean_interval(same.iou)[0], "undefined": same.undefined,
           "chance": mean_interval(agreement(theirs, shuffled(ours)).spearman)[0]}  # fmt: skip
    if who:
        row["who"] = {name: mean_interval(same.spearman[mask])[0] for name, mask in who.items()}
    return row


def _faithfulness(model, images: np.ndarray, classes: np.ndarray) -> dict[str, float]:
    """Are the model's own maps true to it? A student could be taught to draw maps that it does not use."""
    maps = heatmaps(model, images, HEADLINE, classes)
    candidates = {"gap": maps, "gap_random": random_maps(len(maps), maps.shape[1:])}
    scores = {name: deletion_insertion(model, images, m, classes, steps=7).gap for name, m in candidates.items()}
    empty = float((maps.max(axis=(1, 2)) <= 0).mean())
    return {"empty": empty} | {name: float(gap.mean()) for name, gap in scores.items()}


def _spearman(rows: Mapping[str, dict]) -> dict[str, float]:
    return {run_id: row["spearman"] for run_id, row in rows.items()}
