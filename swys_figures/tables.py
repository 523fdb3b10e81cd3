"""Tables of shipped results that notebooks print: how alike the maps of two models are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from swys_utils.models import SERIES
from swys_utils.shipped_results import SeriesResults

COLUMNS = {"grad_cam": "Grad-CAM (chance)", "occlusion": "hiding (chance)"}


def agreement_table(results: SeriesResults) -> list[dict[str, str]]:
    """How much maps agree: Tiny's and another Base's with Base's, and those of two Tinys.

    Args:
        results: of a data set; what was not measured on it is left out.

    Returns:
        Rows for ``results.as_table``: mean agreement and, in brackets, chance; in how many images
        hiding has the same hottest patch; the number of runs by each ruler. A dash stands for what
        was not measured.
    """
    rows = []
    for name in ("vit_tiny", "vit_base"):
        if name not in results.agreement.get("grad_cam", {}):
            continue
        title = SERIES[name].title
        runs = {method: results.agreement.get(method, {}).get(name, []) for method in COLUMNS}
        compared = f"another {title} with Base" if name == "vit_base" else f"{title} with Base"
        rows.append(_agreement_row(compared, runs))
    if results.siblings:
        rows.append(_agreement_row("two Tinys with each other", results.siblings))
    return rows


def _agreement_row(compared: str, runs: Mapping[str, Sequence[Mapping]]) -> dict[str, str]:
    row = {"compared": compared}
    for method, title in COLUMNS.items():
        row[title] = _with_chance(runs.get(method, []), "spearman", "chance_in_class", "{:.2f}")
    hidden = runs.get("occlusion", [])
    row["same hottest patch by hiding (chance)"] = _with_chance(
        hidden, "same_top", "same_top_chance", "{:.0%}"
    )
    counts = [str(len(runs.get(method, []))) for method in COLUMNS]
    row["runs"] = ", ".join(counts)
    return row


def _with_chance(runs: Sequence[Mapping], key: str, chance: str, form: str) -> str:
    """Mean of a measure and, in brackets, by chance; a dash where no run has it."""
    measured = [run for run in runs if key in run]
    if not measured:
        return "-"
    value = np.mean([run[key] for run in measured])
    expected = np.mean([run[chance] for run in measured])
    return f"{form.format(value)} ({form.format(expected)})"


def deployed_table(models: Sequence[Mapping]) -> list[dict[str, str]]:
    """A row for each model, for ``results.as_table``.

    Args:
        models: of ``shipped_results.deployed_models``.
    """
    rows = []
    for model in models:
        row = {
            "model": model["title"],
            "MB": f"{model['megabytes']:.1f}",
            "accuracy": f"{model['accuracy']:.1%}",
            "AUC": f"{model['auc']:.3f}",
            "Base's answer": f"{model['same_answer']:.1%}",
        }
        for method, title in COLUMNS.items():
            found = model.get(method)
            text = "other patches"
            if found is not None:
                text = f"{found['spearman']:.2f} ({found['chance_in_class']:.2f})"
            row[title] = text
        rows.append(row)
    return rows
