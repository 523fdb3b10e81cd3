"""The runs of the reference set: their kinds, their ids, and the entries of runs.json."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import jsonschema
from filelock import FileLock

from swys_utils.cards import read_card
from swys_utils.config import CHECKPOINTS, PROJECT_ROOT, SwysError, write_json
from swys_utils.distillation import OBJECTIVES
from swys_utils.models import SERIES

RUNS = PROJECT_ROOT / "runs"


@dataclass(frozen=True)
class Kind:
    """A kind of run: one model taught in one way, with several seeds.

    Attributes:
        title: its name in tables and figures.
        model: name of the model for ``models.create_model``; the first part of the ids of its runs.
        method: the second part of these ids.
        objective: how the model is taught, an id in ``distillation.OBJECTIVES``.
        patch_size: side of a patch, px.
        label_share: share of the training images that keep their label.
        seeds: number of its runs in the reference set of PneumoniaMNIST.
        seeds_elsewhere: number of its runs in the reference set of another data set.
    """

    title: str
    model: str
    method: str
    objective: str
    patch_size: int
    label_share: float = 1.0
    seeds: int = 4
    seeds_elsewhere: int = 3

    def run_id(self, seed: int) -> str:
        """``<model>/<method>/seed<k>``: also the path of its files in a folder of runs.

        Args:
            seed: seed of the run.
        """
        return f"{self.model}/{self.method}/seed{seed}"

    def seeds_on(self, dataset: str) -> int:
        """Number of its runs in the reference set of a data set.

        Args:
            dataset: name of the data set.
        """
        return self.seeds if dataset == "pneumoniamnist" else self.seeds_elsewhere


BASE = Kind(
    title=SERIES["vit_base"].title,
    model="vit_base",
    method="labels",
    objective="labels",
    patch_size=SERIES["vit_base"].patch_size,
    seeds=2,
    seeds_elsewhere=2,
)
TINY = Kind(
    title=SERIES["vit_tiny"].title,
    model="vit_tiny",
    method="labels",
    objective="labels",
    patch_size=SERIES["vit_tiny"].patch_size,
)
ANSWERS_16_TOKENS = Kind(
    title=SERIES["vit_tiny_answers_p7"].title,
    model="vit_tiny",
    method="answers_p7",
    objective="answers",
    patch_size=SERIES["vit_tiny_answers_p7"].patch_size,
    seeds=1,
    seeds_elsewhere=0,
)
FEW_LABELS = replace(
    TINY,
    title=f"{TINY.title}, 1 % of the labels",
    method="few_labels",
    label_share=0.01,
)
FEW_ANSWERS = replace(
    FEW_LABELS,
    title=f"{SERIES['vit_tiny_answers'].title}, 1 % of the labels",
    method="few_answers",
    objective="answers",
)
ORIGINAL = Kind(
    title="Tiny, the earlier project's recipe",
    model="vit_tiny_patch16_224",
    method="original",
    objective="labels",
    patch_size=SERIES["vit_tiny_patch16_224"].patch_size,
    seeds=0,  # `swys study original` trains it
    seeds_elsewhere=0,
)


def studied_kinds() -> list[Kind]:
    """Tiny, taught in each way of ``distillation.OBJECTIVES`` that is studied over seeds."""
    kinds = []
    for objective in OBJECTIVES.values():
        if objective.id == TINY.objective:
            kinds.append(TINY)
        elif objective.studied:
            title = f"{TINY.title}, {objective.title}"
            kinds.append(replace(TINY, title=title, method=objective.id, objective=objective.id))
    return kinds


def all_kinds() -> list[Kind]:
    """Every kind of run, in the order of the tables."""
    return [BASE, *studied_kinds(), ANSWERS_16_TOKENS, FEW_LABELS, FEW_ANSWERS, ORIGINAL]


def taught_pairs() -> list[tuple[Kind, Kind]]:
    """What is compared of the students: each with Tiny, then each with those taught less."""
    taught = [kind for kind in studied_kinds() if kind != TINY]
    pairs = [(kind, TINY) for kind in taught]
    for less, more in combinations(taught, 2):
        pairs.append((more, less))
    return pairs


def kind_of(entry: dict) -> Kind | None:
    """The kind of a finished run; None when it is none of ``all_kinds``.

    Args:
        entry: entry of runs.json, as ``read_runs`` returns it.
    """
    for kind in all_kinds():
        if kind.run_id(entry["seed"]) == entry["id"]:
            return kind
    return None


RUN_ID = re.compile(r"(\w+)/(\w+)/(seed\d+)")
# methods in the ids of earlier versions -> today's
OLD_METHODS = {
    "scratch": "labels",
    "kd_soft": "answers",
    "kd_explain": "maps",
    "kd_coarse": "answers_p7",
    "few_scratch": "few_labels",
    "few_soft": "few_answers",
}


def todays_id(run_id: str) -> str:
    """Today's id of a run: the same id, or that of a run of an earlier version.

    Args:
        run_id: ``<model>/<method>/seed<k>``; any other text comes back as it is.
    """
    match = RUN_ID.fullmatch(run_id)
    if match is None:
        return run_id
    model, method, seed = match.groups()
    return f"{model}/{OLD_METHODS.get(method, method)}/{seed}"


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


def finished_runs(dataset: str, folder: Path) -> dict[str, dict]:
    """Entries of the shipped runs of a data set and of those in a folder.

    Args:
        dataset: name of the data set; its shipped runs are in checkpoints/<dataset>/runs.json.
        folder: folder of runs; of a run that is in both places, its entry counts.

    Returns:
        Id -> entry.

    Raises:
        SwysError: a file is damaged.
    """
    shipped = CHECKPOINTS / dataset / "runs.json"
    entries = read_runs(shipped) if shipped.is_file() else []
    entries += read_runs(folder)
    return {entry["id"]: entry for entry in entries}


def write_runs(dataset: str, folder: Path) -> None:
    """Add the finished runs of a folder to those in checkpoints/<dataset>/runs.json.

    Args:
        dataset: name of the data set.
        folder: folder of runs.
    """
    with FileLock(folder / "runs.lock"):  # several processes may finish a run at once
        entries = list(finished_runs(dataset, folder).values())
        text = json.dumps(entries)
        rounded = json.loads(text, parse_float=lambda number: round(float(number), 5))
        write_json(CHECKPOINTS / dataset / "runs.json", {"dataset": dataset, "runs": rounded})


def run_path(run_id: str, dataset: str, out: Path) -> Path | None:
    """The checkpoint of a run: the one that was trained in a folder, else the shipped one.

    Args:
        run_id: today's id of the run.
        dataset: name of the data set; its shipped checkpoints are in checkpoints/<dataset>.
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
    for card_path in sorted((CHECKPOINTS / dataset).glob("*/card.json")):
        shipped_id = str(read_card(card_path).get("id"))
        if todays_id(shipped_id) == run_id:
            return card_path.parent
    return None
