"""Does a student look where its teacher looks? Asked of all runs in a folder, so that the answer is about
ways of teaching and not about one pair of models: ``swys study agreement``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from tqdm import tqdm

from swys_utils.config import (
    CHECKPOINTS,
    SwysError,
    default_device,
    device_name,
    fast_bf16,
    write_json,
)
from swys_utils.data import DEFAULT_DATASET, Dataset
from swys_utils.explain import agreement, shuffled
from swys_utils.faithfulness import deletion_insertion, random_maps
from swys_utils.gradcam import METHODS, heatmaps
from swys_utils.metrics import mean_interval, t_interval
from swys_utils.models import load_checkpoint
from swys_utils.results import as_table
from swys_utils.training import predict

from .reference import TEST_SAMPLE, study_data
from .runs import RUNS, finished_runs, run_path

ANOTHER, BOTH = "another teacher", "soft targets + maps"
# method of a student's run -> its group
GROUPS = {"scratch": "alone", "kd_soft": "soft targets", "kd_explain": BOTH}
COMPARED = (("soft targets", "alone"), (BOTH, "alone"), (BOTH, "soft targets"))


def measure(
    dataset: str = DEFAULT_DATASET, folder: str = "", save_path: str | None = None
) -> list[dict]:
    """Compare the maps of all finished runs in a folder with their teacher's, on ``TEST_SAMPLE`` images. What
    is measured is kept after each run, and not measured again.

    Args:
        dataset: any 2D MedMNIST name with one label an image; the runs have to be of it.
        folder: finished runs of ``swys study reference``; default: ``runs/<dataset>``.
        save_path: the result, a JSON file; default: ``checkpoints/<dataset>/agreement.json``.

    Returns the printed table, see ``summary``. Raises SwysError: no real data, several labels an image.
    """
    data = study_data(dataset)
    data = replace(data, test=data.test.head(TEST_SAMPLE))
    if data.info.multi_label:
        raise SwysError(
            f"'{dataset}' has several labels an image; agreement needs one, as in bloodmnist"
        )
    path = Path(save_path or CHECKPOINTS / data.info.results_name / "agreement.json")
    rows = summary(agreement_over_runs(folder or RUNS / dataset, data, path))
    print(as_table(rows))
    return rows


def agreement_over_runs(folder: str | Path, data: Dataset, path: Path) -> dict:
    """Agreement of every run's signed heatmaps with its teacher's, for the class that the teacher predicts.

    Args:
        folder: finished runs of ``reference``; they and the shipped ones are one teacher and its students.
        data: all of its test images are explained; none of them chose anything.
        path: the result, written after each run; what it says of the same runs is kept.

    Returns ``teacher`` (id, seed, scores, ``facts``); ``runs``, each with its group; ``maps``: method ->
    ``runs`` (id -> ``compare``) and ``differences``; ``differences`` of accuracy and of the gap; the facts.
    Raises SwysError: no finished run with its teacher, or runs of another data set.
    """
    folder, device, images = Path(folder), default_device(), data.test.images
    entries = finished_runs(data.info.name, folder)
    paths = {key: run_path(key, data.info.name, folder) for key in entries}
    taught_by, students = split_runs([entries[key] for key, path in paths.items() if path])
    known, earlier = json.loads(path.read_text()) if path.is_file() else {}, {}
    if known and same_run(known["teacher"], taught_by) and {*known["maps"]} == {*METHODS}:
        earlier = {run["id"]: run for run in known["runs"]}
    teacher, card = load_checkpoint(paths[taught_by["id"]], device, data.info.num_classes)
    if card["dataset"] != data.info.name:
        raise SwysError(
            f"'{folder}' holds runs of {card['dataset']}, not {data.info.name}; name another"
        )
    answers = predict(teacher, images).argmax(axis=1)
    theirs = {name: heatmaps(teacher, images, name, answers, signed=True) for name in METHODS}
    taught_by = known["teacher"] if earlier else taught_by | facts(teacher, images, answers)
    students = [run for run in students if not same_run(earlier.get(run["id"], {}), run)]
    missing = {run["id"] for run in students}
    runs = [run for key, run in earlier.items() if key not in missing]
    maps = {
        name: {run["id"]: known["maps"][name]["runs"][run["id"]] for run in runs}
        for name in METHODS
    }
    for run in tqdm(students, unit="run"):
        model, _ = load_checkpoint(paths[run["id"]], device, data.info.num_classes)
        runs.append(run | facts(model, images, answers))
        for name, rows in maps.items():
            ours = heatmaps(model, images, name, answers, signed=True)
            rows[run["id"]] = compare(theirs[name], ours, answers)
        write_json(path, result(data, taught_by, runs, maps))
    return result(data, taught_by, runs, maps)


def same_run(known: Mapping, run: Mapping) -> bool:
    """Has a row of an earlier result the scores of ``run``? A run can be trained anew under its id."""
    return all(known.get(key) == run[key] for key in ("accuracy", "auc"))


def result(data: Dataset, teacher: dict, runs: list, maps: dict) -> dict:
    """What ``agreement_over_runs`` returns, of the runs so far; ``maps``: method -> run id -> ``compare``."""
    scores = {what: {run["id"]: run[what] for run in runs} for what in ("accuracy", "gap")}
    alike = {
        name: {key: row["spearman"] for key, row in rows.items()} for name, rows in maps.items()
    }
    found = {"dataset": data.info.name, "source": data.info.source, "images": len(data.test)}
    found |= {"device": device_name(default_device()), "teacher": teacher, "runs": runs}
    found["differences"] = {what: differences(runs, values) for what, values in scores.items()}
    by_map = {
        key: {"runs": maps[key], "differences": differences(runs, alike[key])} for key in maps
    }
    return found | {"maps": by_map}


def differences(runs: list[dict], values: Mapping[str, float]) -> list[dict]:
    """Paired differences between ways of teaching: same seed, so same initial weights and order of images.

    Args:
        runs: with id, group and seed. values: run id -> what is compared.

    Returns:
        One dict for each comparison with at least two pairs: ``of`` - ``to``, mean, t interval, each seed's.
    """
    rows = []
    for of, to in COMPARED:
        a, b = (
            {run["seed"]: values[run["id"]] for run in runs if run["group"] == group}
            for group in (of, to)
        )
        each = [a[seed] - b[seed] for seed in sorted(set(a) & set(b))]
        if len(each) > 1:
            interval = dict(zip(("low", "high"), t_interval(each)))
            rows.append(
                {"of": of, "to": to, "mean": float(np.mean(each)), **interval, "seeds": each}
            )
    return rows


def group_means(runs: list[dict], values: Mapping[str, float]) -> dict[str, float]:
    """Mean over the runs of each group, students first; a group without runs is left out."""
    order = [*GROUPS.values(), ANOTHER]
    each = {group: [values[run["id"]] for run in runs if run["group"] == group] for group in order}
    return {group: float(np.mean(found)) for group, found in each.items() if found}


def summary(study: dict) -> list[dict]:
    """One row a method: chance, the mean of each group, and what soft targets and maps change (t intervals).

    Args:
        study: result of ``agreement_over_runs``.
    """
    runs, rows = study["runs"], []
    for name, part in study["maps"].items():
        values = {key: row["spearman"] for key, row in part["runs"].items()}
        row, each = {"map": name}, part["runs"].values()
        row |= {
            key: float(np.mean([r[key] for r in each])) for key in ("chance", "chance_in_class")
        }
        row |= group_means(runs, values)
        for d in differences(runs, values):
            row[f"{d['of']} - {d['to']}"] = f"{d['mean']:+.2f} [{d['low']:+.2f}, {d['high']:+.2f}]"
        rows.append(row)
    return rows


def split_runs(runs: list[dict]) -> tuple[dict, list[dict]]:
    """The teacher, and what is compared with it, with id, seed and scores; other methods are left out."""
    entries = {entry["id"]: entry for entry in runs if entry["method"] in GROUPS}
    teachers = {entry["teacher"] for entry in entries.values()} - {None}
    if len(teachers) != 1 or not teachers <= set(entries):
        named = ", ".join(sorted(teachers)) or "none"
        raise SwysError(
            f"agreement needs students of one finished teacher, found {named}; train them first"
        )
    (teacher,) = teachers
    rows = {}
    for key, entry in entries.items():
        group = GROUPS[entry["method"]]
        if key.split("/")[0] == teacher.split("/")[0]:
            group = ANOTHER if group == "alone" else ""
        scores = {
            name: round(entry["last"][name], 5) for name in ("accuracy", "auc")
        }  # as in runs.json
        rows[key] = {"id": key, "seed": entry["seed"], "group": group, **scores}
    return rows.pop(teacher) | {"group": "teacher"}, [row for row in rows.values() if row["group"]]


def compare(theirs: np.ndarray, ours: np.ndarray, answers: np.ndarray) -> dict:
    """Mean agreement of two models' maps (N, gh, gw), its 95 % interval, and chance: the agreement with the
    map of another image (``chance``), and of another one with the same answer (``chance_in_class``)."""
    same, *others = (
        agreement(theirs, maps) for maps in (ours, shuffled(ours), shuffled(ours, answers))
    )
    mean, low, high = mean_interval(same)
    means = {k: float(np.nanmean(x)) for k, x in zip(("chance", "chance_in_class"), others)}
    undefined = int(np.isnan(same).sum())
    return {"spearman": mean, "low": low, "high": high, **means, "undefined": undefined}


def facts(model: VisionTransformer, images: np.ndarray, answers: np.ndarray) -> dict[str, float]:
    """Does a model answer as its teacher does, and are its own maps true to it?

    Returns:
        ``same_prediction``: share of predictions that equal ``answers`` (N,); of its own Grad-CAM maps,
        ``empty``: share without a positive token, and ``gap``: mean of insertion minus deletion AUC, beside
        ``gap_random``: that of random maps.
    """
    own = predict(model, images).argmax(axis=1)
    maps = heatmaps(model, images, "grad_cam", own)
    candidates = {"gap": maps, "gap_random": random_maps(len(maps), maps.shape[1:])}
    with torch.autocast(
        default_device().type, torch.bfloat16, fast_bf16(default_device())
    ):  # 4 times faster
        scores = {
            key: deletion_insertion(model, images, m, own, steps=7) for key, m in candidates.items()
        }
    empty = float((maps.max(axis=(1, 2)) <= 0).mean())
    same = {"same_prediction": float((own == answers).mean()), "empty": empty}
    return same | {name: float(score.gap.mean()) for name, score in scores.items()}
