"""The commands ``swys evaluate``, ``swys explain`` and ``swys export``."""

from __future__ import annotations

import tempfile
from json import loads  # `json` is the name of an option
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.figure import Figure
from medmnist import INFO

from swys_utils import metrics
from swys_utils.cards import MAX_CARD_CHARACTERS
from swys_utils.config import SwysError, replacing, write_json
from swys_utils.data import DEFAULT_DATASET, Split, load_dataset, single_labels
from swys_utils.gradcam import heatmaps
from swys_utils.models import load_checkpoint
from swys_utils.onnx_export import export_onnx, quantise_onnx_dynamic
from swys_utils.plots import heatmap_rows
from swys_utils.training import predict

from .checkpoints import load_for
from .fingerprints import seen_in_training

Splits = Literal["train", "val", "test"]
CAPTION_LENGTH = 12  # letters of a class name that fit below an image
TITLE_LENGTH = 14  # and above it


def evaluate(
    ckpt_path: str,
    dataset: str = DEFAULT_DATASET,
    size: int = 28,
    model: str = "",
    split: Splits = "test",
    json: str = "",
) -> None:
    """Accuracy, AUC and calibration; and how many of the images were in the training data.

    Args:
        ckpt_path: a folder, a .safetensors file, or an id such as pneumoniamnist/vit_tiny.
        dataset: any 2D MedMNIST name.
        size: stored image size: 28, 64, 128 or 224 px.
        model: refuse a checkpoint of another model.
        split: the images to score.
        json: write the scores to this file, too.

    Raises:
        SwysError: data or a checkpoint that cannot be used, or ``json`` is a checkpoint's card.
    """
    if json and is_card(Path(json)):
        raise SwysError(f"'{json}' is the card of a checkpoint; give another name to --json")
    data = load_dataset(dataset, size)
    network, card = load_for(ckpt_path, data, model)
    part = getattr(data, split)
    logits = predict(network, part.images)
    scores = metrics.evaluate(logits, part.labels, data.info.task)
    print(f"{ckpt_path}, {split} split, {scores.n} images ({data.info.source})")
    print(scores)
    report = {
        "checkpoint": ckpt_path,
        "dataset": dataset,
        "source": data.info.source,
        "split": split,
        "accuracy": scores.accuracy,
        "accuracy_interval": scores.accuracy_interval,
        "auc": scores.auc,
        "auc_interval": scores.auc_interval,
        "ece": scores.ece,
        "ece_interval": scores.ece_interval,
        "n": scores.n,
    }
    hashes = card.get("training_hashes")
    if split != "train" and hashes:
        seen = seen_in_training(hashes, part.images)
        report["seen_in_training"] = int(seen.sum())
        print_seen(seen, logits, part, data.info.task)
    if json:
        write_json(json, report)


def print_seen(seen: np.ndarray, logits: np.ndarray, split: Split, task: str) -> None:
    """Say how many images were in the training data, and the scores without them.

    Args:
        seen: which images were, bool (N,).
        logits: float (N, C).
        split: the N images.
        task: MedMNIST's name of it.
    """
    count = seen.sum()
    print(f"{count} of {len(seen)} images were in its training data (64-bit fingerprint)")
    if 0 < count < len(seen):
        unseen = ~seen
        scores = metrics.evaluate(logits[unseen], split.labels[unseen], task)
        print("without them:", scores)


def is_card(path: Path) -> bool:
    """Whether a file is the card of a checkpoint or of an exported model.

    Args:
        path: of any file, or of none.

    Returns:
        True for a JSON object that names the files with weights, or the sha256 of one.
    """
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            text = file.read(MAX_CARD_CHARACTERS)
        content = loads(text)
    except (OSError, ValueError, RecursionError):
        return False
    if not isinstance(content, dict):
        return False
    return "files" in content or "sha256" in content


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
        dataset: any 2D MedMNIST name.
        size: stored image size: 28, 64, 128 or 224 px.
        method: the way to explain.
        split: the images to explain.
        images: number of images, a fixed random sample (0: all).

    Raises:
        SwysError: data, a checkpoint or a method that cannot be used, or an unwritable folder.
    """
    data = load_dataset(dataset, size)
    network, card = load_for(ckpt_path, data)
    part = getattr(data, split).sample(images)
    maps = heatmaps(network, part.images, method, multi_label=data.info.multi_label)
    logits = predict(network, part.images)
    probabilities = metrics.probabilities(logits, data.info.task)
    figure = overlays(card["model"], part, maps, probabilities, data.info.class_names)
    folder = Path(save_path)
    picture = folder / "overlays.png"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"cannot write to '{folder}': {error.strerror}"
        raise SwysError(f"{problem}; choose another --save_path") from None
    with replacing(picture) as unfinished:
        figure.savefig(unfinished, format="png", dpi=120, bbox_inches="tight")
    with replacing(folder / "maps.npz") as unfinished, unfinished.open("wb") as file:
        np.savez_compressed(file, maps=maps, logits=logits, labels=part.labels)
    strongest = maps.max(axis=(1, 2))
    empty = np.count_nonzero(strongest <= 0)
    print(f"wrote {picture} and maps.npz: {method}, {len(maps)} images, {empty} empty maps")


def overlays(
    model: str,
    split: Split,
    maps: np.ndarray,
    probabilities: np.ndarray,
    class_names: tuple[str, ...],
) -> Figure:
    """The images with their classes, and below them the heatmaps with what the model predicts.

    Args:
        model: its name.
        split: N images and their labels.
        maps: heatmaps, float (N, gh, gw).
        probabilities: float (N, C).
        class_names: C names.

    Returns:
        The figure.
    """
    captions = []
    for row in probabilities:
        name = class_names[row.argmax()]
        captions.append(f"{name[:CAPTION_LENGTH]} {row.max():.0%}")
    titles = []
    for label in single_labels(split):
        name = class_names[label] if label >= 0 else "no label"
        titles.append(name[:TITLE_LENGTH])
    return heatmap_rows(split.images, {model: maps}, {model: captions}, titles, scale="model")


def export(ckpt_path: str, save_path: str, int8: bool = False) -> None:
    """Write a checkpoint as an ONNX file with its card.

    Args:
        ckpt_path: a folder, a .safetensors file, or an id such as pneumoniamnist/vit_tiny.
        save_path: x.onnx.
        int8: quantise the weights and, as they come, the activations.

    Raises:
        SwysError: a checkpoint that cannot be used, a missing package, or an unwritable path.
    """
    if Path(save_path).suffix != ".onnx":
        raise SwysError(f"--save_path '{save_path}' does not end in .onnx; give another name")
    model, card = load_checkpoint(ckpt_path)
    names = class_names_of(card)
    if int8:
        with tempfile.TemporaryDirectory() as scratch:
            float32 = Path(scratch) / "float32.onnx"
            export_onnx(model, float32, names, card)
            written = quantise_onnx_dynamic(float32, save_path)
    else:
        written = export_onnx(model, save_path, names, card)
    megabytes = written["bytes"] / 1e6
    print(f"wrote {save_path} and its card: {megabytes:.1f} MB, {written['precision']}")


def class_names_of(card: dict) -> tuple[str, ...]:
    """The class names of the data set that a checkpoint was trained on.

    Args:
        card: of the checkpoint.

    Returns:
        One name a class; none where MedMNIST does not know the data set.
    """
    dataset = card.get("dataset")
    if dataset not in INFO:
        return ()
    return tuple(INFO[dataset]["label"].values())
