"""The figures that several notebooks share. A model has the same colour in all of them.

A function draws with pyplot and returns the figure: end its line with a semicolon to see it once.
"""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from IPython import display, get_ipython
from matplotlib.figure import Figure
from torch import nn

from .config import BUILD, write_json
from .data import Dataset, Split
from .gradcam import overlay
from .metrics import Metrics, point_scores
from .training import predict

# Okabe and Ito's palette, which colour-blind readers can tell apart; the first word found in a name decides
COLOURS = {"map": "#CC79A7", "feature": "#56B4E9", "soft": "#009E73", "tiny": "#D55E00", "base": "#0072B2"}
OTHER_COLOURS = ("#E69F00", "#332288", "#999933", "#882255", "#44AA99")
SCORES = {"accuracy": ("accuracy (%)", 100), "auc": ("AUC", 1), "ece": ("calibration error", 1)}
GREY = "#767676"  # the lightest grey that is readable as text on white

plt.rcParams.update({"figure.dpi": 90, "axes.spines.top": False, "axes.spines.right": False, "font.size": 10})


def colour(name: str) -> str:
    """The colour of a model, the same in every figure and notebook; an unknown name has a fixed one, too."""
    said = name.lower().replace("kd", "soft")  # KD Tiny learns from soft targets
    known = [found for word, found in COLOURS.items() if word in said]
    return known[0] if known else OTHER_COLOURS[zlib.crc32(name.encode()) % len(OTHER_COLOURS)]


class LiveCurve:
    """Accuracy and AUC on a sample of images against seconds of training, redrawn in place during a run.

    Pass it to ``training.fit`` as ``watch``, or call it in a loop: ``curve(model, seconds)``. In IPython it
    shows one PNG picture and replaces it at each call, so a notebook stores the last; elsewhere it records
    ``history``, a list of ``{"seconds", "accuracy", "auc"}``: floats, accuracy and AUC as fractions.

    Args:
        split, task: what the model is scored on. title: the model's name, which also chooses the colour.
        baseline: ``{name: {"accuracy", "auc"}}``, a dashed line each.
        others: ``{name: history}`` of other models, thin lines; the axis is as long as the longest curve.
    """

    def __init__(self, split: Split, task: str, title: str = "Base", baseline=None, others=None):
        self.split, self.task, self.title = split, task, title
        self.baseline, self.others = baseline or {}, others or {}
        self.history: list[dict[str, float]] = []
        self.handle = display.DisplayHandle()

    def __call__(self, model: nn.Module, seconds: float, step: int = 0) -> None:
        """Score the model, whose mode stays as it is, and redraw. Fewer seconds than before: a new run."""
        if self.history and seconds < self.history[-1]["seconds"]:
            self.history = []
        scores = point_scores(predict(model, self.split.images), self.split.labels, self.task)
        self.history.append({"seconds": float(seconds), "accuracy": scores["accuracy"], "auc": scores["auc"]})
        if get_ipython() is not None:
            picture, figure = io.BytesIO(), self.figure()
            figure.savefig(picture, format="png", dpi=130)
            content = {"image/png": base64.b64encode(picture.getvalue()).decode("ascii")}
            show = self.handle.update if len(self.history) > 1 else self.handle.display
            show(content, metadata={"image/png": {"alt": figure.get_suptitle(), "width": 760}}, raw=True)

    def figure(self) -> Figure:
        """The curves so far. pyplot does not know this figure, so no notebook shows it a second time."""
        figure = Figure(figsize=(8.4, 3.3), layout="constrained")
        for ax, (key, (label, factor)) in zip(figure.subplots(1, 2), SCORES.items()):
            for k, (name, rows) in enumerate([*self.others.items(), (self.title, self.history)]):
                line = {"color": GREY, "lw": 1.2, "ls": ("-", "-.", ":")[k % 3]}
                if k == len(self.others):
                    line = {"color": colour(name), "lw": 2.5, "marker": "o", "markevery": [-1]}
                seconds = [row["seconds"] for row in rows]
                ax.plot(seconds, [factor * row[key] for row in rows], **line, label=name)
            for name, scores in self.baseline.items():
                ax.axhline(factor * scores[key], color="black", lw=1, ls="--")
                at = {"transform": ax.get_yaxis_transform(), "va": "bottom", "zorder": 1}
                ax.text(0.01, factor * scores[key], name, **at)
            ax.set(xlabel="training time (s)", ylabel=label, xlim=(0, None))
        if self.others:
            ax.legend(frameon=False, fontsize=9)
        if self.history:
            said = "after {seconds:.0f} s: accuracy {accuracy:.1%}, AUC {auc:.3f}".format(**self.history[-1])
            figure.suptitle(f"{self.title} {said}", x=0.01, ha="left", fontsize=11)
        return figure


