"""How much do the maps of two models agree? For the studies that compare models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer

from swys_utils.config import SwysError, default_device, fast_bf16
from swys_utils.explain import agreement, shuffled
from swys_utils.faithfulness import deletion_insertion, random_maps
from swys_utils.gradcam import METHODS, heatmaps
from swys_utils.metrics import mean_interval
from swys_utils.models import SERIES, load_checkpoint
from swys_utils.training import predict

# one of how many test images is explained: hiding patches costs a forward pass for each of them
EVERY = {"occlusion": 4}
# side of what is hidden, px: the patches of Base, whatever a model's own are
PATCH = SERIES["vit_base"].patch_size


def weights_beside_base(folder: str | Path) -> Path:
    """A folder of shipped checkpoints, once Base is known to be among them.

    Args:
        folder: it has a subfolder for each model.

    Raises:
        SwysError: there is no ``vit_base``.
    """
    folder = Path(folder)
    if not (folder / "vit_base").is_dir():
        raise SwysError(f"'{folder}' has no vit_base; take a data set for which Base is shipped")
    return folder


def signed_maps(
    model: VisionTransformer, images: np.ndarray, targets: np.ndarray, method: str
) -> np.ndarray:
    """Signed maps by a method, of the images that it is asked about.

    Args:
        model: a model.
        images: uint8 (N, H, W) or (N, H, W, 3).
        targets: the classes to explain, int (N,).
        method: an id of ``gradcam.METHODS``.

    Returns:
        float (n, gh, gw) of n of the images.
    """
    part = part_of(method)
    return heatmaps(model, images[part], method, targets[part], signed=True)


def part_of(method: str) -> slice:
    """Which images a method is asked about.

    Args:
        method: an id of ``gradcam.METHODS``.
    """
    return slice(None, None, EVERY.get(method, 1))


def compare(
    teacher_maps: np.ndarray, student_maps: np.ndarray, predictions: np.ndarray
) -> dict[str, float]:
    """Mean agreement of two models' maps, and what it is by chance.

    Args:
        teacher_maps: float (N, gh, gw).
        student_maps: float (N, gh, gw), of the same images.
        predictions: class that the teacher predicts, int (N,).

    Returns:
        ``spearman`` with its 95 % interval ``low``, ``high``; ``chance``: the agreement with the
        map of another image; ``chance_in_class``: of another image with the same prediction;
        ``same_top``: share of the images in which both maps have the same highest patch, and
        ``same_top_chance``: the same with the map of another image with the same prediction;
        ``undefined``: number of images where a map is constant; ``images``: number of all.
    """
    same_image = agreement(teacher_maps, student_maps)
    other_image = agreement(teacher_maps, shuffled(student_maps))
    in_class = shuffled(student_maps, predictions)
    other_in_class = agreement(teacher_maps, in_class)
    mean, low, high = mean_interval(same_image)
    return {
        "spearman": mean,
        "low": low,
        "high": high,
        "chance": float(np.nanmean(other_image)),
        "chance_in_class": float(np.nanmean(other_in_class)),
        "same_top": same_top(teacher_maps, student_maps),
        "same_top_chance": same_top(teacher_maps, in_class),
        "undefined": int(np.isnan(same_image).sum()),
        "images": len(same_image),
    }


def same_top(maps_a: np.ndarray, maps_b: np.ndarray) -> float:
    """Share of the images in which two maps have the same highest patch.

    Args:
        maps_a: float (N, gh, gw).
        maps_b: float (N, gh, gw), of the same grid; images with nan, or where one of the maps is
            constant, are left out.
    """
    rows_a = maps_a.reshape(len(maps_a), -1)
    rows_b = maps_b.reshape(len(maps_b), -1)
    known = np.ones(len(rows_a), dtype=bool)
    for rows in (rows_a, rows_b):
        known &= ~np.isnan(rows).any(axis=1)
        known &= np.ptp(rows, axis=1) > 0
    same = rows_a[known].argmax(axis=1) == rows_b[known].argmax(axis=1)
    return float(same.mean())


def own_measures(
    model: VisionTransformer,
    images: np.ndarray,
    teacher_predictions: np.ndarray,
    insertion: bool = True,
) -> dict[str, float]:
    """Does a model predict what its teacher predicts, and are its own maps true to it?

    Args:
        model: a model.
        images: uint8 (N, H, W) or (N, H, W, 3).
        teacher_predictions: int (N,).
        insertion: also ``gap``, which costs more than all maps.

    Returns:
        ``same_prediction``: share of images with the teacher's prediction; of its own Grad-CAM
        maps, ``empty``: share without a positive token, and ``gap``: mean of insertion minus
        deletion AUC, beside ``gap_random``: that of random maps.
    """
    device = default_device()
    predictions = predict(model, images).argmax(axis=1)
    maps = heatmaps(model, images, "grad_cam", predictions)
    measured = {
        "same_prediction": float((predictions == teacher_predictions).mean()),
        "empty": float((maps.max(axis=(1, 2)) <= 0).mean()),
    }
    if not insertion:
        return measured
    noise = random_maps(len(maps), maps.shape[1:])
    with torch.autocast(device.type, torch.bfloat16, fast_bf16(device)):  # 4 times faster
        scores = deletion_insertion(model, images, maps, predictions, steps=7)
        noise_scores = deletion_insertion(model, images, noise, predictions, steps=7)
    gaps = {"gap": float(scores.gap.mean()), "gap_random": float(noise_scores.gap.mean())}
    return measured | gaps


def compare_siblings(
    weights: Mapping[str, Path],
    images: np.ndarray,
    predictions: np.ndarray,
    known: Mapping[str, Mapping[str, dict]],
) -> dict[str, dict[str, dict]]:
    """Compare the maps of runs with each other: what does another seed alone change?

    Args:
        weights: id of a run -> its weights; the first one is compared with each other one.
        images: uint8 (N, H, W) or (N, H, W, 3).
        predictions: class that is explained, int (N,).
        known: an earlier result; its pairs are kept and not measured again.

    Returns:
        Id of a way to explain -> "<id> and <id>" -> ``compare``.
    """
    rows = {method: dict(known.get(method, {})) for method in METHODS}
    if len(weights) < 2:
        return rows
    models = {}
    for run_id, path in weights.items():
        models[run_id], _ = load_checkpoint(path, default_device())
    first, *others = models
    for method in METHODS:
        missing = [run_id for run_id in others if f"{first} and {run_id}" not in rows[method]]
        if not missing:
            continue
        own = signed_maps(models[first], images, predictions, method)
        for run_id in missing:
            maps = signed_maps(models[run_id], images, predictions, method)
            row = compare(own, maps, predictions[part_of(method)])
            rows[method][f"{first} and {run_id}"] = row
    return rows
