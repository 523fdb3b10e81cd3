"""Cards, the JSON files beside weights that say what a checkpoint is; and where checkpoints are."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import jsonschema

from .config import CHECKPOINTS, SwysError, unknown

ASSETS = Path(__file__).parent / "assets"
CARD_SCHEMA = ASSETS / "card.schema.json"
ONNX_CARD_SCHEMA = ASSETS / "onnx_card.schema.json"
MAX_CARD_CHARACTERS = 2**24  # what is longer is no card
# formats that can run code when they are opened
PICKLES = (".pth", ".pt", ".pkl", ".bin", ".ckpt")
# ids of earlier versions -> today's
OLD_IDS = {
    "pneumoniamnist/vit_tiny_soft": "pneumoniamnist/vit_tiny_answers",
    "pneumoniamnist/vit_tiny_soft_p7": "pneumoniamnist/vit_tiny_answers_p7",
    "bloodmnist/vit_tiny_kd": "bloodmnist/vit_tiny_maps",
}


def find_checkpoint(path_or_id: str | Path) -> Path:
    """Find a checkpoint on disk or below ``checkpoints/``.

    Args:
        path_or_id: a folder, a .safetensors file, or an id (<dataset>/<model>) of today or of an
            earlier version.

    Returns:
        The folder or the .safetensors file.

    Raises:
        SwysError: it is not there, has no card, or is a pickle.
    """
    path = Path(path_or_id)
    if path.suffix in PICKLES:
        raise SwysError(
            f"'{path}' is a pickle, which can run code when opened; use a .safetensors file"
        )
    todays_id = OLD_IDS.get(path.as_posix(), path)
    for candidate in (path, CHECKPOINTS / path, CHECKPOINTS / todays_id):
        _, _, card_path = locate(candidate)
        if card_path.is_file():
            return candidate
    if path.is_file():
        raise SwysError(
            f"'{path}' has no card '{path.stem}.json' beside it; move both together (a model of"
            " your own goes in by Python, or into swys compare)"
        )
    ids = checkpoint_ids()
    way_out = (
        "a clone of the repository has" if ids else "ids need a clone; give a folder or a file"
    )
    raise SwysError(unknown("checkpoint", path.as_posix(), ids, way_out))


def checkpoint_ids() -> list[str]:
    """Ids of the checkpoints below ``checkpoints/``, sorted."""
    folders = [card_path.parent for card_path in CHECKPOINTS.glob("*/*/card.json")]
    return sorted(folder.relative_to(CHECKPOINTS).as_posix() for folder in folders)


def read_card(
    path: Path, card: dict[str, Any] | None = None, schema_path: Path = CARD_SCHEMA
) -> dict[str, Any]:
    """Read a card, or check one that will be written.

    Args:
        path: where the card is, or will be.
        card: the card that will be written there; None reads the file.
        schema_path: what it has to be, a JSON schema.

    Returns:
        The card.

    Raises:
        SwysError: it is damaged, or is not what the schema describes.
    """
    way_out = "restore it with git" if card is None else "change that value"
    try:
        if card is None:
            with path.open(encoding="utf-8") as file:
                card = json.loads(file.read(MAX_CARD_CHARACTERS))
        schema = json.loads(schema_path.read_text("utf-8"))
        jsonschema.validate(card, schema)
    except (OSError, ValueError, RecursionError, jsonschema.ValidationError) as error:
        problem = getattr(error, "message", str(error))[:160]
        raise SwysError(f"card '{path}' cannot be used ({problem}); {way_out}") from None
    return card


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, 64 hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def file_entry(path: Path, name: str) -> dict[str, Any]:
    """What a card says of a file.

    Args:
        path: where the file is now.
        name: what the file will be called beside the card.

    Returns:
        ``name``, ``bytes`` and ``sha256``.
    """
    return {"name": name, "bytes": path.stat().st_size, "sha256": sha256_of(path)}


def locate(path: str | Path) -> tuple[Path, str, Path]:
    """Where the files of a checkpoint are, whether they exist or not.

    Args:
        path: a folder (it holds model.safetensors and card.json), or x.safetensors (its card is
            x.json).

    Returns:
        The folder, the stem of the weights' file, and the path of the card.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return path.parent, path.stem, path.with_suffix(".json")
    return path, "model", path / "card.json"