def write_live(data: Dataset, key: str, model: nn.Module, history: Sequence[Mapping]) -> None:
    """Keep a curve for later notebooks: ``build/results/<dataset>/live.json``, one entry for each key.

    An entry holds ``img_size`` and ``patch_size`` (px) of the timm ViT and ``history``, as in `LiveCurve`.
    """
    path = BUILD / "results" / data.info.results_name / "live.json"
    entries = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    geometry = {"img_size": model.patch_embed.img_size[0], "patch_size": model.patch_embed.patch_size[0]}
    write_json(path, entries | {key: geometry | {"history": list(history)}})


def training_curves(history: Sequence[Mapping], name: str) -> Figure:
    """Training loss and validation accuracy by epoch, with a circle at the best validation accuracy.

    history: rows with ``epoch``, ``train_loss`` and ``val_accuracy`` (a fraction), as `fit` returns them.
    """
    figure, axes = plt.subplots(1, 2, figsize=(8.4, 3), layout="constrained")
    epochs = [row["epoch"] for row in history]
    axes[0].plot(epochs, [row["train_loss"] for row in history], color=colour(name))
    axes[1].plot(epochs, [100 * row["val_accuracy"] for row in history], color=colour(name))
    best = max(history, key=lambda row: row["val_accuracy"])
    axes[1].plot(best["epoch"], 100 * best["val_accuracy"], "ok", mfc="none")
    axes[0].set(xlabel="epoch", ylabel="training loss")
    axes[1].set(xlabel="epoch", ylabel="validation accuracy (%)")
    figure.suptitle(f"{name}: validation is best at epoch {best['epoch']} (circle)", x=0.01, ha="left")
    return figure


def intervals(scores: Mapping[str, Metrics], reference: Mapping[str, float] | None = None) -> Figure:
    """Accuracy, AUC and calibration error of each model, a point with its 95 % interval.

    reference: name -> accuracy (a fraction) of a dashed line, such as a baseline's.
    """
    figure, axes = plt.subplots(1, 3, figsize=(9, 0.5 * len(scores) + 1.2), sharey=True, layout="constrained")
    for ax, (key, (label, factor)) in zip(axes, SCORES.items()):
        for place, (name, metrics) in enumerate(scores.items()):
            value = factor * getattr(metrics, key)
            ends = np.multiply(factor, getattr(metrics, f"{key}_interval"))
            ax.plot(ends, [place, place], color=colour(name), lw=3, alpha=0.5, solid_capstyle="butt")
            ax.plot(value, place, "o", color=colour(name))
            ax.annotate(f"{value:#.3g}", (value, place), (0, 7), textcoords="offset points", ha="center")
        ax.set(xlabel=label, ylim=(len(scores) - 0.5, -0.7))
    for name, value in (reference or {}).items():
        axes[0].axvline(100 * value, color="black", ls="--", lw=1, label=name)
        axes[0].legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, fontsize=9)
    axes[0].set_yticks(range(len(scores)), list(scores))
    return figure


def heatmap_rows(images, maps: Mapping, captions: Mapping, titles: Sequence[str], scale="image") -> Figure:
    """The images in a row, and below it each model's heatmaps over them, a row for each model.

    Args:
        images: uint8 (N, H, W[, 3]). maps: model -> (N, gh, gw), unnormalised. captions: model -> N texts.
        titles: N texts above the images. scale: as in ``gradcam.overlay``, or "model" for one scale for all
            maps of a model, so that weak maps stay weak. A map with nothing above 0 is said to be empty.
    """
    size = (1.3 * len(images) + 0.6, 1.6 + 1.8 * len(maps))
    figure, axes = plt.subplots(len(maps) + 1, len(images), figsize=size, squeeze=False, layout="constrained")
    for ax, image, title in zip(axes[0], images, titles):
        ax.imshow(image, cmap="gray", vmin=0, vmax=255)
        ax.set_title(title, fontsize=9)
    for row, (name, heat) in zip(axes[1:], maps.items()):
        strongest = max(float(np.max(heat)), 1e-30) if scale == "model" else scale
        drawn = overlay(images, heat, alpha=0.6, scale=strongest, size=112)
        for ax, picture, one, caption in zip(row, drawn, heat, captions[name]):
            ax.imshow(picture)
            ax.set_xlabel(caption, fontsize=8)
            if np.max(one) <= 0:
                ax.set_title("empty map", y=0, fontsize=8, color="white", backgroundcolor="black")
        row[0].set_ylabel(name, color=colour(name), fontsize=11)
    plt.setp(axes.ravel(), xticks=[], yticks=[], frame_on=False)
    return figure
