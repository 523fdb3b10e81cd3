"""Which answers and which errors does a student take over? ``swys study inheritance``.

Every finished run has its answers in runs.json, so nothing is trained or asked here. A teacher's
error is inherited when its student gives the same wrong answer. Two models that know nothing of
each other share errors, too, because some images are hard: so the students stand between Tiny
trained alone and another Base.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from swys_figures.runs import ANOTHER
from swys_utils.config import CHECKPOINTS, SwysError, write_json
from swys_utils.data import DEFAULT_DATASET
from swys_utils.results import as_table

from .intervals import with_interval
from .kinds import BASE, all_kinds
from .reference import one_label_data
from .report import grouped, right
from .runs import RUNS, answers, finished_runs


def inheritance(
    dataset: str = DEFAULT_DATASET, folder: str = "", save_path: str = ""
) -> list[dict]:
    """Compare the answers of all finished runs with those of Base, seed 0.

    Args:
        dataset: any 2D MedMNIST name with one label an image; the runs have to be of it.
        folder: finished runs beside the shipped ones; default: runs/<dataset>.
        save_path: the result; default: checkpoints/<dataset>/inheritance.json.

    Returns:
        The printed table, see ``summary``.

    Raises:
        SwysError: no real data, several labels an image, or no run of Base.
    """
    data = one_label_data(dataset)
    entries = list(finished_runs(dataset, Path(folder or RUNS / dataset)).values())
    result = inherited_by_runs(entries, data.test.labels)
    path = Path(save_path or CHECKPOINTS / data.info.results_name / "inheritance.json")
    write_json(path, result)
    rows = summary(result["runs"])
    print(as_table(rows))
    often = [image for image in result["changed"] if image["share"] >= 0.5]
    count = f"{len(often)} of {len(data.test)} images"
    print(f"{count}: half of the Tinys or more, taught ones among them, differ from Base")
    return rows


def inherited_by_runs(entries: Sequence[dict], labels: np.ndarray) -> dict:
    """What each run has in common with Base, seed 0.

    Args:
        entries: of runs.json, as ``read_runs`` returns them.
        labels: int (N,), of the test images.

    Returns:
        ``teacher``, its id; ``runs``: ``in_common`` of each other run with its id, seed and group;
        ``changed``: for each image on which a Tiny with all labels and Base differ its position,
        its label, the teacher's answer, and the share of these runs, the most frequent first.

    Raises:
        SwysError: no run of that Base, a run of other images, or no error that could be shared.
    """
    groups = grouped(entries)
    if 0 not in groups[BASE]:
        missing = BASE.run_id(0)
        raise SwysError(f"no run {missing}; 'swys study reference' trains it, see its --only")
    teacher = groups[BASE][0]
    right(teacher, labels)  # refuses a run of other images
    teacher_answers = answers(teacher)
    rows = []
    of_tinys = []
    for kind in all_kinds():
        for seed, run in sorted(groups[kind].items()):
            if run is teacher:
                continue
            right(run, labels)  # refuses a run of other images
            own = answers(run)
            group = ANOTHER if kind == BASE else kind.title
            shared = in_common(teacher_answers, own, labels)
            rows.append({"id": run["id"], "seed": seed, "group": group} | shared)
            if kind.model.startswith("vit_tiny") and kind.label_share == 1:
                of_tinys.append(own)
    return {
        "teacher": teacher["id"],
        "images": len(labels),
        "runs": rows,
        "changed": _changed_images(teacher_answers, of_tinys, labels),
    }


def _changed_images(
    teacher: np.ndarray, students: Sequence[np.ndarray], labels: np.ndarray
) -> list[dict]:
    """``changed`` of ``inherited_by_runs``, from answers, each int (N,)."""
    differing = [student != teacher for student in students]
    shares = np.mean(differing, axis=0) if differing else np.zeros(len(labels))
    changed = []
    for index in np.argsort(-shares, kind="stable"):
        if shares[index] > 0:
            image = {
                "index": int(index),
                "label": int(labels[index]),
                "teacher": int(teacher[index]),
                "share": round(float(shares[index]), 3),
            }
            changed.append(image)
    return changed


def in_common(teacher: np.ndarray, student: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Answers and errors that two models share.

    Args:
        teacher: answers, int (N,).
        student: answers, int (N,).
        labels: int (N,).

    Returns:
        ``same_answer``: share of the images; ``inherited``: of the teacher's errors, the share that
        the student repeats, same wrong answer; ``by_chance``: the same of a model that gives this
        answer to images of this label as often, but to any of them; ``teacher_errors``: how many.

    Raises:
        SwysError: the teacher makes no error.
    """
    wrong = teacher != labels
    if not wrong.any():
        raise SwysError("the teacher makes no error, so none can be inherited")
    by_chance = []
    for label, answer in zip(labels[wrong], teacher[wrong]):
        by_chance.append((student[labels == label] == answer).mean())
    return {
        "same_answer": round(float((teacher == student).mean()), 5),
        "inherited": round(float((student == teacher)[wrong].mean()), 5),
        "by_chance": round(float(np.mean(by_chance)), 5),
        "teacher_errors": int(wrong.sum()),
    }


def summary(runs: Sequence[dict]) -> list[dict]:
    """One row for each group of runs, with intervals over seeds.

    Args:
        runs: of ``inherited_by_runs``.

    Returns:
        Rows for ``as_table``.
    """
    rows = []
    for group in dict.fromkeys(run["group"] for run in runs):
        members = [run for run in runs if run["group"] == group]
        row = {"runs": group, "seeds": len(members)}
        for key in ("same_answer", "inherited", "by_chance"):
            row[key] = with_interval([run[key] for run in members])
        rows.append(row)
    return rows
