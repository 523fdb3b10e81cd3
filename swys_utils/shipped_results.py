"""Results that come with the repository: finished runs, agreement of places, planted marks.

They lie in ``checkpoints/<dataset>/``. Files of earlier versions are read under today's names.
"""

from __future__ import annotations

import json
import re
from itertools import combinations
from typing import Any, NamedTuple

from .config import CHECKPOINTS, SwysError
from .data import DEFAULT_DATASET
from .models import SERIES

OLD_METHODS = {  # ways to teach, as earlier versions called them -> today's names
    "scratch": "labels",
    "kd_soft": "answers",
    "soft": "answers",
    "kd_explain": "maps",
    "explain": "maps",
    "kd_features": "features",
    "kd_coarse": "answers_p7",
    "few_scratch": "few_labels",
    "few_soft": "few_answers",
}
RUN_ID = re.compile(r"(\w+)/(\w+)/(seed\d+)")
FEW = {  # ways to teach where 1 % of the images have a label -> what a table calls them
    "few_labels": "Tiny, few labels",
    "few_answers": "answers of Base",
    "few_control": "control",
}


class SeriesResults(NamedTuple):
    """What is known of the models of the series on one data set.

    Attributes:
        dataset: the data set that the runs are of.
        images: number of its test images.
        runs: id in ``models.SERIES`` -> its finished runs, entries of runs.json.
        agreement: id of a way to explain -> id in ``SERIES`` -> for each run "spearman", the mean
            agreement of its maps with the teacher's, and "chance_in_class". The teacher is the
            first Base, so the rows of Base are of another one.
        siblings: id of a way to explain -> the same numbers of pairs of Tinys on their own, which
            differ in their seed: the random weights, the order of images, and dropped patches.
        same_answers: id in ``SERIES`` -> for each run the share of the test images with the answer
            of that first Base.
        siblings_answers: for each pair of Tinys on their own, the share of the images with the same
            answer.
        few_labels: a way to teach, key of ``FEW`` -> its finished runs with 1 % of the labels.
    """

    dataset: str
    images: int
    runs: dict[str, list[dict]]
    agreement: dict[str, dict[str, list[dict]]]
    siblings: dict[str, list[dict]]
    same_answers: dict[str, list[float]]
    siblings_answers: list[float]
    few_labels: dict[str, list[dict]]


def series_results(dataset: str = DEFAULT_DATASET) -> SeriesResults:
    """The finished runs of a data set, or of the default one where there are none.

    Args:
        dataset: MedMNIST's name.

    Returns:
        The results; their ``dataset`` says which they are of.

    Raises:
        SwysError: those of the default data set are not there.
    """
    content = read_results(dataset, "runs")
    if content is None or not content["runs"]:
        if dataset == DEFAULT_DATASET:
            raise SwysError(f"no runs.json below '{CHECKPOINTS}'; start Python in a clone")
        print(f"no finished runs of {dataset}: those of {DEFAULT_DATASET} are shown")
        return series_results()
    measured = read_results(dataset, "agreement") or {"runs": [], "maps": {}, "siblings": {}}
    runs: dict[str, list[dict]] = {}
    few: dict[str, list[dict]] = {}
    for entry in content["runs"]:
        name = series_id(entry["id"])
        method = OLD_METHODS.get(entry["method"], entry["method"])
        if method in FEW:
            few.setdefault(method, []).append(entry)
        elif name is not None:
            runs.setdefault(name, []).append(entry)
    return SeriesResults(
        dataset,
        len(content["runs"][0]["predicted"]),
        runs,
        agreement=_agreement(measured),
        siblings=_siblings(measured),
        same_answers=_same_answers_as_base(runs),
        siblings_answers=[_same(*pair) for pair in combinations(runs.get("vit_tiny", []), 2)],
        few_labels=few,
    )


def read_results(dataset: str, name: str) -> dict[str, Any] | None:
    """The content of a file of results.

    Args:
        dataset: MedMNIST's name.
        name: of the file, such as "runs", "agreement" or "planted".

    Returns:
        The content; None where there is no such file.
    """
    path = CHECKPOINTS / dataset / f"{name}.json"
    if not path.is_file():
        return None
    return json.loads(path.read_text("utf-8"))


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


