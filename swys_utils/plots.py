"""The figures that several notebooks share. A model has the same colour in all of them."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from IPython import get_ipython
from IPython.core.pylabtools import print_figure
from IPython.display import DisplayHandle
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

from .curve_names import name_ends
from .data import Split
from .distillation import OBJECTIVES, Objective
from .gradcam import METHODS, Method, overlay
from .metrics import point_scores
from .models import SERIES, SeriesModel
from .training import predict

GREY = "#767676"  # the lightest grey that is readable as text on white
SCORES = {  # score -> its name on an axis, and the factor from a fraction to the unit shown
    "accuracy": ("accuracy (%)", 100),
    "auc": ("AUC", 1),
    "ece": ("calibration error", 1),
}
Scores = Mapping[str, float]


def use_style() -> None:
    """Set matplotlib's defaults for every figure of the series; importing this module calls it."""
    plt.rc("axes.spines", top=False, right=False)
    plt.rc("figure", dpi=90)
    plt.rc("lines", solid_capstyle="butt")  # a bar ends where its interval ends


use_style()


def colour(name: str) -> str:
    """The colour of a model, a way to teach or a way to explain, the same in every figure.

    Args:
        name: an id or a title in ``models.SERIES``, ``distillation.OBJECTIVES`` or
            ``gradcam.METHODS``, or a text that begins with such a title: "Base, live" is blue, as
            "Base" is.

    Returns:
        A colour such as "#0072B2"; grey for any other name.
    """
    entries: dict[str, SeriesModel | Objective | Method] = {**SERIES, **OBJECTIVES, **METHODS}
    if name in entries:
        return entries[name].colour
    shades = {entry.title: entry.colour for entry in entries.values()}
    # whole words, because "Base" is none of "Baseline"
    titles = [title for title in shades if re.match(rf"{re.escape(title)}(?!\w)", name)]
    if not titles:
        return GREY
    longest = max(titles, key=len)
    taught = {f"{longest}, {way.title}": way.colour for way in OBJECTIVES.values()}
    return taught.get(name, shades[longest])  # such as "Tiny, features"


class LivePicture:
    """One PNG in a notebook, redrawn in place; nothing outside of a notebook."""

    def __init__(self):
        self._display = DisplayHandle()
        self._cell = None

    def show(self, draw: Callable[[], Figure], alt: str = "") -> None:
        """Put a figure in place of the last one.

        Args:
            draw: makes a figure that pyplot does not know, so that it is not shown a second time.
            alt: what it shows, for who cannot see it; "" is its title.
        """
        shell = get_ipython()
        if shell is None:
            return
        figure = draw()
        png = print_figure(figure, bbox_inches=None, base64=True)
        metadata = {"alt": alt or figure.get_suptitle()}
        cell = shell.execution_count  # another one when the cell runs again
        show = self._display.update if self._cell == cell else self._display.display
        show({"image/png": png}, metadata={"image/png": metadata}, raw=True)
        self._cell = cell


