"""What a notebook leaves for later ones, and tables as text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from filelock import FileLock
from torch import nn

from .config import BUILD, write_json
from .data import Dataset


def write_live(data: Dataset, key: str, model: nn.Module, history: Sequence[Mapping]) -> None:
    """Keep a curve in ``build/results/<dataset>/live.json`` for later notebooks: key -> ``img_size`` and
    ``patch_size`` (px) of the ViT, and its ``history``, as in `LiveCurve`."""
    path = BUILD / "results" / data.info.results_name / "live.json"
    geometry = {
        "img_size": model.patch_embed.img_size[0],
        "patch_size": model.patch_embed.patch_size[0],
    }
    with FileLock(BUILD / "live.lock"):  # notebooks may run at once
        entries = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        write_json(path, entries | {key: geometry | {"history": list(history)}})


def as_table(rows: Sequence[Mapping]) -> str:
    """Rows with the same keys as text to print."""
    if not rows:
        return "(nothing to compare yet)"
    cells = [[f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(rows[0], *cells)]
    lines = (
        "  ".join(c.ljust(w) for c, w in zip(line, widths)).rstrip()
        for line in (list(rows[0]), *cells)
    )
    return "\n".join(lines)
