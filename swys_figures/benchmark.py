"""Figures and the table of notebook 6: the time of each step, and what a file of int8 marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from swys_utils.benchmark import Timing, speedup
from swys_utils.config import write_json
from swys_utils.gradcam import overlay
from swys_utils.models import count_parameters, create_model
from swys_utils.plots import GREY, colour

from .data import images_above, show_image

RUNTIMES = ("torch", "ONNX", "int8")
MARKERS = {"torch": "o", "ONNX": "s", "int8": "^"}


def time_table(timings: Mapping[str, Timing]) -> list[dict[str, str]]:
    """Two models in three runtimes: milliseconds, and how many times faster than Base in torch.

    Args:
        timings: "Base, torch", "Base, ONNX", ..., "Tiny, int8" -> timings of one call.

    Returns:
        Rows for ``results.as_table``.
    """
    rows = []
    for model in ("Base", "Tiny"):
        row = {"one image": model}
        for runtime in RUNTIMES:
            timing = timings[f"{model}, {runtime}"]
            ratio, _, _ = speedup(timings["Base, torch"], timing)
            row[runtime] = f"{timing.median:.1f} ms, {ratio:.1f}x"
        rows.append(row)
    return rows


def speed_figure(timings: Mapping[str, Timing], macs: Mapping[str, int]) -> Figure:
    """How many times faster than Base in torch each step is, and how much less it calculates.

    Args:
        timings: "Base, torch" and others, named "<model>, <runtime>", of one call.
        macs: the same names -> multiply-accumulates of one image.
    """
    names = list(macs)
    figure, ax = plt.subplots(figsize=(8, 0.52 * len(names) + 1.1), layout="constrained")
    for place, name in enumerate(names):
        ratio, low, high = speedup(timings["Base, torch"], timings[name])
        shade = colour(name)
        marker = MARKERS.get(name.split(", ")[-1], "o")
        ax.plot(
            [low, high],
            [place, place],
            color=shade,
            lw=5,
            alpha=0.35,
        )
        ax.plot(ratio, place, marker, ms=9, color=shade)
        expected = macs["Base, torch"] / macs[name]
        ax.plot(expected, place, "|", ms=16, mew=3, color=GREY)
        ax.text(
            ratio,
            place - 0.27,
            f"{ratio:.1f}x",
            ha="center",
            va="bottom",
            color=shade,
        )
    ax.plot(
        [],
        [],
        "|",
        ms=14,
        mew=3,
        color=GREY,
        label="times less arithmetic",
    )
    ax.legend(frameon=False, loc="upper right")
    ax.axvline(1, color="black", lw=0.8, zorder=0)
    ax.set(xscale="log", xlabel="times faster than Base in torch (logarithmic)")
    ax.set_xticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
    ax.minorticks_off()
    ax.set(yticks=range(len(names)), ylim=(len(names) - 0.5, -0.8))
    ax.set_yticklabels(names)
    return figure


def file_maps(
    images: np.ndarray,
    rows: Mapping[str, np.ndarray],
    agreements: Mapping[str, np.ndarray] | None = None,
) -> Figure:
    """Images, and below them the maps of a model and of a file.

    Args:
        images: uint8 (N, H, W) or (N, H, W, 3).
        rows: label -> maps of these images and perhaps of more, float (M, gh, gw).
        agreements: label -> a number for each image, which stands below its map.
    """
    size = (1.35 * len(images) + 1.2, 1.45 * (len(rows) + 1))
    figure, axes = images_above(images, len(rows), size)
    for row, (label, maps) in zip(axes[1:], rows.items()):
        row[0].set_ylabel(label, fontsize=10)
        pictures = overlay(
            images,
            maps[: len(images)],
            alpha=0.7,
            size=112,
        )
        for ax, picture in zip(row, pictures):
            show_image(ax, picture)
        for ax, value in zip(row, (agreements or {}).get(label, ())):
            ax.set_xlabel(f"agreement {value:.2f}", fontsize=9)
    return figure


def as_html(rows: Sequence[Mapping[str, str]], note: str) -> str:
    """Rows as a table for a notebook.

    Args:
        rows: with the same keys, the names of the columns.
        note: stands below.
    """
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    cells = ["<td>" + "</td><td>".join(line) + "</td>" for line in lines]
    return f"<table><tr>{'</tr><tr>'.join(cells)}</tr></table><p>{note}</p>"


def step_table(
    timings: Mapping[str, Timing], macs: Mapping[str, int], files: Mapping[str, Path]
) -> list[dict[str, str]]:
    """Each step with its weights, arithmetic, file and time.

    Args:
        timings: "<model>, <step>" -> timings of one call, "Base, torch" among them.
        macs: the same names, in the order of the rows -> multiply-accumulates of one image.
        files: the same names, of those that are files -> path.

    Returns:
        Rows for ``as_html``.
    """
    rows = []
    for name in macs:
        model = create_model("vit_base" if name.startswith("Base") else "vit_tiny", 2)
        ratio, low, high = speedup(timings["Base, torch"], timings[name])
        megabytes = 4 * count_parameters(model) / 1e6
        if name in files:
            megabytes = files[name].stat().st_size / 1e6
        row = {
            "model": name,
            "weights": f"{count_parameters(model) / 1e6:.1f} M",
            "MACs": f"{macs[name] / 1e9:.2f} G",
            "size": f"{megabytes:.0f} MB",
            "one image": f"{timings[name].median:.1f} ms",
            "times faster [95 %]": f"{ratio:.1f} [{low:.1f}, {high:.1f}]",
        }
        rows.append(row)
    return rows


def keep_table(rows: Sequence[Mapping[str, str]], note: str, folder: Path) -> None:
    """Write the table for ``make tutorial``, which prints it at its end.

    Args:
        rows: of ``step_table``.
        note: stands below.
        folder: gets benchmark_table.json.
    """
    content = {
        "title": "What each step saves",
        "columns": list(rows[0]),
        "rows": [list(row.values()) for row in rows],
        "note": note,
    }
    write_json(folder / "benchmark_table.json", content)
