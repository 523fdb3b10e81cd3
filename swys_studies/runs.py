"""Finished runs: the entries of runs.json, where the weights are, and names of earlier versions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
from filelock import FileLock
from sklearn.metrics import recall_score

from swys_utils.cards import read_card
from swys_utils.config import CHECKPOINTS, PROJECT_ROOT, SwysError, write_json
from swys_utils.models import SERIES
from swys_utils.shipped_results import OLD_METHODS, todays_id

from .result_files import RUNS, read_json

# titles of students in agreement.json and explanations.json of earlier versions -> today's
OLD_TITLES = {
    "alone": SERIES["vit_tiny"].title,
    "soft targets": SERIES["vit_tiny_answers"].title,
    "KD Tiny": SERIES["vit_tiny_answers"].title,
    "soft targets + maps": SERIES["vit_tiny_maps"].title,
    "Map Tiny": SERIES["vit_tiny_maps"].title,
}


def todays_title(title: str) -> str:
    """Today's title of a model: the same title, or that of a model of an earlier version.

    Args:
        title: any text.
    """
    return OLD_TITLES.get(title, title)


def with_todays_names(content: Any) -> Any:
    """JSON with today's ids and titles in place of old ones, keys as well as values.

    Args:
        content: content of a JSON file of this version or an earlier one, or a part of it.
    """
    if isinstance(content, dict):
        return {with_todays_names(key): with_todays_names(part) for key, part in content.items()}
    if isinstance(content, list):
        return [with_todays_names(part) for part in content]
    if isinstance(content, str):
        return todays_title(todays_id(content))
    return content


SCORES = {
    "type": "object",
    "required": ["accuracy", "auc", "ece"],
    "additionalProperties": {"type": "number"},
}
RUN_SCHEMA = {  # of an entry of runs.json, as far as it is read
    "type": "object",
    "required": ["id", "method", "seed", "device", "predicted", "val_auc", "last", "val_chosen"],
    "properties": {
        "id": {"type": "string"},
        "method": {"type": "string"},
        "teacher": {"type": ["string", "null"]},
        "device": {"type": "string"},
        "seed": {"type": "integer"},
        "predicted": {"type": "string", "pattern": "^[0-9A-Z]+$"},
        "recall": {"type": ["array", "null"], "items": {"type": "number"}},
        "val_auc": {"type": "number"},
        "last": SCORES,
        "val_chosen": SCORES,
        "history": {"type": "array", "items": {"type": "object"}},
    },
}
UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    RecursionError,
    jsonschema.ValidationError,
)


def read_runs(folder: str | Path) -> list[dict]:
    """Entries of finished runs, with today's ids.

    Args:
        folder: a folder of runs, or a runs.json.

    Returns:
        One dict a run, see ``RUN_SCHEMA``; those of a folder are sorted by age, the oldest first.

    Raises:
        SwysError: a file is damaged.
    """
    folder = Path(folder)
    try:
        entries = _stored_entries(folder)
        jsonschema.validate(entries, {"type": "array", "items": RUN_SCHEMA})
    except UNREADABLE as error:
        problem = getattr(error, "message", str(error))[:160]
        raise SwysError(
            f"'{folder}' cannot be read as runs ({problem}); remove the damaged file"
        ) from None
    return [_with_todays_ids(entry) for entry in entries]


def _stored_entries(folder: Path) -> list[dict]:
    """What the file, or the files in the folder, hold."""
    if folder.is_file():
        return json.loads(folder.read_text("utf-8"))["runs"]
    paths = sorted(folder.glob("*/*/*.run.json"), key=lambda path: path.stat().st_mtime)
    return [json.loads(path.read_text("utf-8")) for path in paths]


def _with_todays_ids(entry: dict) -> dict:
    """An entry whose id, method and teacher are named as today."""
    teacher = entry.get("teacher")
    method = entry["method"]
    return {
        **entry,
        "id": todays_id(entry["id"]),
        "method": OLD_METHODS.get(method, method),
        "teacher": todays_id(teacher) if teacher else None,
    }


def refuse_outside_clone() -> None:
    """Raise a SwysError where there is no clone, because studies read and write its results."""
    if not (PROJECT_ROOT / "swys_studies").is_dir():
        raise SwysError("studies need a clone of the repository; start swys in one")


def refuse_no_seeds(seeds: int) -> None:
    """Raise a SwysError where a study is to train with less than one seed."""
    if seeds < 1:
        raise SwysError(f"seeds is {seeds}; give 1 or more")


def refuse_other_patches(patches: Mapping[str, int], folder: Path) -> None:
    """Raise a SwysError where a folder has finished runs whose models have other patches.

    Args:
        patches: id of a run -> side of the patches that it should have, px.
        folder: folder of runs.
    """
    for entry in read_runs(folder):
        wanted = patches.get(entry["id"])
        found = entry.get("patch_size", wanted)
        if wanted not in (None, found):
            problem = f"holds {entry['id']} with patches of {found} px, not {wanted}"
            raise SwysError(f"'{folder}' {problem}; name another --folder")


def results_name(dataset: str, patch: int = SERIES["vit_base"].patch_size) -> str:
    """Name of the folder in checkpoints/ that has the results of a reference set.

    Args:
        dataset: name of the data set.
        patch: side of the models' patches, px; a set with other patches than Base's is another set.
    """
    return dataset if patch == SERIES["vit_base"].patch_size else f"{dataset}-p{patch}"


def _dataset_of(results: str) -> str:
    """The data set of a ``results_name``; no name of MedMNIST has a hyphen."""
    return results.split("-")[0]


def finished_runs(results: str, folder: Path) -> dict[str, dict]:
    """Entries of the shipped runs of a reference set and of those in a folder.

    Args:
        results: ``results_name`` of the set, whose shipped runs are in checkpoints/<results>.
        folder: folder of runs; where a run is in both places, the entry of this folder counts.

    Returns:
        Id -> entry.

    Raises:
        SwysError: a file is damaged.
    """
    shipped = CHECKPOINTS / results / "runs.json"
    entries = read_runs(shipped) if shipped.is_file() else []
    own = read_runs(folder)
    dataset = _dataset_of(results)
    entries += [entry for entry in own if entry.get("dataset", dataset) == dataset]
    return {entry["id"]: entry for entry in entries}


def write_runs(results: str, folder: Path) -> None:
    """Add the finished runs of a folder to those in checkpoints/<results>/runs.json.

    A file that has them all is not written again, so a shipped file keeps its older ids.

    Args:
        results: ``results_name`` of the reference set.
        folder: folder of runs.
    """
    path = CHECKPOINTS / results / "runs.json"
    # several processes may finish a run at once, also with other folders of runs
    with FileLock(RUNS / f"{results}.runs.lock"):
        entries = list(finished_runs(results, folder).values())
        text = json.dumps(entries)
        rounded = json.loads(text, parse_float=_rounded)
        if not path.is_file() or read_runs(path) != rounded:
            write_json(path, {"dataset": _dataset_of(results), "runs": rounded})


def _rounded(number: str) -> float:
    """A number of a JSON text with five decimals, or five digits if it is small (a rate)."""
    value = float(number)
    return round(value, 5) if abs(value) >= 0.001 else float(f"{value:.5g}")


def run_path(run_id: str, results: str, out: Path) -> Path | None:
    """The checkpoint of a run: the one that was trained in a folder, else the shipped one.

    Args:
        run_id: today's id of the run, or the name of a shipped model.
        results: ``results_name`` of its set, whose shipped models are in checkpoints/<results>.
        out: folder of runs.

    Returns:
        A path for ``models.load_checkpoint``, or None when neither is there.

    Raises:
        SwysError: the card of a shipped checkpoint is damaged.
    """
    # cards, not weights, are looked for: the weights may be several files
    card_path = out / f"{run_id}.json"
    if card_path.is_file():
        return card_path.with_suffix(".safetensors")
    for card_path in sorted(out.glob("*/*/*.json")):  # of an earlier version
        name = card_path.relative_to(out).with_suffix("").as_posix()
        if todays_id(name) == run_id:
            return card_path.with_suffix(".safetensors")
    for card_path in sorted((CHECKPOINTS / results).glob("*/card.json")):
        shipped_id = str(read_card(card_path).get("id"))
        if run_id in (todays_id(shipped_id), card_path.parent.name):
            return card_path.parent
    return None


def answers(entry: dict) -> np.ndarray:
    """The answers of a run, int (N,); runs.json has one character of base 36 for each.

    Args:
        entry: entry of runs.json.
    """
    return np.array([int(character, 36) for character in entry["predicted"]])


def recalls(answers: np.ndarray, labels: np.ndarray, classes: int) -> list[float] | None:
    """The share of the images of each class that are given it.

    Args:
        answers: int (N,).
        labels: int (N,), or 0/1 (N, L).
        classes: how many.

    Returns:
        Fractions, one a class; None where an image can have several labels.
    """
    if labels.ndim == 2:
        return None
    shares = recall_score(labels, answers, labels=range(classes), average=None, zero_division=0)
    return [float(share) for share in shares]


def read_study(path: Path) -> dict:
    """The content of an agreement.json, with today's ids and groups.

    Args:
        path: the file.
    """
    return with_todays_names(read_json(path))
