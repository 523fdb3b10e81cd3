"""The table of all shipped models that notebook 6 prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

COLUMNS = {"grad_cam": "Grad-CAM (chance)", "occlusion": "hiding (chance)"}


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
