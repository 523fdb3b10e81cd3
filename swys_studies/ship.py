"""Put a finished run into checkpoints/: weights as stored there, their own scores, one card, and the
config.json with which timm loads the same model without this package."""

from __future__ import annotations

from typing import Literal

from swys_utils.config import CHECKPOINTS, SwysError, write_json
from swys_utils.data import load_dataset
from swys_utils.metrics import point_scores
from swys_utils.models import load_checkpoint, save_checkpoint
from swys_utils.training import predict


def ship(
    run: str,
    checkpoint_id: str,
    storage: Literal["fp32", "fp16", "int8"] = "fp16",
    note: str = "",
) -> dict:
    """Store a run's last epoch below ``checkpoints/``, with scores of exactly the stored weights.

    ``timm.create_model("local-dir:checkpoints/<id>", pretrained=True)`` loads them, unless they are int8 or
    several files.

    Args:
        run: folder or ``.safetensors`` file of the run.
        checkpoint_id: for example ``pneumoniamnist/vit_tiny_answers``.
        storage: of the weights; int8 is weight-only, in shards under 50 MB, and only this package reads it.
        note: a sentence for the card.

    Returns the card of what was written. Raises SwysError: no such run, or not one of real images.
    """
    model, card = load_checkpoint(run)
    data = load_dataset(card["dataset"], card.get("size", 28), download=False)
    if card.get("synthetic") or data.info.synthetic:
        raise SwysError(
            f"'{run}' was trained or would be scored on the synthetic twin; ship runs on real images"
        )
    folder, of_the_run = CHECKPOINTS / checkpoint_id, ("files", "predicted")
    card = {key: value for key, value in card.items() if key not in of_the_run}
    card |= {"status": "reference"} | ({"note": note} if note else {})
    card = save_checkpoint(model, folder, card, storage)
    stored, _ = load_checkpoint(folder)
    scores = point_scores(predict(stored, data.test.images), data.test.labels, data.info.task)
    card["stored"] |= scores | {"split": "test", "n": len(data.test)}
    names = {entry["name"] for entry in card["files"]}
    for old in [*folder.glob("model*.safetensors"), folder / "config.json"]:
        if old.name not in names:
            old.unlink(missing_ok=True)
    if storage != "int8" and len(names) == 1:
        write_json(folder / "config.json", timm_config(card, data.info.class_names))
    write_json(folder / "card.json", card)
    print(f"{checkpoint_id}: {card['stored']}")
    return card


def timm_config(card: dict, class_names: tuple[str, ...]) -> dict:
    """What timm reads beside ``model.safetensors``: architecture, arguments, and how images are prepared."""
    size = {"img_size": card["img_size"], "patch_size": card["patch_size"]}
    return {
        "architecture": card["model"],
        "num_classes": card["num_classes"],
        "label_names": list(class_names),
        "model_args": size | card.get("model_kwargs", {}),
        "pretrained_cfg": {
            "num_classes": card["num_classes"],
            "input_size": [3, card["img_size"], card["img_size"]],
            "fixed_input_size": True,
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }
