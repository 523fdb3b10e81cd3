"""The table of shipped models that notebook 6 prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .agreement import beyond_chance

SHRUNK = (
    "Base",
    "Base, int8",
    "Base, 4 bits",
    "Base, 2 bits",
    "Tiny",
    "Tiny, answers",
    "Tiny, answers + maps",
)


def shrunk_table(models: Sequence[Mapping]) -> list[dict[str, str]]:
    """What is left of Base when it is rounded, and in a Tiny: a row for each way.

    Args:
        models: of ``shipped_results.deployed_models``.

    Returns:
        Rows for ``results.as_table``: size, accuracy, calibration error, the share of Base's
        answers, and agreement beyond chance with Base's reasons (hiding) and Grad-CAM maps, in %.
    """
    rows = []
    for model in models:
        if model["title"] in SHRUNK:
            row = {
                "model": model["title"],
                "MB": f"{model['megabytes']:.1f}",
                "right": f"{model['accuracy']:.1%}",
                "calibration error": f"{model['ece']:.3f}",
                "same answers": f"{model['same_answer']:.1%}",
                "same reasons": _percent(model["occlusion"]),
                "same map": _percent(model["grad_cam"]),
            }
            rows.append(row)
    return rows


def _percent(pair: Mapping) -> str:
    """Agreement beyond chance."""
    (percent,) = beyond_chance([pair])
    return f"{percent:.0f}%"
