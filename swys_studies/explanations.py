"""What the heatmaps of shipped checkpoints are worth on real test images: ``swys study explanations``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.stats import rankdata
from torch import nn

from swys_utils.cards import checkpoint_ids
from swys_utils.config import CHECKPOINTS, SwysError, default_device, device_name, write_json
from swys_utils.data import DEFAULT_DATASET, Split, load_dataset
from swys_utils.explain import randomisation_check
from swys_utils.faithfulness import (
    centre_prior_maps,
    deletion_insertion,
    mosaic_pointing,
    random_maps,
)
from swys_utils.gradcam import METHODS, grad_cam, heatmaps
from swys_utils.metrics import mean_interval
from swys_utils.models import load_checkpoint
from swys_utils.training import predict

MODELS = {
    "Base": "vit_base",
    "Tiny": "vit_tiny",
    "KD Tiny": "vit_tiny_answers",
    "Map Tiny": "vit_tiny_maps",
}


def measure(
    dataset: str = DEFAULT_DATASET,
    checkpoints: dict[str, str] | None = None,
    save_path: str | None = None,
) -> dict:
    """Measure empty maps, faithfulness and dependence on the model, on the test split.

    The file is written after every part; what it has for the same weights is not measured again.

    Args:
        dataset: any 2D MedMNIST name with one label an image.
        checkpoints: name -> id; default: those of ``MODELS`` that are shipped.
        save_path: default: ``checkpoints/<dataset>/explanations.json``.

    Raises SwysError: no real data, several labels an image, or no checkpoint.
    """
    data, device = load_dataset(dataset, download=False), default_device()
    if data.info.synthetic or data.info.multi_label:
        raise SwysError(
            f"'{dataset}' is synthetic here or has several labels an image; set SWYS_DATA_DIR"
        )
    folder = data.info.results_name
    usual = {name: f"{folder}/{model_id}" for name, model_id in MODELS.items()}
    checkpoints = checkpoints or {
        name: key for name, key in usual.items() if key in checkpoint_ids()
    }
    if not checkpoints:
        raise SwysError(f"no checkpoint of '{dataset}' is shipped; name some with --checkpoints")
    loaded = {name: load_checkpoint(model_id, device) for name, model_id in checkpoints.items()}
    weights = {
        name: [entry["sha256"] for entry in card["files"]] for name, (_, card) in loaded.items()
    }
    path = Path(save_path or CHECKPOINTS / folder / "explanations.json")
    found = json.loads(path.read_text()) if path.is_file() else {}
    same = {name for name, files in found.get("weights", {}).items() if weights.get(name) == files}
    kept = {key: part for key, part in found.get("parts", {}).items() if key.split(", ")[1] in same}
    kept = {
        key: part for key, part in kept.items() if key.startswith("empty") or has_all_methods(part)
    }
    found = {"dataset": folder, "split": "test", "weights": weights, "parts": kept}
    jobs = parts({name: model for name, (model, _) in loaded.items()}, data.info.class_names)
    for key, (images, compute) in jobs.items():
        sample = data.test.head(images)
        if found["parts"].get(key, {}).get("images") != len(sample):
            facts = {
                "images": len(sample),
                "device": device_name(device),
                "torch": torch.__version__,
            }
            found["parts"][key] = facts | {"rows": compute(sample)}
            write_json(path, found)
            print(f"{key}: {len(sample)} images", flush=True)
    return found


def has_all_methods(part: dict) -> bool:
    """Was it measured when all of today's methods were there?"""
    return METHODS.keys() <= {row["method"] for row in part["rows"]}


def parts(models: Mapping[str, nn.Module], class_names: Sequence[str]) -> dict:
    """Every measurement: key -> (images of the test split, 0 for all; what to compute of such a sample)."""
    jobs = {
        f"empty maps, {name}": (0, partial(empty, m, class_names)) for name, m in models.items()
    }
    return jobs | {
        f"methods, {name}": (128, partial(rank_methods, m)) for name, m in models.items()
    }


def empty(model: nn.Module, class_names: Sequence[str], sample: Split) -> list[dict]:
    """How often does ReLU leave nothing of a map for the predicted class? By class and confidence."""
    probabilities = torch.as_tensor(predict(model, sample.images)).softmax(1).numpy()
    maps = heatmaps(model, sample.images, targets=probabilities.argmax(1))
    confidence, empty = probabilities.max(1), maps.max(axis=(1, 2)) <= 0
    groups = {("all", "all"): np.ones(len(empty), bool)}
    for c, name in enumerate(class_names):
        for band, low, high in (
            ("below 0.8", 0, 0.8),
            ("0.8 to 0.95", 0.8, 0.95),
            ("0.95 to 1", 0.95, 2),
        ):
            within = (confidence >= low) & (confidence < high)
            groups[name, band] = within & (probabilities.argmax(1) == c)
    keys = ("predicted", "confidence", "images", "empty", "share")
    counts = ((*group, int(mask.sum()), int(empty[mask].sum())) for group, mask in groups.items())
    return [dict(zip(keys, (*row, row[3] / row[2] if row[2] else np.nan))) for row in counts]


def rank_methods(model: nn.Module, sample: Split, steps: int = 7) -> list[dict]:
    """Which method deserves the headline? The best mean rank of three measures comes first.

    gap: insertion - deletion; mosaic: share in the target's cell; randomised: mean absolute Spearman with the
    map of the fully randomised model (lower is better); empty: share of empty maps. Baselines have no rank.
    """
    keys = [
        "method",
        "gap",
        "gap low",
        "gap high",
        "mosaic",
        "mosaic low",
        "mosaic high",
        "randomised",
        "empty",
    ]
    images, count, depth = sample.images, len(sample), len(model.blocks)
    classes, grid = predict(model, images).argmax(1), model.patch_embed.grid_size
    methods = {
        f"grad_cam, block {b}": partial(grad_cam, block=b) for b in (depth // 2, 3 * depth // 4)
    }
    rows, methods = [], METHODS | methods
    maps = {name: heatmaps(model, images, method, classes) for name, method in methods.items()}
    maps |= {"random": random_maps(count, grid), "centre prior": centre_prior_maps(count, grid)}
    for name, own in maps.items():
        share = last = np.array([np.nan])
        if name in methods:
            share = mosaic_pointing(model, images, sample.labels, methods[name], count)
            last = randomisation_check(model, images, methods[name], only_last=True)["embedding"]
        gap = deletion_insertion(model, images, own, classes, steps).gap
        rest = (mean_interval(np.abs(last))[0], float((own.max((1, 2)) <= 0).mean()))
        rows.append(dict(zip(keys, (name, *mean_interval(gap), *mean_interval(share), *rest))))
    values = np.array([(-row["gap"], -row["mosaic"], row["randomised"]) for row in rows])
    values[[row["method"] not in methods for row in rows]] = np.nan
    ranks = rankdata(values, axis=0, nan_policy="omit").mean(axis=1)
    order = np.argsort(ranks)  # nan, the baselines, comes last
    return [rows[i] | {"rank": float(ranks[i])} for i in order]
