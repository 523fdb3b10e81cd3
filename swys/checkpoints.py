"""Checkpoints as the commands read and write them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

from timm.models import split_model_name_tag
from timm.models.vision_transformer import VisionTransformer

from swys_utils.cards import PICKLES
from swys_utils.config import SwysError, default_device
from swys_utils.data import Dataset
from swys_utils.metrics import evaluate
from swys_utils.models import load_checkpoint, save_checkpoint, timm_name
from swys_utils.training import predict

# what a save_path that names a file must not end in
OTHER_FILES = (*PICKLES, ".pickle", ".joblib", ".npy", ".h5", ".onnx", ".json", ".safetensors")


def load_for(path: str, data: Dataset, model: str = "") -> tuple[VisionTransformer, dict]:
    """Load a checkpoint that fits some data.

    Args:
        path: a folder, a .safetensors file, or an id below checkpoints/.
        data: a checkpoint of another data set is announced on stderr.
        model: refuse a checkpoint of another architecture than this one's; "" takes any.

    Returns:
        The model, on the device, and its card.

    Raises:
        SwysError: no such checkpoint, other classes, or another architecture.
    """
    loaded, card = load_checkpoint(path, default_device(), data.info.num_classes)
    if model and architecture(model) != architecture(card["model"]):
        raise SwysError(f"checkpoint '{path}' is a {card['model']}, not a {model}; drop the option")
    trained_on = card.get("dataset", data.info.name)
    if trained_on != data.info.name:
        print(f"note: '{path}' was trained on {trained_on}, not {data.info.name}", file=sys.stderr)
    return loaded, card


def architecture(model: str) -> str:
    """timm's name of an architecture, without the tag of pretrained weights.

    Args:
        model: a name of the series, or timm's.

    Returns:
        For example vit_tiny_patch16_224.
    """
    name, _ = split_model_name_tag(timm_name(model))
    return name


class OutputFiles(NamedTuple):
    """The files of a training run.

    Attributes:
        last: weights of the last epoch.
        chosen: weights of the epoch that validation chooses.
        state: what an unfinished run goes on from.
    """

    last: Path
    chosen: Path
    state: Path


def output_files(save_path: str) -> OutputFiles:
    """The files that belong to a save_path.

    Args:
        save_path: x.safetensors, or a folder.

    Returns:
        Their paths; the chosen weights and the state lie beside the last ones.

    Raises:
        SwysError: another kind of file.
    """
    path = Path(save_path)
    if path.suffix == ".safetensors":
        stem = path.with_suffix("")
    elif path.suffix.lower() not in OTHER_FILES:
        stem = path / "model"
    else:
        problem = f"--save_path '{path}' ends in {path.suffix}"
        raise SwysError(f"{problem}; use .safetensors or a folder")
    chosen = Path(f"{stem}.val_chosen.safetensors")
    state = Path(f"{stem}.state.pt")
    return OutputFiles(path, chosen, state)


def save_and_score(
    title: str,
    model: VisionTransformer,
    path: Path,
    card: dict,
    data: Dataset,
) -> None:
    """Save a trained model, and print its scores on the test split.

    Args:
        title: which epoch it is of.
        model: the trained model.
        path: x.safetensors, or a folder.
        card: what the checkpoint's card says.
        data: with the test split.
    """
    save_checkpoint(model, path, card, storage="fp32")
    logits = predict(model, data.test.images)
    scores = evaluate(logits, data.test.labels, data.info.task)
    print(f"{title}, {path}: {scores}")
