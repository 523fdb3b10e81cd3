"""What a notebook leaves for later ones, and tables as text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
from filelock import FileLock
from timm.models.vision_transformer import VisionTransformer

from .config import BUILD, write_json
from .data import Dataset


def write_live(
    data: Dataset,
    key: str,
    model: VisionTransformer,
    history: Sequence[Mapping[str, float]],
) -> None:
    """Keep a curve of live training in ``build/results/<dataset>/live.json`` for later notebooks.

    Args:
        data: what the model was trained on.
        key: the name under which the curve is kept; an older curve of that name is replaced.
        model: the ViT that was trained; its image and patch size (px) are kept, too.
        history: the curve, as in ``plots.LiveCurve``.
    """
    path = BUILD / "results" / data.info.results_name / "live.json"
    curve = {
        "img_size": model.patch_embed.img_size[0],
        "patch_size": model.patch_embed.patch_size[0],
        "history": list(history),
    }
    with FileLock(BUILD / "live.lock"):  # two notebooks may run at once
        curves = {}
        if path.is_file():
            curves = json.loads(path.read_text("utf-8"))
        curves[key] = curve
        write_json(path, curves)


def read_live(data: Dataset, key: str) -> list[dict[str, float]]:
    """The curve that an earlier notebook kept by ``write_live``.

    Args:
        data: what the model was trained on.
        key: the name under which the curve is kept.

    Returns:
        Its history; empty where no notebook has kept one.
    """
    path = BUILD / "results" / data.info.results_name / "live.json"
    if not path.is_file():
        return []
    curves = json.loads(path.read_text("utf-8"))
    return curves.get(key, {"history": []})["history"]


def as_table(rows: Sequence[Mapping]) -> str:
    """Rows as text to print, in columns as wide as their longest cell.

    Args:
        rows: mappings with the same keys, the names of the columns; floats get three decimals.

    Raises:
        ValueError: a row has other keys than the first.
    """
    if not rows:
        return "(nothing to compare yet)"
    if any(list(row) != list(rows[0]) for row in rows):
        raise ValueError("rows of a table need the same keys in the same order")
    lines = [list(rows[0])]
    for row in rows:
        cells = []
        for value in row.values():
            cells.append(f"{value:.3f}" if isinstance(value, float) else str(value))
        lines.append(cells)
    widths = [max(len(cell) for cell in column) for column in zip(*lines)]
    text = []
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths)]
        text.append("  ".join(cells).rstrip())
    return "\n".join(text)


def with_range(values: Sequence[float] | np.ndarray, form: str) -> str:
    """A mean as text and, where there are several, the lowest and the highest value in brackets.

    Args:
        values: at least one.
        form: of each number, such as ".0%".
    """
    mean = f"{np.mean(values):{form}}"
    if len(values) == 1:
        return mean
    return f"{mean} ({min(values):{form}} to {max(values):{form}})"
