"""Figures and the table of notebook 6: the time of each step, and what a file of int8 marks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from swys_utils.benchmark import Timing, speedup
from swys_utils.config import write_json
from swys_utils.curve_names import name_ends
from swys_utils.models import count_parameters, create_model
from swys_utils.plots import GREY, colour
from swys_utils.splits import Split
from swys_utils.training import predict

from .data import show_image
from .heatmaps import draw_patches

RUNTIMES = ("torch", "ONNX", "int8")
PROGRAMS = ("torch", "int8 file")  # whose maps are compared


def width_figure(timings: Mapping[str, Timing], expected: float) -> Figure:
    """How much faster Tiny is than Base in each program: an arrow from one time to the other.

    Args:
        timings: "Base, torch", "Base, ONNX", ..., "Tiny, int8" -> timings of one call.
        expected: how many times less Tiny calculates, the length of the grey arrows.
    """
    figure, ax = plt.subplots(figsize=(8, 3.8), layout="constrained")
    for place, runtime in enumerate(RUNTIMES):
        base = timings[f"Base, {runtime}"]
        tiny = timings[f"Tiny, {runtime}"]
        _draw_runtime(ax, place, base, tiny, expected)
    ax.set(xscale="log", xlabel="time for one image (ms, logarithmic)")
    shortest = min(timings[f"Base, {runtime}"].median for runtime in RUNTIMES) / expected
    longest = timings["Base, torch"].median
    _label_times(ax, shortest, longest)
    rows = range(len(RUNTIMES))
    ax.set_yticks(rows, RUNTIMES, fontsize=11)
    ax.set_ylim(len(RUNTIMES) - 0.4, -0.6)
    return figure


def _draw_runtime(ax: Axes, place: float, base: Timing, tiny: Timing, expected: float) -> None:
    """The row of a program: an arrow from Base's time to Tiny's, above it the one in grey."""
    _arrow(ax, base.median, base.median / expected, place - 0.2, GREY)
    _arrow(ax, base.median, tiny.median, place, "black")
    ratio, _, _ = speedup(base, tiny)
    middle = base.median / np.sqrt(expected)
    words = f"arithmetic alone: {expected:.1f} times"
    ax.text(
        middle,
        place - 0.24,
        words,
        color=GREY,
        ha="center",
        va="bottom",
    )
    for name, timing in {"Base": base, "Tiny": tiny}.items():
        shade = colour(name)
        ax.plot(timing.median, place, "o", ms=9, color=shade)
        text = f"{name}\n{timing.median:.1f} ms"
        ax.text(
            timing.median,
            place + 0.13,
            text,
            color=shade,
            ha="center",
            va="top",
        )
    middle = np.sqrt(base.median * tiny.median)
    words = f"{ratio:.1f} times faster"
    ax.text(
        middle,
        place + 0.1,
        words,
        ha="center",
        va="top",
    )


def _label_times(ax: Axes, shortest: float, longest: float) -> None:
    """Round times at a logarithmic axis from the shortest to the longest, ms."""
    round_times = np.array([0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500])
    is_shown = (round_times > shortest) & (round_times < 2 * longest)
    ticks = round_times[is_shown]
    ax.set_xticks(ticks, [f"{ms:g}" for ms in ticks])
    ax.minorticks_off()
    ax.set_xlim(0.85 * shortest, 1.3 * longest)


def fixed_part_figure(
    lines: Mapping[str, tuple[float, float]],
    billions: Mapping[str, float],
    check: tuple[str, float, float],
) -> Figure:
    """Time against arithmetic, a line for each program; on the right the lower left corner.

    Args:
        lines: program -> the time at no arithmetic, ms, and the ms for each billion
            multiply-accumulates.
        billions: model -> its multiply-accumulates, in billions; the lines go through them.
        check: a third model that the line of torch has not seen: its name, billions, and ms.
    """
    figure, (whole, corner) = plt.subplots(1, 2, figsize=(8, 3.1))
    figure.set_layout_engine("constrained")
    title, foretold_at, measured = check
    for ax in (whole, corner):
        for program, style in zip(lines, ("-", "--", ":")):
            _draw_program(ax, program, lines[program], billions, style)
        ax.plot(foretold_at, measured, "o", color=colour(title), mfc="white")
        ax.set_xlabel("billion multiply-accumulates")
        ax.set_xlim(left=0)
        ax.set_ylim(bottom=0)
    whole.set_ylabel("ms for one image")
    whole.set_title("Base (blue) and Tiny (orange)", loc="left", fontsize=11)
    most = max(billions.values())
    at_base = {}
    for program, (fixed, growing) in lines.items():
        at_base[program] = (fixed + growing * most, "black")
    _, top = whole.get_ylim()
    name_ends(whole, most, at_base, gap=0.09 * top)
    _draw_corner(corner, lines, min(billions.values()), check)
    return figure


def _draw_corner(
    corner: Axes,
    lines: Mapping[str, tuple[float, float]],
    smallest: float,
    check: tuple[str, float, float],
) -> None:
    """The lower left corner: where each line begins, and the model that none has seen."""
    title, foretold_at, measured = check
    right = 2.2 * smallest
    ends = {}
    top = 0.0
    for program, (fixed, growing) in lines.items():
        ms = fixed + growing * right
        name = f"{program}:\n{fixed:.1f} ms fixed"
        ends[name] = (ms, "black")
        top = max(top, ms)
    name_ends(corner, right, ends, gap=0.16 * top)
    corner.annotate(
        title,
        (foretold_at, measured),
        xytext=(0.1 * smallest, 0.85 * top),
        arrowprops={"arrowstyle": "-", "color": GREY},
    )
    corner.set_xlim(0, right)
    corner.set_ylim(0, 1.1 * top)
    corner.set_title("enlarged: at 0 stands the fixed part", loc="left", fontsize=11)


def _draw_program(
    ax: Axes,
    program: str,
    line: tuple[float, float],
    billions: Mapping[str, float],
    style: str,
) -> None:
    """The line of a program, its beginning, and the models that it goes through."""
    fixed, growing = line
    ends = np.array([0, max(billions.values())])
    ax.plot(ends, fixed + growing * ends, style, color="black", lw=1, label=program)
    ax.plot(0, fixed, "_", color="black", ms=12, mew=2, clip_on=False)
    for model, count in billions.items():
        ax.plot(count, fixed + growing * count, "o", color=colour(model))


def _arrow(ax: Axes, start: float, end: float, height: float, shade: str) -> None:
    style = {"arrowstyle": "-|>", "color": shade, "linewidth": 1.5, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", (end, height), (start, height), arrowprops=style)


def answers_by_bits(
    model: VisionTransformer, test: Split, rounded_to: Callable[[Tensor, int], Tensor]
) -> list[dict[str, str]]:
    """How many answers change when all matrices are rounded to fewer and fewer bits.

    Args:
        model: is left as it was.
        test: the images that are asked about.
        rounded_to: a matrix and a number of bits -> the matrix that is left.

    Returns:
        Rows for ``results.as_table``.
    """
    rows = []
    for bits in (8, 6, 5, 4, 3, 2):
        changed = changed_by_rounding(model, test.images, rounded_to, bits)
        rows.append({"bits": str(bits), "answers that change": f"{changed.mean():.1%}"})
    return rows


def changed_by_rounding(
    model: VisionTransformer,
    images: np.ndarray,
    rounded_to: Callable[[Tensor, int], Tensor],
    bits: int,
) -> np.ndarray:
    """Which answers change when all matrices of a model are rounded.

    Args:
        model: is left as it was.
        images: uint8 (N, H, W) or (N, H, W, 3).
        rounded_to: a matrix and a number of bits -> the matrix that is left.
        bits: of each weight.

    Returns:
        bool (N,).
    """
    before = predict(model, images).argmax(axis=1)
    rounded = rounded_model(model, rounded_to, bits)
    return predict(rounded, images).argmax(axis=1) != before


def rounded_to(weights: Tensor, bits: int) -> Tensor:
    """A matrix with few bits for each weight: whole numbers times one scale for each row.

    Args:
        weights: float (outputs, inputs).
        bits: 2 or more; with 2, a weight is -1, 0 or 1 times the scale.
    """
    largest = 2 ** (bits - 1) - 1
    scale = weights.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / largest
    return (weights / scale).round() * scale


def rounded_model(
    model: VisionTransformer, rounded_to: Callable[[Tensor, int], Tensor], bits: int
) -> VisionTransformer:
    """A copy of a model with rounded matrices.

    Args:
        model: is left as it was.
        rounded_to: a matrix and a number of bits -> the matrix that is left.
        bits: of each weight.
    """
    rounded = deepcopy(model)
    for weights in rounded.parameters():
        if weights.ndim == 2:
            weights.data = rounded_to(weights.data, bits)
    return rounded


def file_maps(
    image: np.ndarray,
    pairs: Mapping[str, tuple[np.ndarray, np.ndarray]],
    agreements: Mapping[str, float],
) -> Figure:
    """An image, and beside it the maps of a model, above those of its file.

    The two maps of a pair have one scale, from 0 to the highest value in them; a map's own highest
    value stands below it.

    Args:
        image: uint8 (H, W) or (H, W, 3).
        pairs: title -> the map of torch and the map of the file, float (gh, gw).
        agreements: title -> how far the two agree, which stands below the file's.
    """
    figure = plt.figure(figsize=(6.4, 5), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.12)
    axes = figure.subplots(len(PROGRAMS), 1 + len(pairs))
    show_image(axes[0, 0], image)
    axes[0, 0].set_title("the X-ray", fontsize=10)
    axes[1, 0].axis("off")
    for column, (title, maps) in enumerate(pairs.items(), start=1):
        top = max(one.max() for one in maps)
        below = [f"highest {one.max():.2g}" for one in maps]
        below[1] += f", agreement {agreements[title]:.2f}"
        for ax, program, one, words in zip(axes[:, column], PROGRAMS, maps, below):
            draw_patches(ax, one, image.shape, top=top)
            ax.set_title(f"{program}: {title}", fontsize=10)
            ax.set_xlabel(words, fontsize=9)
    return figure


def step_table(
    timings: Mapping[str, Timing], macs: Mapping[str, int], files: Mapping[str, Path]
) -> list[dict[str, str]]:
    """Each step with its weights, arithmetic, file and time.

    Args:
        timings: "<model>, <step>" -> timings of one call, "Base, torch" among them.
        macs: the same names, in the order of the rows -> multiply-accumulates of one image.
        files: the same names, of those that are files -> path.

    Returns:
        Rows for ``as_table``.
    """
    rows = []
    for name in macs:
        weights = parameters_of("vit_base" if name.startswith("Base") else "vit_tiny")
        ratio, low, high = speedup(timings["Base, torch"], timings[name])
        megabytes = 4 * weights / 1e6
        if name in files:
            megabytes = files[name].stat().st_size / 1e6
        row = {
            "model": name,
            "weights": f"{weights / 1e6:.1f} M",
            "MACs": f"{macs[name] / 1e9:.2f} G",
            "size": f"{megabytes:.0f} MB",
            "one image": f"{timings[name].median:.1f} ms",
            "times faster [95 %]": f"{ratio:.1f} [{low:.1f}, {high:.1f}]",
        }
        rows.append(row)
    return rows


def parameters_of(name: str) -> int:
    """Number of weights of a model of the series with two classes, which is not made.

    Args:
        name: of the model.
    """
    with torch.device("meta"):
        return count_parameters(create_model(name, num_classes=2))


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
