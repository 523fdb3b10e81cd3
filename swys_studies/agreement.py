"""Does a student mark, and rest on, what its teacher does? ``swys study agreement``.

All runs in a folder are compared: the answer is about ways of teaching, not about two models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
from timm.models.vision_transformer import VisionTransformer
from tqdm import tqdm

from swys_figures.runs import ANOTHER
from swys_utils.config import (
    CHECKPOINTS,
    SwysError,
    default_device,
    device_name,
    write_json,
)
from swys_utils.data import DEFAULT_DATASET, Dataset
from swys_utils.gradcam import METHODS
from swys_utils.models import load_checkpoint, weights_digest
from swys_utils.results import as_table
from swys_utils.training import predict

from .agreement_summary import differences, summary
from .compared_maps import compare, compare_siblings, own_measures, part_of, signed_maps
from .kinds import (
    AS_LONG_AS_BASE,
    AS_LONG_AS_TINY,
    BASE,
    TINY,
    kind_of,
    student_kinds,
    studied_kinds,
)
from .reference import one_label_data
from .result_files import is_of_same_images, only_writer, with_another
from .run_scores import TEST_SAMPLE
from .runs import (
    RUNS,
    finished_runs,
    read_study,
    results_name,
    run_path,
)


def measure(
    dataset: str = DEFAULT_DATASET,
    folder: str = "",
    save_path: str = "",
    patch: int = BASE.patch_size,
) -> list[dict]:
    """Compare the maps of all finished runs in a folder with their teacher's; what is done is kept.

    Args:
        dataset: any 2D MedMNIST name with one label an image; the runs have to be of it.
        folder: finished runs of ``swys study reference``; default: its own, ``runs/<results>``.
        save_path: the result, a JSON file; default: ``checkpoints/<results>/agreement.json``.
        patch: side of the patches of the runs' models, px; <results> is the data set, and
            <dataset>-p<patch> with others than Base's.

    Returns:
        The printed table, see ``summary``.

    Raises:
        SwysError: no real data, several labels an image, another process measures into the file,
            or as ``agreement_over_runs``.
    """
    data = one_label_data(dataset)
    data = replace(data, test=data.test.sample(TEST_SAMPLE))
    results = results_name(dataset, patch)
    path = Path(save_path or CHECKPOINTS / results / "agreement.json")
    with only_writer(path):
        study = agreement_over_runs(folder or RUNS / results, data, path, results)
    rows = summary(study)
    print(as_table(rows))
    return rows


@dataclass
class Measured:
    """What is measured so far.

    Attributes:
        teacher: id, seed, group and scores of the teacher, with ``own_measures``.
        runs: the same of each run that is compared with it.
        maps: id of a method of explaining -> id of a run -> ``compare``.
        siblings: id of a method -> "<id> and <id>" of two Tinys on their own -> ``compare``.
        device: the device, or devices, of what was measured before; empty at first.
        base: digest of the teacher's weights then, or digests: a file of fewer bits has another.
    """

    teacher: dict
    runs: list[dict] = field(default_factory=list)
    maps: dict[str, dict[str, dict]] = field(
        default_factory=lambda: {method: {} for method in METHODS}
    )
    siblings: dict[str, dict[str, dict]] = field(default_factory=dict)
    device: str = ""
    base: str = ""

    def measured_now(self, base: str) -> None:
        """Remember the device and the teacher's weights, by which something was measured.

        Args:
            base: digest of these weights.
        """
        self.device = with_another(self.device, device_name(default_device()))
        self.base = with_another(self.base, base)

    def add_siblings(self, siblings: dict[str, dict[str, dict]], base: str) -> None:
        """Take the pairs that are known now; if there are new ones, as ``measured_now`` does.

        Args:
            siblings: as the attribute, of all pairs.
            base: as for ``measured_now``.
        """
        found = {method: pairs for method, pairs in siblings.items() if pairs}
        if found != self.siblings:
            self.siblings = found
            self.measured_now(base)


def agreement_over_runs(
    folder: str | Path, data: Dataset, path: Path, results: str | None = None
) -> dict:
    """How every run's signed maps agree with its teacher's, for the class that this predicts.

    Args:
        folder: finished runs; with those of the shipped runs.json one teacher and its students.
        data: all of its test images are explained; none of them chose anything.
        path: the result, written as it grows; what it says of the same runs and images is kept.
        results: ``runs.results_name`` of a set with other patches, which is not asked for gaps.

    Returns:
        ``dataset``, ``source`` and ``images`` (their number); ``device``, ``base``, ``teacher``,
        ``runs`` and ``siblings`` as in ``Measured``; ``differences`` of accuracy and of the gap;
        ``maps``: id of a method -> ``runs`` (id -> ``compare``) and ``differences``.

    Raises:
        SwysError: no finished run with its teacher, or runs of another data set.
    """
    results = results or data.info.name
    entries = finished_runs(results, Path(folder))
    paths = _weights(entries, results, Path(folder))
    teacher_row, students = split_runs([entries[run_id] for run_id in paths])
    teacher = _load_teacher(paths[teacher_row["id"]], Path(folder), data)
    base = weights_digest(teacher)
    images = data.test.images
    predictions = predict(teacher, images).argmax(axis=1)
    own = partial(_own_row, images, predictions, results == data.info.name)
    teacher_maps = cache(partial(signed_maps, teacher, images, predictions))
    known = _measured_before(path, data, teacher_row, list(entries.values()))
    measured = known or Measured(own(teacher_row, teacher))
    for run in tqdm(students, unit="run"):
        run_id = run["id"]
        missing = [method for method in METHODS if run_id not in measured.maps[method]]
        if not missing:
            continue
        model, _ = load_checkpoint(paths[run_id], default_device(), data.info.num_classes)
        measured.measured_now(base)
        if all(run_id != row["id"] for row in measured.runs):
            measured.runs.append(own(run, model))
        for method in missing:
            student_maps = signed_maps(model, images, predictions, method)
            row = compare(teacher_maps(method), student_maps, predictions[part_of(method)])
            measured.maps[method][run_id] = row
        write_json(path, _result(data, measured))
    tinys = {run["id"]: paths[run["id"]] for run in students if run["group"] == TINY.title}
    measured.add_siblings(compare_siblings(tinys, images, predictions, measured.siblings), base)
    result = _result(data, measured)
    write_json(path, result)
    return result


def _load_teacher(path: Path, folder: Path, data: Dataset) -> VisionTransformer:
    """The model that the runs of a folder are compared with; it has to be of the same data."""
    teacher, card = load_checkpoint(path, default_device(), data.info.num_classes)
    if card["dataset"] != data.info.name:
        problem = f"holds runs of {card['dataset']}, not {data.info.name}"
        raise SwysError(f"'{folder}' {problem}; name another")
    return teacher


def _own_row(
    images: np.ndarray,
    predictions: np.ndarray,
    insertion: bool,
    row: dict,
    model: VisionTransformer,
) -> dict:
    """The row of a run, with what is measured of its model alone."""
    return row | own_measures(model, images, predictions, insertion)


def _weights(entries: Mapping[str, dict], results: str, folder: Path) -> dict[str, Path]:
    """Id of a run -> where its weights are; runs without weights are left out."""
    found = {run_id: run_path(run_id, results, folder) for run_id in entries}
    return {run_id: path for run_id, path in found.items() if path is not None}


def split_runs(entries: Sequence[dict]) -> tuple[dict, list[dict]]:
    """The teacher, and the runs that are compared with it; runs of other kinds are left out.

    Args:
        entries: entries of runs.json, as ``read_runs`` returns them.

    Returns:
        Two parts, with ``id``, ``seed``, ``group``, ``accuracy`` and ``auc`` of each run.

    Raises:
        SwysError: the runs have no teacher, or several, or the teacher is not among them.
    """
    compared_kinds = [BASE, *student_kinds(), AS_LONG_AS_BASE, AS_LONG_AS_TINY]
    compared = {}
    titles = {}
    teachers = set()
    for entry in entries:
        kind = kind_of(entry)
        if kind is not None and kind in compared_kinds:
            compared[entry["id"]] = entry
            titles[entry["id"]] = kind.title
        if kind is not None and kind in studied_kinds():
            teachers.add(entry["teacher"])
    teachers.discard(None)
    if len(teachers) != 1:
        named = ", ".join(sorted(teachers)) or "none"
        raise SwysError(
            f"agreement needs weights of students of one teacher, found {named}; train them first"
        )
    (teacher_id,) = teachers
    if teacher_id not in compared:
        raise SwysError(f"the weights of {teacher_id} are not there; train it with --only first")
    teacher = _row(compared.pop(teacher_id), "teacher")
    students = []
    for run_id, entry in compared.items():
        like_teacher = titles[run_id] == titles[teacher_id]
        students.append(_row(entry, ANOTHER if like_teacher else titles[run_id]))
    return teacher, students


def _row(entry: dict, group: str) -> dict:
    """What agreement.json says of a run; scores are rounded as in runs.json."""
    return {
        "id": entry["id"],
        "seed": entry["seed"],
        "group": group,
        "accuracy": round(entry["last"]["accuracy"], 5),
        "auc": round(entry["last"]["auc"], 5),
    }


def _measured_before(
    path: Path, data: Dataset, teacher: dict, entries: Sequence[dict]
) -> Measured | None:
    """What an earlier result says of the same teacher and the same images, if any.

    A run that was trained anew since then is left out. A run whose weights are no longer there
    keeps what was measured; a method that is new has nothing yet.
    """
    if not path.is_file():
        return None
    study = read_study(path)
    if not is_of_same_images(study, data) or not _same_scores(study["teacher"], teacher):
        return None
    _, known = split_runs(entries)  # also runs whose weights are not here
    current = {run["id"]: run for run in known}
    runs = []
    for run in study["runs"]:
        todays_run = current.get(run["id"], run)
        if _same_scores(run, todays_run):
            runs.append(run)
    kept = {run["id"] for run in runs}
    maps: dict[str, dict[str, dict]] = {method: {} for method in METHODS}
    for method in METHODS.keys() & study["maps"].keys():
        rows = study["maps"][method]["runs"]
        maps[method] = {run_id: row for run_id, row in rows.items() if run_id in kept}
    siblings: dict[str, dict[str, dict]] = {}
    for method, rows in study.get("siblings", {}).items():
        for pair, row in rows.items():
            if kept.issuperset(pair.split(" and ")):
                siblings.setdefault(method, {})[pair] = row
    base = study.get("base", "")  # an earlier version did not store it
    return Measured(study["teacher"], runs, maps, siblings, study["device"], base)


def _same_scores(known: Mapping, run: Mapping) -> bool:
    """Whether two rows are of the same training; a run can be trained anew under its id."""
    return known["accuracy"] == run["accuracy"] and known["auc"] == run["auc"]


def _result(data: Dataset, measured: Measured) -> dict:
    """What ``agreement_over_runs`` returns."""
    runs = measured.runs
    accuracy = {run["id"]: run["accuracy"] for run in runs}
    gap = {run["id"]: run["gap"] for run in runs if "gap" in run}
    maps = {}
    for method, rows in measured.maps.items():
        if not rows:
            continue  # a new method, and no weights to try it on
        spearman = {run_id: row["spearman"] for run_id, row in rows.items()}
        maps[method] = {"runs": rows, "differences": differences(runs, spearman)}
    return {
        "dataset": data.info.name,
        "source": data.info.source,
        "images": len(data.test),
        "device": measured.device,
        "base": measured.base,
        "teacher": measured.teacher,
        "runs": runs,
        "differences": {
            "accuracy": differences(runs, accuracy),
            "gap": differences(runs, gap),
        },
        "maps": maps,
        "siblings": measured.siblings,
    }
