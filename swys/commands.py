"""The commands ``swys evaluate``, ``swys explain`` and ``swys export``."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import numpy as np
from medmnist import INFO

from swys_utils import metrics
from swys_utils.config import SwysError, write_json
from swys_utils.data import DEFAULT_DATASET, load_dataset, single_labels
from swys_utils.gradcam import heatmaps
from swys_utils.models import load_checkpoint
from swys_utils.onnx_export import export_onnx, quantise_onnx_dynamic
from swys_utils.plots import heatmap_rows
from swys_utils.training import predict

from .fingerprints import seen_in_training
from .train import load_for

Splits = Literal["train", "val", "test"]


def evaluate(
    ckpt_path: str,
    dataset: str = DEFAULT_DATASET,
    size: int = 28,
    model: str = "",
    split: Splits = "test",
    json: str = "",
) -> None:
    """Accuracy, AUC and calibration; and how many of the images it was trained on, if its card knows them.

    Args:
        ckpt_path: a folder, a .safetensors file, or an id such as pneumoniamnist/vit_tiny.
        model: refuse a checkpoint of another model.
        json: write the scores to this file, too.
    """
    keep_cards(json)
    data = load_dataset(dataset, size)
    network, card = load_for(ckpt_path, data, model)
    part = getattr(data, split)
    logits = predict(network, part.images)
    scores = metrics.evaluate(logits, part.labels, data.info.task)
    print(f"{ckpt_path}, {split} split, {scores.n} images ({data.info.source})\n{scores}")
    found = {
        "checkpoint": ckpt_path,
        "dataset": dataset,
        "source": data.info.source,
        "split": split,
    }
    found |= {key: value for key, value in asdict(scores).items() if key != "correct"}
    if split != "train" and card.get("training_hashes"):
        seen = seen_in_training(card["training_hashes"], part.images)
        found["seen_in_training"] = int(seen.sum())
        print(f"{seen.sum()} of {len(seen)} images were in its training data (64-bit fingerprint)")
        if seen.any() and not seen.all():
            print(
                "without them:", metrics.evaluate(logits[~seen], part.labels[~seen], data.info.task)
            )
    if json:
        write_json(json, found)


def explain(
    ckpt_path: str,
    save_path: str,
    dataset: str = DEFAULT_DATASET,
    size: int = 28,
    method: str = "grad_cam",
    split: Splits = "test",
    images: int = 8,
) -> None:
    """Write heatmap overlays of a checkpoint: overlays.png and maps.npz.

    Args:
        ckpt_path: a folder, a .safetensors file, or an id such as pneumoniamnist/vit_tiny.
        save_path: folder to write to.
        method: grad_cam, hires_cam, legrad or attention_rollout.
        images: how many, a fixed random sample (0: all).
    """
    data, folder = load_dataset(dataset, size), Path(save_path)
    network, card = load_for(ckpt_path, data)
    part, names = getattr(data, split).head(images), data.info.class_names
    logits, maps = predict(network, part.images), heatmaps(network, part.images, method)
    scores = metrics.probabilities(logits, data.info.task)
    captions = {card["model"]: [f"{names[p.argmax()][:12]} {p.max():.0%}" for p in scores]}
    titles = [names[label][:14] if label >= 0 else "no label" for label in single_labels(part)]
    figure = heatmap_rows(part.images, {card["model"]: maps}, captions, titles, scale="model")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(folder / "overlays.png", dpi=120, bbox_inches="tight")
        np.savez_compressed(folder / "maps.npz", maps=maps, logits=logits, labels=part.labels)
    except OSError as error:
        raise SwysError(
            f"cannot write to '{folder}': {error.strerror}; choose another --save_path"
        ) from None
    empty = int((maps.max(axis=(1, 2)) <= 0).sum())
    print(
        f"wrote {folder / 'overlays.png'} and maps.npz: {method}, {len(maps)} images, {empty} empty maps"
    )


def export(ckpt_path: str, save_path: str, int8: bool = False) -> None:
    """Write a checkpoint as an ONNX file with its card.

    Args:
        ckpt_path: a folder, a .safetensors file, or an id such as pneumoniamnist/vit_tiny.
        save_path: x.onnx.
        int8: quantise the weights and, as they come, the activations.
    """
    model, card = load_checkpoint(ckpt_path)
    names = tuple(INFO.get(card.get("dataset"), {"label": {}})["label"].values())
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "float32.onnx" if int8 else Path(save_path)
        written = export_onnx(model, target, names, card)
        if int8:
            written = quantise_onnx_dynamic(target, save_path)
    print(
        f"wrote {save_path} and its card: {written['bytes'] / 1e6:.1f} MB, {written['precision']}"
    )


def keep_cards(path: str) -> None:
    """Refuse to write over a file that holds a checkpoint's card."""
    if path and Path(path).is_file() and '"sha256"' in Path(path).read_text(errors="replace"):
        raise SwysError(f"'{path}' is the card of a checkpoint; give another name to --json")
