"""What notebook 2 draws of a Vision Transformer: its parts, its attention, its losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.patheffects import withStroke
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from swys_utils.data import Dataset
from swys_utils.plots import GREY, SCORES, LiveCurve, Scores, colour, spread_out
from swys_utils.recipe import SupervisedObjective, one_hot
from swys_utils.training import predict

LIGHT = "#E8F1F8"
MARK = "#E69F00"  # CLS, and what a figure points at
WATCHED = 100  # validation images whose loss is followed; all would take longer than training


def diagram(image: np.ndarray, width: int = 768, classes: int = 2) -> Figure:
    """A Vision Transformer from an image to logits, with the shape of the data at each step.

    Args:
        image: uint8 (H, W) or (H, W, 3), drawn cut into 4 x 4 patches.
        width: of a token.
        classes: number of logits.
    """
    figure, ax = plt.subplots(figsize=(9.4, 4.3), layout="constrained")
    ax.set(xlim=(0, 100), ylim=(0, 46))
    ax.axis("off")
    _draw_cut_image(ax, image)
    _draw_tokens(ax, 27)
    _box(ax, (41, 6, 32, 33), "")
    ax.text(57, 40.2, "12 blocks, one after the other", ha="center", fontsize=11)
    _box(ax, (48, 26, 22, 8), "attention:\ntokens read each other")
    _box(ax, (48, 11, 22, 8), "MLP: each token\nis changed by itself")
    _draw_residual(ax, 26)
    _draw_residual(ax, 11)
    _words(ax, 43.4, 25.5, "residual", rotation=90, color=GREY)
    _draw_tokens(ax, 77)
    _box(ax, (87, 19, 9, 8), "head")
    _arrow(ax, (20, 22), (25, 22))
    _arrow(ax, (32, 22), (40, 22))
    _arrow(ax, (73, 22), (76, 22))
    _arrow(ax, (81.5, 34.3), (91, 28), MARK)
    _arrow(ax, (91.5, 18.5), (91.5, 13))
    _words(ax, 91.5, 11.5, f"{classes} logits", color="black")
    _words(ax, 10, 4.5, "image\n(3, 28, 28)\n16 patches of 7 x 7")
    _words(ax, 29, 4.5, f"16 patches and CLS,\neach plus its place\n(17, {width})")
    _words(ax, 57, 4.5, f"the shape stays (17, {width})")
    _words(ax, 79, 4.5, f"17 tokens\n(17, {width})")
    return figure


def _words(ax: Axes, x: float, y: float, text: str, color: str = "#444444", **style: Any) -> None:
    """Words below a point."""
    ax.text(x, y, text, ha="center", va="top", fontsize=10, color=color, **style)


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


def _draw_tokens(ax: Axes, left: float) -> None:
    """CLS and 16 patch tokens as bars."""
    for number in range(17):
        shade = MARK if number == 0 else "#0072B2"
        bottom = 34 - 1.65 * number
        ax.add_patch(
            Rectangle(
                (left, bottom),
                4.5,
                1.2,
                color=shade,
                alpha=0.9,
            )
        )
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


def _draw_residual(ax: Axes, bottom: float) -> None:
    """The way around a box, which adds what went in to what comes out."""
    above = bottom + 10.2
    below = bottom - 2.2
    ax.plot(
        [59, 45, 45, 59],
        [above, above, below, below],
        color=GREY,
    )
    _arrow(ax, (59, above), (59, bottom + 8.4))
    ax.plot(
        [59, 59],
        [bottom - 0.4, below],
        color="#444444",
    )
    sign = ax.text(
        59,
        below,
        "+",
        ha="center",
        va="center",
        fontsize=13,
        color="#444444",
    )
    sign.set_bbox({"boxstyle": "circle,pad=0.12", "facecolor": "white", "edgecolor": "#444444"})


def number_tables(tables: Mapping[str, np.ndarray | Tensor], decimals: int = 2) -> Figure:
    """Small matrices side by side, each number on its square; darker is larger.

    Args:
        tables: title -> (rows, columns).
        decimals: of the numbers.
    """
    arrays = {title: np.asarray(table) for title, table in tables.items()}
    ratios = [table.shape[1] for table in arrays.values()]
    rows = max(len(table) for table in arrays.values())
    size = (8, 0.9 + 0.62 * rows)
    figure, axes = plt.subplots(
        1, len(arrays), figsize=size, width_ratios=ratios, squeeze=False, layout="constrained"
    )
    for ax, (title, table) in zip(
        axes[0],
        arrays.items(),
    ):
        ax.imshow(
            table,
            cmap="Blues",
            vmin=0,
            vmax=2 * max(table.max(), 1e-6),
            aspect="auto",
        )
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
        names = [f"token {number + 1}" for number in range(len(table))]
        ax.set_yticks(range(len(table)), names)
        ax.set(xticks=[])
        ax.set_title(title, fontsize=11, loc="left")
    return figure


def attention_figure(image: np.ndarray, attention: Mapping[str, Tensor]) -> Figure:
    """One head's attention: the whole matrix, and beside it the row of CLS over the image.

    Args:
        image: uint8 (H, W) or (H, W, 3).
        attention: title -> (1 + n, 1 + n), rows sum to 1; the first token is CLS.

    Returns:
        A figure with a row for each title: the matrix with a frame around the row of CLS, and the
        image, each patch tinted by its share of that row, with the percent written in it.
    """
    rows = len(attention)
    figure, axes = plt.subplots(
        rows, 2, figsize=(7.6, 3.3 * rows), squeeze=False, layout="constrained"
    )
    strongest = max(float(table.max()) for table in attention.values())
    for (left, right), (title, table) in zip(axes, attention.items()):
        weights = np.asarray(table, dtype=float)
        side = int(np.sqrt(len(weights) - 1))
        _draw_attention(left, weights, strongest)
        left.set_ylabel(f"{title}\n\nthis token reads ...")
        right.imshow(image, cmap="gray", vmin=0, vmax=255)
        _draw_shares(right, weights[0, 1:].reshape(side, side), strongest)
    axes[0, 0].set_title("one head", fontsize=10, loc="left")
    axes[0, 1].set_title("row of CLS over the image, in %", fontsize=10, loc="left")
    return figure


def _draw_attention(ax: Axes, weights: np.ndarray, strongest: float) -> None:
    """The matrix, with a frame around the row of CLS."""
    count = len(weights)
    shown = ax.imshow(weights, cmap="Blues", vmin=0, vmax=strongest)
    frame = Rectangle((-0.5, -0.5), count, 1, fill=False)
    frame.set(edgecolor=MARK, linewidth=2)
    ax.add_patch(frame)
    ax.set_xlabel("... from this one (0 is CLS)")
    ax.set(
        xticks=range(0, count, 4),
        yticks=range(0, count, 4),
    )
    ax.figure.colorbar(shown, ax=ax, shrink=0.8)


def _draw_shares(ax: Axes, shares: np.ndarray, strongest: float) -> None:
    """The row of CLS over an image, on the grid of its patches."""
    left, right = ax.get_xlim()
    patch = (right - left) / len(shares)
    for (row, column), share in np.ndenumerate(shares):
        x = left + column * patch
        y = left + row * patch
        tint = Rectangle((x, y), patch, patch, edgecolor="white")
        tint.set_facecolor((MARK, 0.6 * share / strongest))
        ax.add_patch(tint)
        percent = ax.text(x + patch / 2, y + patch / 2, f"{100 * share:.0f}", color="white")
        percent.set(ha="center", va="center", fontsize=11)
        percent.set_path_effects([withStroke(linewidth=2.5, foreground="black")])
    ax.set(xticks=[], yticks=[])


class LiveLosses(LiveCurve):
    """The loss on training and on validation images, and the test AUC, while a model learns.

    Call it after each step of a training loop. What it does takes no training time.

    Args:
        data: its validation split gives the second loss.
        shown: test images whose AUC is drawn.
        title: the model's name.
        baseline: dashed line, as in ``plots.LiveCurve``.
        seconds: how long the training lasts.

    Attributes:
        history: as in ``plots.LiveCurve``, with "images", "train_loss" and "val_loss".
    """

    looks = 7

    def __init__(
        self, data: Dataset, shown: int, title: str, baseline: Mapping[str, Scores], seconds: float
    ):
        super().__init__(
            data.test.head(shown),
            data.info.task,
            title,
            baseline,
            seconds=seconds,
        )
        self.watched = data.val.head(WATCHED)
        self.objective = SupervisedObjective(data.info.multi_label)
        self.classes = data.info.num_classes
        self._losses: list[Tensor] = []

    def __call__(
        self, model: nn.Module, seconds: float, images: int = 0, loss: Tensor | None = None
    ) -> None:
        """Note the loss of a step and, if it is time to, score the model and redraw.

        Args:
            model: the ViT that is trained.
            seconds: of training so far.
            images: number of images shown so far.
            loss: of this step.
        """
        if loss is not None:
            self._losses.append(loss.detach())
        if self._is_due(seconds):
            self._next = {
                "images": images,
                "train_loss": float(torch.stack(self._losses).mean()) if self._losses else np.nan,
                "val_loss": self.validation_loss(model),
            }
            self._losses = []
        super().__call__(model, seconds)

    def validation_loss(self, model: VisionTransformer) -> float:
        """The mean loss on the validation images that are watched."""
        logits = torch.as_tensor(predict(model, self.watched.images, bf16=True))
        targets = one_hot(torch.as_tensor(self.watched.labels), self.classes)
        return float(self.objective.loss(logits, targets))

    def _row(self, model: nn.Module, seconds: float) -> dict[str, float]:
        return super()._row(model, seconds) | self._next

    def figure(self) -> Figure:
        """The losses and the AUC so far.

        Returns:
            A figure as of ``plots.LiveCurve``; its title says on how many images it is measured.
        """
        figure = super().figure()
        title = f"{figure.get_suptitle()}, measured on {len(self.split)} test images"
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        return figure

    def _draw(self, ax: Axes, key: str) -> None:
        if key == "accuracy":
            self._draw_losses(ax)
        else:
            super()._draw(ax, key)
            ax.set_ylabel(f"{SCORES[key][0]} ({len(self.split)} test images)")
        end = max(self.seconds, self.history[-1]["seconds"], 1)
        ax.set_xlim(0, 1.03 * end)

    def _draw_losses(self, ax: Axes) -> None:
        """Both losses over the seconds, each with its name at the end of its line."""
        shade = colour(self.title)
        seconds = [row["seconds"] for row in self.history]
        ends = []
        for key, style in (("train_loss", "-"), ("val_loss", "--")):
            losses = [row[key] for row in self.history]
            ax.plot(seconds, losses, style, color=shade, marker=".")
            ends.append(losses[-1])
        ax.set(xlabel="training time (s)", ylabel="loss", ylim=(0, None))
        top = ax.get_ylim()[1]
        ax.set_ylim(-0.1 * top, top)  # a label at zero stays clear of the axis
        heights = spread_out(ends, gap=0.08 * top)
        for name, height in zip(("training", "validation"), heights):
            ax.text(seconds[-1], height, f"   {name}", color=shade, va="center")
        if len(seconds) > 1:
            self._mark_lowest(ax)

    def _mark_lowest(self, ax: Axes) -> None:
        """A ring around the lowest validation loss, and a word below it."""
        lowest = min(self.history, key=lambda row: row["val_loss"])
        point = (lowest["seconds"], lowest["val_loss"])
        ax.plot(*point, "o", color="black", fillstyle="none", markersize=9)
        first = lowest is self.history[0]
        word = ax.annotate("lowest", point, (0, -8), textcoords="offset points")
        word.set(va="top", ha="left" if first else "right", fontsize=9)


def complete_curves(runs: Sequence[Mapping[str, Any]], line: float) -> Figure:
    """Validation and test AUC of complete trainings, and how far validation flatters.

    Args:
        runs: of one model, entries of runs.json, scored after the same epochs: "history" has rows
            with "epoch", "val_auc" and "test_auc"; rows without the last are left out.
        line: test AUC of the linear model.

    Returns:
        A figure with the test curves solid, the validation curves dashed.
    """
    figure, ax = plt.subplots(figsize=(7.6, 3.4), layout="constrained")
    shade = colour("Base")
    scored = [[row for row in run["history"] if "test_auc" in row] for run in runs]
    epochs = [row["epoch"] for row in scored[0]]
    means = []
    for key, style in (("val_auc", "--"), ("test_auc", "-")):
        curves = np.array([[row[key] for row in rows] for rows in scored])
        ax.plot(epochs, curves.T, style, color=shade)
        means.append(curves.mean(axis=0))
    validation, test = means
    ax.fill_between(
        epochs,
        test,
        validation,
        color=shade,
        alpha=0.12,
        linewidth=0,
    )
    ax.axhline(line, color="black", linestyle=":")
    ax.set(xlabel="times through the training images", ylabel="AUC")
    ax.margins(x=0.01)
    low, high = ax.get_ylim()
    middle = len(epochs) // 2
    if np.mean(validation - test) > 0.15 * (high - low):  # there is room for words
        centre = (validation + test)[middle] / 2
        ax.text(epochs[middle], centre, "validation flatters", ha="center", va="center")
    names = {"validation": shade, "test": shade, "linear model, test": "black"}
    ends = [validation[-1], test[-1], line]
    heights = spread_out(ends, gap=0.08 * (high - low))
    for name, height in zip(names, heights):
        ax.text(ax.get_xlim()[1], height, f" {name}", color=names[name], va="center")
    return figure


def outcome(auc: float, line: float) -> str:
    """In words, whether an AUC is above a line; nearer than .01 is level with it."""
    if np.isnan(auc):
        return "no AUC, because these images do not have every class"
    if abs(auc - line) < 0.01:
        return "level with the linear model"
    return "above the linear model" if auc > line else "below the linear model"
