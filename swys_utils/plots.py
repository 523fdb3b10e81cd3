"""The figures that several notebooks share. A model has the same colour in all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from IPython import get_ipython
from IPython.core.pylabtools import print_figure
from IPython.display import DisplayHandle
from matplotlib.figure import Figure
from torch import nn

from .data import Split
from .gradcam import overlay
from .metrics import point_scores
from .training import predict

# Okabe and Ito's palette, which colour-blind readers can tell apart; the first word found in a name decides
COLOURS = {
    "map": "#CC79A7",
    "feature": "#56B4E9",
    "soft": "#009E73",
    "tiny": "#D55E00",
    "base": "#0072B2",
}
SCORES = {"accuracy": ("accuracy (%)", 100), "auc": ("AUC", 1), "ece": ("calibration error", 1)}
GREY = "#767676"  # the lightest grey that is readable as text on white

plt.rc("axes.spines", top=False, right=False)
plt.rcParams |= {
    "figure.dpi": 90,
    "lines.solid_capstyle": "butt",
}  # a bar ends where its interval ends


def colour(name: str) -> str:
    """The colour of a model, the same in every figure and notebook; grey for a name without one."""
    said = (
        name.lower().replace("kd", "soft").replace("answers", "soft")
    )  # both learn from soft targets
    return next((found for word, found in COLOURS.items() if word in said), GREY)


class LiveCurve:
    """Accuracy and AUC, fractions, on a sample of images against seconds of training, redrawn in place.

    A ``callback`` of ``training.fit``, or called after each step of a loop; it looks at each twelfth of
    ``seconds`` and at their end (0: each minute). A notebook keeps one PNG. ``baseline``: dashed lines,
    ``{name: {"accuracy", "auc"}}``; ``others``: thin lines, ``{name: history}``, as in ``history``.
    """

    def __init__(
        self, split: Split, task: str, title="Base", baseline=None, others=None, seconds=0.0
    ):
        self.split, self.task, self.title, self.seconds = split, task, title, seconds
        self.baseline, self.others, self.handle = baseline or {}, others or {}, DisplayHandle()
        self.history: list[dict[str, float]] = []

    def __call__(self, model: nn.Module, seconds: float, step: int = 0) -> None:
        """Score the model, whose mode stays as it is, and redraw; nothing happens when no look is due."""
        last = self.history[-1]["seconds"] if self.history else -np.inf
        end = self.seconds if last < self.seconds else np.inf  # looked at once
        if seconds < min(last + (self.seconds / 12 or 60), end):
            return
        scores = point_scores(
            predict(model, self.split.images, bf16=True), self.split.labels, self.task
        )
        self.history.append(
            {"seconds": float(seconds), "accuracy": scores["accuracy"], "auc": scores["auc"]}
        )
        if get_ipython() is not None:
            figure = self.figure()
            content = {"image/png": print_figure(figure, bbox_inches=None, dpi=130, base64=True)}
            show = self.handle.update if len(self.history) > 1 else self.handle.display
            show(
                content,
                metadata={"image/png": {"alt": figure.get_suptitle(), "width": 760}},
                raw=True,
            )

    def figure(self) -> Figure:
        """The curves so far. pyplot does not know this figure, so no notebook shows it a second time."""
        figure = Figure(figsize=(8.4, 3.3), layout="constrained")
        for ax, (key, (label, factor)) in zip(figure.subplots(1, 2), SCORES.items()):
            for name, rows in {**self.others, self.title: self.history}.items():
                style = {"lw": 2.5, "marker": "."} if name == self.title else {"lw": 1.2}
                x, y = [row["seconds"] for row in rows], [factor * row[key] for row in rows]
                ax.plot(x, y, color=colour(name), label=name, **style)
            for name, scores in self.baseline.items():
                ax.axhline(factor * scores[key], color="black", lw=1, ls="--", label=name)
            ax.set(xlabel="training time (s)", ylabel=label, xlim=(0, None))
        ax.legend(frameon=False, fontsize=9)
        said = "after {seconds:.0f} s: accuracy {accuracy:.1%}, AUC {auc:.3f}".format(
            **self.history[-1]
        )
        figure.suptitle(f"{self.title} {said}", x=0.01, ha="left", fontsize=11)
        return figure


def heatmap_rows(
    images, maps: Mapping, captions: Mapping, titles: Sequence[str], scale="image"
) -> Figure:
    """The images, uint8 (N, H, W[, 3]), in a row, and below it each model's heatmaps over them.

    ``maps``: model -> (N, gh, gw), unnormalised; ``captions``: model -> N texts; ``titles``: N texts;
    ``scale``: as in ``gradcam.overlay``, or "model" for one scale for all maps of a model.
    """
    rows, columns = len(maps) + 1, len(images)
    size = (1.3 * columns + 0.6, 1.8 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    plt.setp(axes.ravel(), xticks=[], yticks=[], frame_on=False)
    for ax, image, title in zip(axes[0], images, titles):
        ax.imshow(image, cmap="gray", vmin=0, vmax=255)
        ax.set_title(title, fontsize=9)
    for row, (name, heat) in zip(axes[1:], maps.items()):
        strongest = max(float(np.max(heat)), 1e-30) if scale == "model" else scale
        drawn = overlay(images, heat, alpha=0.6, scale=strongest, size=112)
        for ax, picture, one, caption in zip(row, drawn, heat, captions[name]):
            ax.imshow(picture)
            ax.set_xlabel(caption if np.max(one) > 0 else f"{caption}\nempty map", fontsize=8)
        row[0].set_ylabel(name, color=colour(name), fontsize=11)
    return figure
