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

from swys_utils.curve_names import name_ends
from swys_utils.data import Dataset
from swys_utils.metrics import is_correct, probabilities
from swys_utils.plots import LiveCurve, Scores, colour
from swys_utils.recipe import SupervisedObjective, one_hot
from swys_utils.training import predict

from .data import MARK
from .marks import double_arrow

WATCHED = 100  # validation images whose loss is followed; all would take longer than training
RISEN = 1.1  # times the lowest loss: from there on a loss has clearly risen


class LiveLosses(LiveCurve):
    """The loss on training and on validation images, and an AUC, while a model learns.

    Call it after each step of a training loop. What it does takes no training time. Where
    validation images are scored, the figure says from when on the model learns by heart.

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
        if self._begin_again(seconds):
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
        """Loss, right answers and certainty on the validation images that are watched.

        Args:
            model: the ViT that is trained.

        Returns:
            "val_loss", and "right", "certainty" and "certainty_wrong" from 0 to 1, as in
            ``history``; the last is nan where no answer is wrong.
        """
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
        lowest = min(self._trained(), key=lambda row: row["val_loss"])
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

    def _draw(self, ax: Axes, key: str) -> None:
        if key == "accuracy":
            self._draw_losses(ax)
        else:
            super()._draw(ax, key)
            self._name_auc(ax)
        ax.set_ylabel("")
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
        ax.set(xlabel="training time (s)", ylim=(0, None))
        ax.set_title("loss", fontsize=11, loc="left")
        top = ax.get_ylim()[1]
        if self.scored == "validation":
            top *= 1.15  # room for words
            self._shade_by_heart(ax, 0.97 * top)
        ax.set_ylim(-0.1 * top, top)  # a label at zero stays clear of the axis
        name_ends(ax, seconds[-1], ends, gap=0.1 * top)

    def _shade_by_heart(self, ax: Axes, height: float) -> None:
        """From the lowest validation loss on, if it has clearly risen since."""
        *_, end = self.history
        lowest = min(self._trained(), key=lambda row: row["val_loss"])
        if not end["val_loss"] > RISEN * lowest["val_loss"]:
            return
        ax.axvspan(lowest["seconds"], end["seconds"], color=MARK, alpha=0.2, linewidth=0)
        middle = (lowest["seconds"] + end["seconds"]) / 2
        ax.text(middle, height, "learns by heart", ha="center", va="top")

    def _trained(self) -> list[dict[str, float]]:
        """The history without the untrained model, if there is more."""
        return self.history[1:] or self.history

    def _name_auc(self, ax: Axes) -> None:
        """The title of its panel; of validation images, the axis ends at 1, too."""
        title = f"AUC on {len(self.split)} {self.scored} images"
        if self.scored == "validation":
            areas = [row["auc"] for row in self._trained()]
            if len(areas) > 1 and areas[-1] >= max(areas) - 0.01:
                title = "AUC on validation: ends no lower"
            lowest = min(row["auc"] for row in self.history)
            ax.set_ylim(np.nanmin([0.5, lowest - 0.02]), 1)
        ax.set_title(title, fontsize=11, loc="left")


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
    ax.fill_between(epochs, test, validation, color=shade, alpha=0.15, linewidth=0)
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
    ax.set(xlabel="passes", ylabel="AUC")
    low, high = ax.get_ylim()
    middle = len(epochs) // 2
    if np.mean(validation - test) > 0.15 * (high - low):  # there is room for words
        centre = (validation + test)[middle] / 2
        ax.text(epochs[middle], centre, "gap", ha="center", va="center", fontsize=12)
        for place in (0, -1):
            double_arrow(ax, epochs[place], test[place], validation[place])
    name_ends(ax, epochs[-1], ends, gap=0.08 * (high - low))
    return figure


def outcome(auc: float, line: float) -> str:
    """In words, whether an AUC is above a line; nearer than .01 is level with it.

    Args:
        auc: from 0 to 1, or nan.
        line: the AUC of the linear model.
    """
    if np.isnan(auc):
        return "no AUC, because these images do not have every class"
    if abs(auc - line) < 0.01:
        return "level with the linear model"
    return "above the linear model" if auc > line else "below the linear model"
