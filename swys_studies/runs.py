"""Finished runs: the entries of runs.json, and where the weights of a run are."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
from filelock import FileLock

from swys_utils.cards import read_card
from swys_utils.config import CHECKPOINTS, PROJECT_ROOT, SwysError, write_json

RUNS = PROJECT_ROOT / "runs"

TEXT, NUMBER = {"type": "string"}, {"type": "number"}
SCORES = {"type": "object", "required": ["accuracy", "auc", "ece"], "additionalProperties": NUMBER}
RUN_SCHEMA = {  # of an entry of runs.json, as far as a report reads it
    "type": "object",
    "required": ["id", "method", "seed", "device", "predicted", "val_auc", "last", "val_chosen"],
    "properties": dict.fromkeys(("id", "method", "device"), TEXT)
    | {
        "seed": {"type": "integer"},
        "predicted": TEXT | {"pattern": "^[0-9A-Z]+$"},
        "val_auc": NUMBER,
    }
    | {
        "last": SCORES,
        "val_chosen": SCORES,
        "history": {"type": "array", "items": {"type": "object"}},
    },
}


def run_path(run_id: str, dataset: str, out: Path) -> Path | None:
    """The checkpoint of a run: the one trained in ``out``, or the shipped one; None: neither is there."""
    if (out / f"{run_id}.json").is_file():  # its card; the weights may be several files
        return out / f"{run_id}.safetensors"
    cards = sorted((CHECKPOINTS / dataset).glob("*/card.json"))
    return next((path.parent for path in cards if read_card(path).get("id") == run_id), None)


def read_runs(folder: str | Path) -> list[dict]:
    """Entries of the finished runs in a folder, or of a runs.json, the oldest first; SwysError: damaged."""
    folder = Path(folder)
    try:
        if folder.is_file():
            runs = json.loads(folder.read_text("utf-8"))["runs"]
        else:
            found = sorted(folder.glob("*/*/*.run.json"), key=lambda path: path.stat().st_mtime)
            runs = [json.loads(path.read_text("utf-8")) for path in found]
        jsonschema.validate(runs, {"type": "array", "items": RUN_SCHEMA})
        return runs
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        RecursionError,
        jsonschema.ValidationError,
    ) as error:
        problem = getattr(error, "message", str(error))[:160]
        raise SwysError(
            f"'{folder}' cannot be read as runs ({problem}); remove the damaged file"
        ) from None


def finished_runs(dataset: str, folder: Path) -> dict[str, dict]:
    """Entries of the runs in checkpoints/<dataset>/runs.json and of those in ``folder``, by id."""
    path = CHECKPOINTS / dataset / "runs.json"
    runs = (read_runs(path) if path.is_file() else []) + read_runs(folder)
    return {run["id"]: run for run in runs}


def write_runs(dataset: str, folder: Path) -> None:
    """Add the finished runs of ``folder`` to those in checkpoints/<dataset>/runs.json."""
    with FileLock(folder / "runs.lock"):
        runs = json.dumps([*finished_runs(dataset, folder).values()])
        rounded = json.loads(runs, parse_float=lambda text: round(float(text), 5))
        write_json(CHECKPOINTS / dataset / "runs.json", {"dataset": dataset, "runs": rounded})
