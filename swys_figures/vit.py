"""What notebooks 2 and 4 draw of a Vision Transformer: its parts and its attention."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from .data import MARK
from .marks import frame_row, number_in_circle

STREAM = 12.5  # height of the line of tokens in the diagram
LIGHT = "#E8F1F8"
TINTS = LinearSegmentedColormap.from_list("tints", [(*to_rgb(MARK), 0), (*to_rgb(MARK), 0.6)])


def diagram(image: np.ndarray, width: int = 768, classes: int = 2) -> Figure:
    """A Vision Transformer from an image to logits, with the shape of the data at each step.

    Args:
        image: uint8 (H, W) or (H, W, 3), drawn cut into 4 x 4 patches.
        width: of a token.
        classes: number of logits.
    """
    figure, ax = plt.subplots(figsize=(9.4, 4.5), layout="constrained")
    ax.set(xlim=(0, 100), ylim=(0, 46))
    ax.axis("off")
    parts = (
        (22, 26),
        (23.6, 37.2),
        (33.6, 1.5),
        (38, 41.7),
        (96.3, 32),
    )
    for number, place in enumerate(parts, start=1):
        number_in_circle(ax, place, number)
    _draw_cut_image(ax, image)
    _arrow(ax, (20, 22), (24, 22))
    _draw_tokens(ax, 25)
    _box(ax, (35, 6.5, 41, 32.5), "")
    ax.text(
        55.5,
        41,
        "one of 12 blocks, one after the other",
        ha="center",
        fontsize=11,
    )
    _draw_branch(ax, 38.5, "attention:\ntokens read\neach other")
    _draw_branch(ax, 57.5, "MLP:\neach token is\nchanged by itself")
    _arrow(ax, (30.5, STREAM), (79, STREAM))
    _words(ax, 55.5, 9.6, "this line is the residual connection", color="black")
    _draw_tokens(ax, 80)
    _arrow(ax, (85, 34.6), (91.5, 30.8), MARK)
    _box(ax, (87.5, 21, 9, 8), "norm,\nhead")
    _arrow(ax, (92, 20.5), (92, 14.5))
    _words(ax, 92, 13, f"{classes} logits", color="black")
    _arrow(ax, (92, 10), (92, 4.5))
    _words(ax, 96.5, 8.4, "softmax")
    _words(ax, 92, 3.6, "probabilities", color="black")
    _words(ax, 10, 4.5, "image\n(3, 28, 28)\n16 patches of 7 x 7")
    _words(ax, 27.5, 4.5, f"16 patches and CLS\n+ position\n(17, {width})")
    _words(ax, 55.5, 4.5, f"the shape stays (17, {width})")
    _words(ax, 80.5, 4.5, f"17 tokens\n(17, {width})")
    return figure


def last_block() -> Figure:
    """The last block of a ViT: where patches can still change the answer, and where no longer."""
    figure, ax = plt.subplots(figsize=(9.4, 4.0), layout="constrained")
    ax.set(xlim=(0, 100), ylim=(-3, 42))
    ax.axis("off")
    _draw_tokens(ax, 2)
    _arrow(ax, (8, 20), (13, 20))
    _box(ax, (14, 14, 8, 12), "norm1")
    _arrow(ax, (23, 20), (33, 20))
    _box(ax, (34, 14, 14, 12), "attention:\nCLS reads\nthe patches")
    _arrow(ax, (49, 20), (54, 20))
    _box(ax, (55, 14, 14, 12), "MLP:\neach token\nby itself")
    _arrow(ax, (70, 20), (75, 20))
    _draw_tokens(ax, 76, patches="#C9CED2")
    _arrow(ax, (81.5, 34.6), (88, 30), MARK)
    _box(ax, (89, 21, 8, 8), "norm,\nhead")
    ax.annotate(
        "Grad-CAM asks here:\neach patch can still\nchange the answer",
        (28, 20.6),
        (28, 38),
        ha="center",
        va="top",
        fontsize=10,
        arrowprops={"arrowstyle": "->", "color": MARK},
    )
    _words(ax, 4.5, 5, "17 tokens")
    _words(ax, 78.5, 5, "nobody reads these patches:\ntheir gradient is 0", color="#9A4A4A")
    _words(ax, 58, 37, "the last block (residual connections left out)")
    return figure


def _words(ax: Axes, x: float, y: float, text: str, color: str = "#444444", **style: Any) -> None:
    """Words below a point."""
    ax.text(
        x,
        y,
        text,
        ha="center",
        va="top",
        fontsize=10,
        color=color,
        **style,
    )


def _draw_cut_image(ax: Axes, image: np.ndarray) -> None:
    """The 16 patches, with gaps between them."""
    side = image.shape[0] // 4
    for row in range(4):
        for column in range(4):
            patch = image[row * side : (row + 1) * side, column * side : (column + 1) * side]
            left = 1 + 4.7 * column
            bottom = 29 - 6.6 * row
            extent = (left, left + 4.3, bottom, bottom + 6)
            ax.imshow(
                patch,
                cmap="gray",
                vmin=0,
                vmax=255,
                extent=extent,
                aspect="auto",
            )


def _draw_tokens(ax: Axes, left: float, patches: str = "#0072B2") -> None:
    """CLS and 16 patch tokens as bars; ``patches`` is the colour of the latter."""
    for number in range(17):
        shade = MARK if number == 0 else patches
        bottom = 34 - 1.65 * number
        bar = Rectangle((left, bottom), 4.5, 1.2, color=shade, alpha=0.9)
        ax.add_patch(bar)
    ax.text(
        left + 2.2,
        36.3,
        "CLS",
        ha="center",
        fontsize=10,
        color="#A06A00",
    )


def _box(ax: Axes, place: tuple[float, float, float, float], text: str) -> None:
    left, bottom, width, height = place
    box = FancyBboxPatch((left, bottom), width, height, boxstyle="round,pad=0.3")
    box.set(facecolor=LIGHT, edgecolor="#5B7F9B")
    ax.add_patch(box)
    ax.text(
        left + width / 2,
        bottom + height / 2,
        text,
        ha="center",
        va="center",
        fontsize=10,
    )


def _arrow(
    ax: Axes, start: tuple[float, float], end: tuple[float, float], shade: str = "#444444"
) -> None:
    style = {"arrowstyle": "-|>", "color": shade, "linewidth": 1.6, "mutation_scale": 14}
    ax.annotate("", end, start, arrowprops=style)


def _draw_branch(ax: Axes, left: float, text: str) -> None:
    """A way that leaves the stream of tokens, through norm and a box, and is added to it again."""
    out = left + 2
    back = left + 15
    _box(ax, (left, 26, 16.5, 9), text)
    _box(ax, (left - 0.5, 17.5, 5, 3.5), "norm")
    _arrow(ax, (out, STREAM), (out, 17.3))
    _arrow(ax, (out, 21.3), (out, 25.7))
    _arrow(ax, (back, 25.7), (back, STREAM + 1.2))
    sign = ax.text(
        back,
        STREAM,
        "+",
        ha="center",
        va="center",
        fontsize=13,
        color="#444444",
    )
    sign.set_bbox({"boxstyle": "circle,pad=0.12", "facecolor": "white", "edgecolor": "#444444"})


def number_tables(
    tables: Mapping[str, np.ndarray | Tensor],
    decimals: int = 2,
    row_name: str = "token",
    column_names: Mapping[str, str] | None = None,
    framed: int | None = None,
) -> Figure:
    """Small matrices side by side, each number on its square; darker is larger.

    Args:
        tables: title -> (rows, columns).
        decimals: of the numbers.
        row_name: what a row is.
        column_names: title -> what a column of this table is; those of others have no names.
        framed: number of a row, from 0, that has a frame in each table.
    """
    arrays = {title: np.asarray(table) for title, table in tables.items()}
    ratios = [table.shape[1] for table in arrays.values()]
    rows = max(len(table) for table in arrays.values())
    size = (8, 0.9 + 0.62 * rows)
    figure, axes = plt.subplots(
        1, len(arrays), figsize=size, width_ratios=ratios, squeeze=False, layout="constrained"
    )
    for ax, (title, table) in zip(axes[0], arrays.items()):
        ax.imshow(
            table,
            cmap="Blues",
            vmin=0,
            vmax=2 * max(table.max(), 1e-6),
            aspect="auto",
        )
        _write_numbers(ax, table, decimals)
        names = [f"{row_name} {number + 1}" for number in range(len(table))]
        ax.set_yticks(range(len(table)), names)
        ax.set(xticks=[])
        word = (column_names or {}).get(title)
        if word:
            columns = [f"{word} {number + 1}" for number in range(table.shape[1])]
            ax.set_xticks(range(len(columns)), columns)
            ax.tick_params(bottom=False)
        if framed is not None:
            frame_row(ax, framed, table.shape[1])
        ax.set_title(title, fontsize=11, loc="left")
    return figure


def _write_numbers(ax: Axes, table: np.ndarray, decimals: int) -> None:
    """Each number on its square."""
    for (row, column), value in np.ndenumerate(table):
        text = f"{value:.{decimals}f}"
        ax.text(
            column,
            row,
            text,
            ha="center",
            va="center",
            fontsize=12,
        )


def attention_figure(image: np.ndarray, attention: Mapping[str, Tensor]) -> Figure:
    """One head's attention: the whole matrix, and beside it the row of CLS over the image.

    Args:
        image: uint8 (H, W) or (H, W, 3).
        attention: title -> (1 + n, 1 + n), rows sum to 1; the first token is CLS.

    Returns:
        A figure with a row for each title: the matrix, with a frame around the row of CLS, and the
        image, each patch tinted by its share of that row, which is written in it.
    """
    rows = len(attention)
    figure, axes = plt.subplots(
        rows, 2, figsize=(7.6, 3.3 * rows), squeeze=False, layout="constrained"
    )
    strongest = max(float(table.max()) for table in attention.values())
    for (left, right), (title, table) in zip(axes, attention.items()):
        weights = np.asarray(table, dtype=float)
        side = int(np.sqrt(len(weights) - 1))
        shown = _draw_attention(left, weights, strongest)
        left.set_title(f"{title}: who reads whom", fontsize=11, loc="left")
        left.set_ylabel("reader")
        _draw_shares(
            right,
            image,
            weights[0, 1:].reshape(side, side),
            strongest,
        )
    bar = figure.colorbar(shown, ax=list(axes[:, 0]), shrink=0.6, ticks=MaxNLocator(4))
    bar.set_label("share that is read")
    axes[0, 1].set_title("the framed row: CLS reads, in %", fontsize=11, loc="left")
    return figure


def _draw_attention(ax: Axes, weights: np.ndarray, strongest: float) -> AxesImage:
    """The matrix, with a frame around the row of CLS."""
    count = len(weights)
    shown = ax.imshow(weights, cmap="Blues", vmin=0, vmax=strongest)
    frame_row(ax, 0, count)
    ax.set_xlabel("is read")
    ticks = range(0, count, 4)
    names = ["CLS", *map(str, ticks[1:])]
    ax.set_xticks(ticks, names)
    ax.set_yticks(ticks, names)
    return shown


def _draw_shares(ax: Axes, image: np.ndarray, shares: np.ndarray, strongest: float) -> None:
    """The row of CLS over an image whose patches are squares of side 1."""
    side = len(shares)
    ax.imshow(
        image,
        cmap="gray",
        vmin=0,
        vmax=255,
        extent=(0, side, side, 0),
    )
    ax.pcolormesh(shares, cmap=TINTS, vmin=0, vmax=strongest, edgecolors="white")
    for (row, column), share in np.ndenumerate(shares):
        percent = ax.text(column + 0.5, row + 0.5, f"{100 * share:.0f}", color="white")
        percent.set(ha="center", va="center", fontsize=11)
        percent.set_path_effects([withStroke(linewidth=2.5, foreground="black")])
    ax.set(xticks=[], yticks=[])


@torch.no_grad()
def bag_of_patches(
    vit: VisionTransformer, images: Tensor, reorder: Callable[[Tensor], Tensor]
) -> list[dict[str, str]]:
    """Logits of an image with its patches in order and in another one, as a table.

    Args:
        vit: with a CLS token.
        images: float (1, 3, S, S).
        reorder: tokens (1, 1 + n, width) -> the same in another order.

    Returns:
        A row in which each place has its position embedding, and one as if that were zero.
    """
    tokens = torch.cat([vit.cls_token, vit.patch_embed(images)], dim=1)
    orders = {"in order": tokens, "shuffled": reorder(tokens)}
    rows = []
    for title, positions in {"with": vit.pos_embed, "without": torch.zeros(1)}.items():
        row = {"positions": title}
        for order, changed in orders.items():
            placed = changed + positions.to(changed.device)
            logits = vit.head(vit.norm(vit.blocks(placed))[:, 0])
            row[order] = ", ".join(f"{value:.3f}" for value in logits[0].tolist())
        rows.append(row)
    return rows
