"""Put a finished run into checkpoints/.

What is written: the weights as stored there, their own scores, one card, and the config.json with
which timm loads the same model without this package.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import save_file

from swys_utils.config import CHECKPOINTS, SwysError, replacing, write_json
from swys_utils.data import Dataset, load_dataset
from swys_utils.metrics import point_scores
from swys_utils.models import load_checkpoint, save_checkpoint
from swys_utils.stored_answers import (
    FILE_NAME,
    answers_path,
    compute_answers,
    image_keys,
    weights_id,
)
from swys_utils.training import predict

from .runs import refuse_outside_clone


def ship(
    run: str,
    checkpoint_id: str,
    storage: Literal["fp32", "fp16", "int8"] = "fp16",
    note: str = "",
) -> dict:
    """Store a run's last epoch below ``checkpoints/``, with scores of exactly the stored weights.

    ``timm.create_model("local-dir:checkpoints/<id>", pretrained=True)`` loads them, unless they are
    int8 or several files.

    Args:
        run: folder or ``.safetensors`` file of the run.
        checkpoint_id: for example ``pneumoniamnist/vit_tiny_answers``.
        storage: of the weights; int8 is weight-only, in shards under 50 MB, and only this package
            reads it.
        note: a sentence for the card.

    Returns:
        The card of what was written.

    Raises:
        SwysError: no such run, or not one of real images.
    """
    refuse_outside_clone()
    model, run_card = load_checkpoint(run)
    data = load_dataset(run_card["dataset"], run_card.get("size", 28), download=False)
    if run_card.get("synthetic") or data.info.synthetic:
        problem = "was trained or would be scored on the synthetic twin"
        raise SwysError(f"'{run}' {problem}; ship runs on real images")

    card = dict(run_card)
    card.pop("files", None)  # of the run
    card.pop("predicted", None)  # only paired tests between runs need it
    card["status"] = "reference"
    if note:
        card["note"] = note

    folder = CHECKPOINTS / checkpoint_id
    had_answers = (folder / FILE_NAME).is_file()
    card = save_checkpoint(model, folder, card, storage)
    card["stored"] |= score_stored(folder, data)
    remove_old_files(folder, card)
    if storage != "int8" and len(card["files"]) == 1:
        write_json(folder / "config.json", timm_config(card, data.info.class_names))
    write_json(folder / "card.json", card)
    if had_answers:  # notebook 5 teaches with them
        store_answers(folder, data.train.images)
    print(f"{checkpoint_id}: {card['stored']}")
    return card


def store_answers(checkpoint: str | Path, images: np.ndarray) -> Path:
    """Ask a checkpoint, and keep its answers beside it, 16 bits each.

    Args:
        checkpoint: a folder, or an id below checkpoints/.
        images: uint8 (N, H, W) or (N, H, W, 3); of equal images one is kept.

    Returns:
        The file that was written.
    """
    keys = np.array(image_keys(images))
    unique, first = np.unique(keys, return_index=True)
    answers = compute_answers(checkpoint, images[first])
    path = answers_path(checkpoint)
    tensors = {
        "keys": torch.as_tensor(unique),
        "logits": answers.logits.half(),
        "maps": answers.maps.half(),
    }
    with replacing(path) as part:
        save_file(tensors, part, metadata={"weights": weights_id(checkpoint)})
    return path


def score_stored(folder: Path, data: Dataset) -> dict:
    """Scores of the weights as they are stored, for the card.

    Args:
        folder: of the checkpoint.
        data: the model is scored on its test split.

    Returns:
        Accuracy, AUC and ECE (fractions), and on which and how many images.
    """
    model, _ = load_checkpoint(folder)
    logits = predict(model, data.test.images)
    scores = point_scores(logits, data.test.labels, data.info.task)
    return {**scores, "split": "test", "n": len(data.test)}


def remove_old_files(folder: Path, card: dict) -> None:
    """Remove what an earlier checkpoint left: weights that the card does not name, and the config.

    Its answers stay until they are replaced: their file names the weights that gave them.

    Args:
        folder: of the checkpoint.
        card: its new card.
    """
    current = [entry["name"] for entry in card["files"]]
    for path in folder.glob("model*.safetensors"):
        if path.name not in current:
            path.unlink()
    (folder / "config.json").unlink(missing_ok=True)


def timm_config(card: dict, class_names: tuple[str, ...]) -> dict:
    """What timm reads beside ``model.safetensors``.

    Args:
        card: of the checkpoint.
        class_names: one for each class.

    Returns:
        Architecture, arguments, and how images are prepared.
    """
    img_size = card["img_size"]
    model_args = {"img_size": img_size, "patch_size": card["patch_size"]}
    model_args |= card.get("model_kwargs", {})
    return {
        "architecture": card["model"],
        "num_classes": card["num_classes"],
        "label_names": list(class_names),
        "model_args": model_args,
        "pretrained_cfg": {
            "num_classes": card["num_classes"],
            "input_size": [3, img_size, img_size],
            "fixed_input_size": True,
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }
