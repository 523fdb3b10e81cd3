"""Cards: the JSON file beside the weights that says what a checkpoint is; and where checkpoints are."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import jsonschema

from .config import CHECKPOINTS, SwysError, unknown

CARD_SCHEMA = Path(__file__).parent / "assets" / "card.schema.json"
# ids of earlier versions -> today's
OLD_IDS = {
    "pneumoniamnist/vit_tiny_soft": "pneumoniamnist/vit_tiny_answers",
    "pneumoniamnist/vit_tiny_soft_p7": "pneumoniamnist/vit_tiny_answers_p7",
    "bloodmnist/vit_tiny_kd": "bloodmnist/vit_tiny_maps",
}


def find_checkpoint(path_or_id: str | Path) -> Path:
    """The folder or file that ``path_or_id`` names, on disk or below ``checkpoints/``."""
    path = Path(OLD_IDS.get(str(path_or_id), path_or_id))
    if path.suffix in (".pth", ".pt", ".pkl", ".bin", ".ckpt"):
        raise SwysError(
            f"'{path}' is a pickle, which can run code when opened; use a .safetensors file"
        )
    for candidate in (path, CHECKPOINTS / path):
        if locate(candidate)[2].is_file():
            return candidate
    if path.is_file():
        raise SwysError(f"'{path}' has no card '{path.stem}.json' beside it; move both together")
    raise SwysError(
        unknown("checkpoint", path.as_posix(), checkpoint_ids(), "a clone of the repository has")
    )


def checkpoint_ids() -> list[str]:
    """Ids of the checkpoints below ``checkpoints/``."""
    return sorted(
        c.parent.relative_to(CHECKPOINTS).as_posix() for c in CHECKPOINTS.glob("*/*/card.json")
    )


def read_card(path: Path, card: dict | None = None) -> dict:
    """The card at ``path``, or ``card``, which will be written there; refused when it is damaged or not what
    ``assets/card.schema.json`` says."""
    try:
        card = card or json.loads(
            path.open(encoding="utf-8").read(2**24)
        )  # what is longer is no card
        jsonschema.validate(card, json.loads(CARD_SCHEMA.read_text("utf-8")))
        return card
    except (OSError, ValueError, RecursionError, jsonschema.ValidationError) as error:
        problem = getattr(error, "message", str(error))[:160]
        raise SwysError(f"card '{path}' cannot be used ({problem}); restore it with git") from None


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, 64 hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def file_entry(path: Path, name: str) -> dict:
    """What a card says of a file: name, bytes, sha256."""
    return {"name": name, "bytes": path.stat().st_size, "sha256": sha256_of(path)}


def locate(path: str | Path) -> tuple[Path, str, Path]:
    """(folder, stem of the weights' file, path of the card) of either form of checkpoint."""
    path = Path(path)
    if path.suffix == ".safetensors":
        return path.parent, path.stem, path.with_suffix(".json")
    return path, "model", path / "card.json"