def series_id(run_id: str) -> str | None:
    """The model of the series that a run trained.

    Args:
        run_id: ``<model>/<way to teach>/seed<k>``, by today's names or earlier ones.

    Returns:
        An id in ``models.SERIES``; None for a run of another kind, such as one with few labels.
    """
    model, objective, _ = todays_id(run_id).split("/")
    alike = SERIES.get(model)
    for name, entry in SERIES.items():
        if alike is None or entry.objective != objective:
            continue
        geometry = (entry.timm_name, entry.img_size, entry.patch_size)
        if geometry == (alike.timm_name, alike.img_size, alike.patch_size):
            return name
    return None


def deployed_models(dataset: str = DEFAULT_DATASET) -> list[dict[str, Any]]:
    """What int8 weights and coarser patches keep of Base, on a data set or else the default one.

    Args:
        dataset: MedMNIST's name.

    Returns:
        One entry for each model, as ``swys study deployed`` wrote it; Base is the first.
    """
    content = read_results(dataset, "deployed")
    if content is None and dataset != DEFAULT_DATASET:
        print(f"no rounded models of {dataset}: those of {DEFAULT_DATASET} are shown")
        return deployed_models()
    return content["models"] if content else []


PLANTED_EPOCHS = 2  # how long models with planted marks are usually trained


def planted_units(dataset: str = DEFAULT_DATASET, model: str = "vit_tiny") -> list[dict[str, Any]]:
    """What was measured of models with planted marks, on a data set or else the default one.

    Args:
        dataset: MedMNIST's name.
        model: the architecture.

    Returns:
        One entry for each model of the usual length, as ``swys study planted`` wrote it. A data set
        on which no Tiny obeys the mark has nothing to show, and the default one's are returned, of
        any architecture.
    """
    content = read_results(dataset, "planted") or {"units": []}
    units = [unit for unit in content["units"] if _has_usual_length(unit)]
    if dataset != DEFAULT_DATASET and not any(_is_obedient_tiny(unit) for unit in units):
        print(f"no model of {dataset} obeys a planted mark: those of {DEFAULT_DATASET} are shown")
        return planted_units(model=model)
    return [unit for unit in units if unit["model"] == model]


def _has_usual_length(unit: dict) -> bool:
    return unit.get("epochs", PLANTED_EPOCHS) == PLANTED_EPOCHS


def _is_obedient_tiny(unit: dict) -> bool:
    """Whether it is a cheating Tiny whose answers the mark turns in most images."""
    is_cheat = (unit["kind"], unit["model"]) == ("cheat", "vit_tiny")
    return is_cheat and unit["scores"]["flips"] > 0.5


def _same_answers_as_base(runs: dict[str, list[dict]]) -> dict[str, list[float]]:
    """``SeriesResults.same_answers``; nothing where there is no Base."""
    if "vit_base" not in runs:
        return {}
    base = runs["vit_base"][0]
    shares: dict[str, list[float]] = {}
    for name, entries in runs.items():
        for entry in entries:
            if entry is not base:
                shares.setdefault(name, []).append(_same(entry, base))
    return shares


def _same(one: dict, other: dict) -> float:
    """The share of the test images to which two runs give the same answer."""
    same = [a == b for a, b in zip(one["predicted"], other["predicted"])]
    return sum(same) / len(same)


def _agreement(content: dict) -> dict[str, dict[str, list[dict]]]:
    """``SeriesResults.agreement``, of the content of agreement.json."""
    methods: dict[str, dict[str, list[dict]]] = {}
    for method, measured in content["maps"].items():
        rows: dict[str, list[dict]] = {}
        for run_id, row in measured["runs"].items():
            name = series_id(run_id)
            if name is not None:
                rows.setdefault(name, []).append(row)
        methods[method] = rows
    return methods


def _siblings(content: dict) -> dict[str, list[dict]]:
    """``SeriesResults.siblings``, of the content of agreement.json."""
    pairs = content.get("siblings", {})
    return {method: list(rows.values()) for method, rows in pairs.items() if rows}
