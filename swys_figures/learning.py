"""How a model learns: its losses and AUC while it is trained, and the curves of complete runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from swys_utils.data import Dataset
from swys_utils.labels import name_ends
from swys_utils.metrics import is_correct, probabilities
from swys_utils.plots import LiveCurve, Scores, colour
from swys_utils.recipe import SupervisedObjective, one_hot
from swys_utils.training import predict

WATCHED = 100  # validation images whose loss is followed; all would take longer than training


class LiveLosses(LiveCurve):
    """The loss on training and on validation images, and an AUC, while a model learns.

    Call it after each step of a training loop. What it does takes no training time.

    Args:
        data: its validation split gives the second loss.
        shown: number of images whose AUC is drawn.
        title: the model's name.
        baseline: dashed line, as in ``plots.LiveCurve``.
        seconds: how long the training lasts.
        scored: "test" or "val", the split whose AUC is drawn.
        looks: how often the model is scored after its start.

    Attributes:
        history: as in ``plots.LiveCurve``, with "images", "train_loss", "val_loss", and of the
            validation images that are watched "right" (share), "certainty" (mean of the
            probability of the answer) and "certainty_wrong" (the same of wrong answers alone).
    """

    def __init__(
        self,
        data: Dataset,
        shown: int,
        title: str,
        baseline: Mapping[str, Scores],
        seconds: float,
        scored: str = "test",
        looks: int = 7,
    ):
        self.looks = looks
        split = data.test if scored == "test" else data.val
        super().__init__(
            split.sample(shown),
            data.info.task,
            title,
            baseline,
            seconds=seconds,
        )
        self.scored = {"test": "test", "val": "validation"}[scored]
        self.multi_label = data.info.multi_label
        self.watched = self.split if scored == "val" else data.val.sample(WATCHED)
        self.objective = SupervisedObjective(data.info.multi_label)
        self.classes = data.info.num_classes
        self._losses: list[Tensor] = []
        self._steps = 0

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
        if self.history and seconds < self.history[-1]["seconds"]:  # the cell runs again
            self._losses = []
            self._steps = 0
        if loss is not None:
            self._losses.append(loss.detach())
            self._steps += 1
        if self._is_due(seconds):
            self._next = {
                "images": images,
                "train_loss": float(torch.stack(self._losses).mean()) if self._losses else np.nan,
                **self.on_validation(model),
            }
            self._losses = []
        super().__call__(model, seconds, self._steps)

    def on_validation(self, model: VisionTransformer) -> dict[str, float]:
        """Loss, right answers and certainty on the validation images that are watched."""
        logits = predict(model, self.watched.images, bf16=True)
        targets = one_hot(torch.as_tensor(self.watched.labels), self.classes)
        p = probabilities(logits, self.task)
        certainty = np.maximum(p, 1 - p) if self.multi_label else p.max(axis=1)
        right = is_correct(p, self.watched.labels)
        return {
            "val_loss": float(self.objective.loss(torch.as_tensor(logits), targets)),
            "right": float(right.mean()),
            "certainty": float(certainty.mean()),
            "certainty_wrong": float(certainty[~right].mean()) if not right.all() else np.nan,
        }

    def lowest_and_last(self) -> list[dict[str, str]]:
        """What changed on the validation images since their loss was lowest, as a table.

        The untrained model does not count.
        """
        trained = self.history[1:] or self.history
        lowest = min(trained, key=lambda row: row["val_loss"])
        rows = []
        for when, row in (("lowest", lowest), ("end", self.history[-1])):
            cells = {
                "validation loss": f"{when}: {row['val_loss']:.2f}",
                "after": f"{row['seconds']:.1f} s",
                "right answers": f"{row['right']:.0%}",
                "mean certainty": f"{row['certainty']:.0%}",
                "certainty of the wrong answers": f"{row['certainty_wrong']:.0%}",
            }
            rows.append(cells)
        return rows

    def _row(self, model: nn.Module, seconds: float) -> dict[str, float]:
        return super()._row(model, seconds) | self._next

    def figure(self) -> Figure:
        """The losses and the AUC so far; the title says on how many images they are measured."""
        figure = super().figure()
        title = f"{figure.get_suptitle()}, measured on {len(self.split)} {self.scored} images"
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        return figure

    def _draw(self, ax: Axes, key: str) -> None:
        if key == "accuracy":
            self._draw_losses(ax)
        else:
            super()._draw(ax, key)
        end = max(self.seconds, self.history[-1]["seconds"], 1)
        ax.set_xlim(0, 1.03 * end)

    def _draw_losses(self, ax: Axes) -> None:
        """Both losses over the seconds, each with its name at the end of its line."""
        shade = colour(self.title)
        seconds = [row["seconds"] for row in self.history]
        lines = {"training": ("train_loss", "-"), "validation": ("val_loss", "--")}
        ends = {}
        for name, (key, style) in lines.items():
            losses = [row[key] for row in self.history]
            ax.plot(seconds, losses, style, color=shade, marker=".")
            ends[name] = (losses[-1], shade)
        first = min(1, len(seconds) - 1)  # the untrained model does not count
        _mark_lowest(ax, seconds[first:], [row["val_loss"] for row in self.history[first:]])
        ax.set(xlabel="training time (s)", ylabel="loss", ylim=(0, None))
        top = ax.get_ylim()[1]
        ax.set_ylim(-0.1 * top, top)  # a label at zero stays clear of the axis
        name_ends(ax, seconds[-1], ends, gap=0.1 * top)


def _mark_lowest(ax: Axes, seconds: Sequence[float], losses: Sequence[float]) -> None:
    """A ring around the lowest loss, and a word below it."""
    lowest = int(np.argmin(losses))
    point = (seconds[lowest], losses[lowest])
    ax.plot(*point, "o", color="black", fillstyle="none", markersize=9)
    ax.annotate(
        "lowest",
        point,
        (3, -8),
        textcoords="offset points",
        fontsize=9,
        va="top",
        ha="right" if lowest > 0 else "left",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8},
    )


def complete_curves(runs: Sequence[Mapping[str, Any]], line: float) -> Figure:
    """Validation and test AUC of complete trainings, and how far validation flatters.

    Args:
        runs: of one model, entries of runs.json, scored after the same epochs: "history" has rows
            with "epoch", "val_auc" and "test_auc"; rows without the last are left out.
        line: test AUC of the linear model; nan leaves it out.

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
    ax.fill_between(epochs, test, validation, color=shade, alpha=0.12, linewidth=0)
    ends = {
        "validation": (validation[-1], "black"),
        "test": (test[-1], "black"),
    }
    if np.isfinite(line):
        ends["linear model, test"] = (line, "black")
        ax.hlines(
            line,
            epochs[0],
            epochs[-1],
            color="black",
            linestyle=":",
        )
    ax.set(xlabel="times through the training images", ylabel="AUC")
    low, high = ax.get_ylim()
    middle = len(epochs) // 2
    if np.mean(validation - test) > 0.15 * (high - low):  # there is room for words
        centre = (validation + test)[middle] / 2
        ax.text(epochs[middle], centre, "validation flatters", ha="center", va="center")
    name_ends(ax, epochs[-1], ends, gap=0.08 * (high - low))
    return figure


def outcome(auc: float, line: float) -> str:
    """In words, whether an AUC is above a line; nearer than .01 is level with it."""
    if np.isnan(auc):
        return "no AUC, because these images do not have every class"
    if abs(auc - line) < 0.01:
        return "level with the linear model"
    return "above the linear model" if auc > line else "below the linear model"