class LiveCurve:
    """Accuracy and AUC against the time of training, redrawn in place while a model learns.

    Pass it as ``callback`` to ``training.fit``, or call it after each step of a loop of your own.
    It scores the model at its first call and ``looks`` times in ``seconds``. A notebook keeps one
    PNG.

    Args:
        split: the images that are scored.
        task: MedMNIST's name of the task, as in ``data.info.task``.
        title: the model's name, which also gives its line a colour.
        baseline: dashed lines, name -> {"accuracy", "auc"} as fractions in [0, 1].
        others: thin lines, name -> the ``history`` of another curve.
        seconds: how long the training lasts; 0: unknown, so each call scores.

    Attributes:
        history: for each time at which the model was scored "steps", "seconds", "accuracy" and
            "auc", the scores as fractions in [0, 1].
    """

    looks = 12

    def __init__(
        self,
        split: Split,
        task: str,
        title: str = "Base",
        baseline: Mapping[str, Scores] | None = None,
        others: Mapping[str, Sequence[Scores]] | None = None,
        seconds: float = 0.0,
    ):
        self.split = split
        self.task = task
        self.title = title
        self.baseline = baseline or {}
        self.others = others or {}
        self.seconds = seconds
        self.history: list[dict[str, float]] = []
        self._picture = LivePicture()

    def __call__(self, model: nn.Module, seconds: float, step: int = 0) -> None:
        """Score the model and redraw, if it is time to; the model's mode stays as it is.

        Args:
            model: a ViT that takes images of ``split``.
            seconds: how long it has been trained.
            step: number of steps so far.
        """
        self._begin_again(seconds)
        if not self._is_due(seconds):
            return
        self.history.append({"steps": step} | self._row(model, seconds))
        self._picture.show(self.figure)

    def figure(self) -> Figure:
        """The curves so far.

        Returns:
            A figure that pyplot does not know, so that no notebook shows it a second time.
        """
        figure = Figure(figsize=(7, 3), layout="constrained")
        left, right = figure.subplots(1, 2)
        self._draw(left, "accuracy")
        self._draw(right, "auc")
        lines = dict(self.baseline)  # the title names the model itself
        for name, history in self.others.items():
            lines |= {name: history[-1]} if history else {}
        ends = {}
        for name, row in lines.items():
            ends[textwrap.fill(name, 14)] = (row["auc"], colour(name))
        name_ends(right, right.get_xlim()[1], ends, gap=0.16 * np.ptp(right.get_ylim()))
        last = self.history[-1]
        scores = f"accuracy {last['accuracy']:.1%}, AUC {last['auc']:.3f}"
        title = f"{self.title} after {last['seconds']:.0f} s: {scores}"
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        return figure

    def _row(self, model: nn.Module, seconds: float) -> dict[str, float]:
        """The scores of the model now, as a row of the history."""
        logits = predict(model, self.split.images, bf16=True)
        scores = point_scores(logits, self.split.labels, self.task)
        return {"seconds": float(seconds), "accuracy": scores["accuracy"], "auc": scores["auc"]}

    def _begin_again(self, seconds: float) -> bool:
        """Forget the last training where another one begins, as when the cell runs again."""
        begins = bool(self.history) and seconds < self.history[-1]["seconds"]
        if begins:
            self.history = []
        return begins

    def _is_due(self, seconds: float) -> bool:
        """Whether the first look, the next one or the one at the end of training is due."""
        if not self.history:
            return True
        last = self.history[-1]["seconds"]
        return last < self.seconds <= seconds or seconds >= last + self.seconds / self.looks

    def _draw(self, ax: Axes, key: str) -> None:
        """Draw one score of all models over the seconds of their training."""
        label, factor = SCORES[key]
        for name, history in {**self.others, self.title: self.history}.items():
            seconds = [row["seconds"] for row in history]
            scores = [factor * row[key] for row in history]
            (line,) = ax.plot(seconds, scores, color=colour(name), label=name)
            if name == self.title:
                line.set(linewidth=2.5, marker=".")
        for name, constant in self.baseline.items():
            ax.axhline(factor * constant[key], label=name, color=GREY, ls="--")
        ax.set(xlabel="training time (s)", ylabel=label, xlim=(0, None))


def heatmap_rows(
    images: np.ndarray,
    maps: Mapping[str, np.ndarray],
    captions: Mapping[str, Sequence[str]],
    titles: Sequence[str],
    scale: float | str = "image",
) -> Figure:
    """The images in a row, and below it a row for each model with its heatmaps over the images.

    Args:
        images: uint8 (N, H, W) or (N, H, W, 3).
        maps: for each model float (N, gh, gw), unnormalised.
        captions: for each model N texts, which stand below its maps.
        titles: N texts, which stand above the images.
        scale: what counts as strongest: "image" for each map's own maximum, "model" for the
            maximum of all maps of a model, or a number, as in ``gradcam.overlay``.

    Returns:
        A figure with one axis for each picture.
    """
    rows = len(maps) + 1
    columns = len(images)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(1.3 * columns + 0.6, 1.8 * rows),
        squeeze=False,
        layout="constrained",
    )
    plt.setp(axes.ravel(), xticks=[], yticks=[], frame_on=False)
    for ax, image, title in zip(axes[0], images, titles):
        ax.imshow(image, cmap="gray", vmin=0, vmax=255)
        ax.set_title(title, fontsize=9)
    for row, (name, model_maps) in zip(axes[1:], maps.items()):
        strongest = overlay_scale(model_maps, scale)
        pictures = overlay(images, model_maps, alpha=0.6, scale=strongest, size=112)
        row[0].set_ylabel(name, color=colour(name), fontsize=11)
        for ax, picture, heatmap, caption in zip(row, pictures, model_maps, captions[name]):
            ax.imshow(picture)
            below = caption if np.max(heatmap) > 0 else f"{caption}\nempty map"
            ax.set_xlabel(below, fontsize=8)
    return figure


def overlay_scale(maps: np.ndarray, scale: float | str) -> float | str:
    """What ``gradcam.overlay`` has to count as strongest in the maps of one model.

    Args:
        maps: float (N, gh, gw), unnormalised.
        scale: as in ``heatmap_rows``.

    Returns:
        A number above 0 for "model", even where no map has a positive value; else ``scale``.
    """
    if scale != "model":
        return scale
    return max(float(np.max(maps)), 1e-30)
