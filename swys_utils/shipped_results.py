"""Results that come with the repository: finished runs, agreement of places, planted marks.

They lie in ``checkpoints/<dataset>/``. Files of earlier versions are read under today's names.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from .config import CHECKPOINTS, SwysError
from .data import DEFAULT_DATASET
from .distillation import objective_id
from .models import SERIES


class SeriesResults(NamedTuple):
    """What is known of the models of the series on one data set.

    Attributes:
        dataset: the data set that the runs are of.
        images: number of its test images.
        runs: id in ``models.SERIES`` -> its finished runs, entries of runs.json.
        agreement: id of a way to explain -> id in ``SERIES`` -> for each run "spearman", the mean
            agreement of its maps with the teacher's, and "chance_in_class". The teacher is the
            first Base, so the rows of Base are of another one.
    """

    dataset: str
    images: int
    runs: dict[str, list[dict]]
    agreement: dict[str, dict[str, list[dict]]]


def series_results(dataset: str = DEFAULT_DATASET) -> SeriesResults:
    """The finished runs of a data set, or of the default one where there are none.

    Args:
        dataset: MedMNIST's name.

    Returns:
        The results; their ``dataset`` says which they are of.
    """
    content = read_results(dataset, "runs")
    if content is None:
        return series_results(DEFAULT_DATASET)
    runs: dict[str, list[dict]] = {}
    for entry in content["runs"]:
        name = series_id(entry["id"])
        if name is not None:
            runs.setdefault(name, []).append(entry)
    images = len(runs["vit_tiny"][0]["predicted"])
    return SeriesResults(dataset, images, runs, _agreement(dataset))


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


def series_id(run_id: str) -> str | None:
    """The model of the series that a run trained.

    Args:
        run_id: ``<model>/<way to teach>/seed<k>``, by today's names or earlier ones.

    Returns:
        An id in ``models.SERIES``; None for a run of another kind, such as one with few labels.
    """
    model, method, _ = run_id.split("/")
    try:
        objective = objective_id(method)
    except SwysError:
        return None
    for name, entry in SERIES.items():
        alike = SERIES.get(model)
        if alike is None or entry.objective != objective:
            continue
        geometry = (entry.timm_name, entry.img_size, entry.patch_size)
        if geometry == (alike.timm_name, alike.img_size, alike.patch_size):
            return name
    return None


def _agreement(dataset: str) -> dict[str, dict[str, list[dict]]]:
    """``SeriesResults.agreement`` of a data set; empty where nothing was measured."""
    content = read_results(dataset, "agreement")
    methods: dict[str, dict[str, list[dict]]] = {}
    if content is None:
        return methods
    for method, measured in content["maps"].items():
        rows: dict[str, list[dict]] = {}
        for run_id, row in measured["runs"].items():
            name = series_id(run_id)
            if name is not None:
                rows.setdefault(name, []).append(row)
        methods[method] = rows
    return methods
