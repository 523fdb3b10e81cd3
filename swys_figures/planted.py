"""Figures of planted evidence: the marked images, a model that learns to cheat, what maps find."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from sklearn.metrics import roc_auc_score
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from swys_utils.curve_names import name_ends
from swys_utils.data import DEFAULT_DATASET, Dataset
from swys_utils.gradcam import METHODS
from swys_utils.metrics import probabilities
from swys_utils.planted import Mark, found, plant
from swys_utils.plots import GREY, LivePicture, colour
from swys_utils.shipped_results import planted_units
from swys_utils.splits import Split, has_class
from swys_utils.training import predict

from .data import MARK, short_name, show_image
from .heatmaps import HOTTEST, draw_patches
from .obedience import patches_of
from .rows import row_of_dots, write_beside, write_in_row

CURVES = {  # set of images -> its line: colour, style, where the mark is in it
    "as trained": ("black", "-", "as trained"),
    "clean": (GREY, "--", "no mark"),
    "swapped": ("#B00020", "-", "swapped"),
}
CNN = "resnet18"  # of swys study planted_cnn
COMPARED = ("grad_cam", "occlusion")  # ways to explain, in notebook 4
MOST_NAMED = 300  # test images that are shown with and without the mark


def marked_examples(data: Dataset, planted: Split, mask: np.ndarray, mark: Mark) -> Figure:
    """Five training images without the class and five with it; a frame where the mark is.

    Args:
        data: gives the names of the classes.
        planted: images, some of them marked.
        mask: the pixels of the mark, bool (N, H, W).
        mark: its class comes in the second row.
    """
    member = has_class(planted, mark.target)
    figure, axes = plt.subplots(
        2,
        5,
        figsize=(8, 3.6),
        layout="constrained",
    )
    name = short_name(data, mark.target)
    others = short_name(data, 1 - mark.target) if data.info.num_classes == 2 else "others"
    for row, title, chosen in zip(axes, [others, name], [~member, member]):
        indices = np.flatnonzero(chosen)
        row[0].set_ylabel(title, fontsize=11)
        for ax in row:
            ax.set(xticks=[], yticks=[], frame_on=False)  # a place may stay empty
        for ax, index in zip(row, indices):
            show_image(ax, planted.images[index])
            frame_mark(ax, mask[index])
    return figure


def frame_mark(ax: Axes, mask: np.ndarray, width: float = 2) -> None:
    """Draw a frame around the pixels of a mark, if there are any.

    Args:
        ax: shows the image, in pixels.
        mask: bool (H, W).
        width: of the frame's line, points.
    """
    rows, columns = np.nonzero(mask)
    if len(rows) == 0:
        return
    corner = (float(columns.min()) - 1.5, float(rows.min()) - 1.5)
    width_and_height = (float(np.ptp(columns)) + 3, float(np.ptp(rows)) + 3)
    frame = Rectangle(corner, *width_and_height, fill=False)
    frame.set(color=MARK, linewidth=width)
    outline = withStroke(linewidth=1.75 * width, foreground="black")  # to be seen on yellow
    frame.set_path_effects([outline])
    ax.add_patch(frame)


class ShortcutCurve:
    """How well a model tells a class while it learns: with the mark, without, and with it swapped.

    Pass it as ``callback`` to ``training.fit``; it looks at each twelfth of the time. A notebook
    keeps one PNG.

    Args:
        data: its test images are shown.
        mark: what is planted.
        images: number of test images.
        seconds: how long the training lasts; 0: it looks at each call.

    Attributes:
        history: for each look "seconds" and, for each set, the AUC of the marked class.
    """

    def __init__(self, data: Dataset, mark: Mark, images: int = 200, seconds: float = 0.0):
        self.task = data.info.task
        self.mark = mark
        self.seconds = seconds
        self.history: list[dict[str, float]] = []
        shown = data.test.sample(images)
        self.sets = {
            name: plant(
                shown,
                mark,
                seed=1,
                where=name,
            ).split
            for name in CURVES
        }
        self._picture = LivePicture()

    def __call__(self, model: VisionTransformer, seconds: float, step: int = 0) -> None:
        """Ask the model and redraw, if it is time to.

        Args:
            model: in training.
            seconds: how long it has been trained.
            step: number of steps so far.
        """
        interval = self.seconds / 12
        ends = 0 < self.seconds <= seconds
        if self.history and not ends and seconds < self.history[-1]["seconds"] + interval:
            return
        row = {"seconds": seconds}
        for name, split in self.sets.items():
            row[name] = self._area(model, split)
        self.history.append(row)
        alt = "AUC against training time for three sets of test images"
        self._picture.show(self.figure, alt)

    def outcome(self) -> str:
        """What the last look says, in a sentence or two."""
        last = self.history[-1]
        if last["swapped"] < last["clean"] - 0.1:
            return "This model reads the ring: with the ring on the wrong images it is much worse."
        return (
            "In the time that it had, this model did not learn to read the ring. What follows is "
            "about a ring that it reads: train longer (a larger recipe.seconds), or read on."
        )

    def figure(self) -> Figure:
        """The curves so far, with their names at their ends."""
        figure = Figure(figsize=(7, 3.2), layout="constrained", dpi=90)
        ax = figure.subplots()
        seconds = [row["seconds"] for row in self.history]
        ends = {}
        for name, (shade, style, text) in CURVES.items():
            values = [row[name] for row in self.history]
            ax.plot(seconds, values, style, color=shade, lw=2, marker=".")
            ends[f"{text}: {values[-1]:.2f}"] = (values[-1], shade)
        ends["guessing: 0.50"] = (0.5, GREY)
        end = seconds[-1] or 1
        name_ends(ax, end, ends, gap=0.09)
        shade = CURVES["swapped"][0]
        ax.axhspan(-0.17, 0.5, color=shade, alpha=0.1, lw=0)
        words = "the ring counts for more than the disease"
        below_all_curves = -0.1
        write_in_row(
            ax,
            below_all_curves,
            words,
            at=0.5,
            ha="center",
            color=shade,
        )
        ax.set(xlabel="training time (s)", ylabel="AUC on test images")
        ax.set_xlim(0, end)
        ax.set_ylim(-0.17, 1.05)
        ax.set_yticks(np.linspace(0, 1, 6))
        return figure

    def _area(self, model: nn.Module, split: Split) -> float:
        logits = predict(model, split.images, bf16=True)
        scores = probabilities(logits, self.task)[:, self.mark.target]
        member = has_class(split, self.mark.target)
        if member.all() or not member.any():
            return float("nan")
        return float(roc_auc_score(member, scores))


def how_often_named(model: VisionTransformer, data: Dataset, mark: Mark) -> list[dict[str, str]]:
    """How often a model names the marked class: with and without the mark.

    Args:
        model: is asked about the test images.
        data: gives them.
        mark: what is planted.

    Returns:
        Rows for ``results.as_table``, one for the images of the class and one for all others.
    """
    name = short_name(data, mark.target)
    shown = data.test.sample(MOST_NAMED)
    member = has_class(shown, mark.target)
    rows = [{"images": f"truly {name}"}, {"images": f"truly not {name}"}]
    for title, where in {"without the mark": "clean", "with the mark": "everywhere"}.items():
        images = plant(shown, mark, where=where).split.images
        logits = predict(model, images, bf16=True)
        scores = probabilities(logits, data.info.task)
        named = scores.argmax(axis=1) == mark.target
        if data.info.multi_label:
            named = scores[:, mark.target] > 0.5
        for row, chosen in zip(rows, [member, ~member]):
            row[title] = f"{named[chosen].mean():.0%} called {name}" if chosen.any() else "no image"
    return rows


def found_figure(
    images: np.ndarray, mask: np.ndarray, maps: Mapping[str, np.ndarray], shown: slice
) -> Figure:
    """Some marked images and, below them, a row of maps for each way to explain.

    All maps of a row share one scale. At its end stands in how many of *all* images the hottest
    patch is on the mark.

    Args:
        images: uint8 (N, H, W) or (N, H, W, 3), all marked.
        mask: the pixels of the mark, bool (N, H, W).
        maps: name of a way to explain -> float (N, gh, gw).
        shown: which of the images.
    """
    pictures = images[shown]
    frames = mask[shown]
    width = 1.2 * len(pictures) + 2
    height = 1.45 * len(maps) + 1.4
    figure, axes = plt.subplots(
        1 + len(maps),
        len(pictures),
        figsize=(width, height),
        squeeze=False,
        layout="constrained",
    )
    axes[0, 0].set_ylabel("image", fontsize=11)
    for ax, image, pixels in zip(axes[0], pictures, frames):
        show_image(ax, image)
        frame_mark(ax, pixels)
    _explain_frames(axes[0, -1])
    for row, (name, heat) in zip(axes[1:], maps.items()):
        row[0].set_ylabel(name, fontsize=11)
        hits = found(heat, mask).hits
        top = heat[shown].max()
        for ax, one, hit, pixels in zip(row, heat[shown], hits[shown], frames):
            draw_patches(ax, one, images.shape[1:], top=top)
            frame_mark(ax, pixels)
            title = ax.set_title("miss", fontsize=10)
            if one.max() <= 0:
                title.set_text("empty")
            elif hit:
                title.set(text="hit", weight="bold")
        share = f"hits:\n{100 * hits.mean():.0f} % of\n{len(hits)} images"
        write_beside(
            row[-1],
            share,
            at=1.1,
            fontsize=11,
        )
    return figure


def _explain_frames(ax: Axes) -> None:
    """Beside a picture: what the frames of ``found_figure`` are around."""
    words = {
        "the ring": MARK,
        "the hottest\npatch": HOTTEST,
    }
    keys = []
    for shade in words.values():
        key = Patch(facecolor="black")
        key.set_edgecolor(shade)
        key.set_linewidth(2)
        keys.append(key)
    ax.legend(
        keys,
        list(words),
        loc="center left",
        bbox_to_anchor=(1, 0.5),
        frameon=False,
        handlelength=1,
        handleheight=1,
    )


def finders_figure(dataset: str = DEFAULT_DATASET) -> Figure:
    """How often Grad-CAM and hiding point at a planted mark: a dot for each cheating model.

    The panels stand below each other, so that a phone shows them in a size that can be read. At the
    end of each row stands the mean.

    Args:
        dataset: MedMNIST's name; where nothing was measured, the default one is shown.
    """
    units_of_vits = planted_units(dataset)
    cheats = _cheats(units_of_vits)
    panels = {}
    for patch in sorted({unit["patch"] for unit in cheats}, reverse=True) or [7]:
        units = [unit for unit in cheats if unit["patch"] == patch]
        panels[f"ViT, {patches_of(patch)} patches, {len(units)} models"] = units
    cnns = _cheats(planted_units(dataset, CNN))
    if cnns:
        panels[f"ResNet-18, {len(cnns)} models"] = cnns
    rows = [_measured_methods(units) for units in panels.values()]
    heights = [len(keys) + 1.6 for keys in rows]
    figure, axes = plt.subplots(
        len(panels),
        1,
        figsize=(6.2, 0.33 * sum(heights) + 0.7),
        height_ratios=heights,
        sharex=True,
        squeeze=False,
    )
    figure.set_layout_engine("constrained")
    for ax, (title, units), keys in zip(axes[:, 0], panels.items(), rows):
        _draw_hits(ax, units, keys)
        ax.set_title(title, loc="left", fontsize=11)
    write_in_row(axes[0, 0], -0.75, "mean", at=1.01, color=GREY)
    axes[-1, 0].set_xlabel("images in which the hottest patch is on the ring (%)")
    return figure


def _measured_methods(units: Sequence[Mapping]) -> dict[str, str]:
    """Title of each of ``COMPARED`` that was measured -> its key in planted.json.

    Of a method that was measured at several blocks or layers the last one counts, else its first
    variant.
    """
    keys: dict[str, str] = {}
    for unit in units:
        for key in unit["methods"]:
            method = key.partition(", ")[0]
            if method in COMPARED and _depth(key) > _depth(keys.get(method, "")):
                keys[method] = key
    return {METHODS[method].title: key for method, key in keys.items()}


def _depth(key: str) -> int:
    """The number of the block or layer in a key of planted.json; 0 without one, -1 of no key."""
    if not key:
        return -1
    number = re.search(r"(?:block |layer)(\d+)$", key)
    return int(number[1]) if number else 0


def _draw_hits(ax: Axes, units: Sequence[Mapping], rows: Mapping[str, str]) -> None:
    """A row of dots for each way to explain, their mean, and a line at chance."""
    for row, (title, key) in enumerate(rows.items()):
        shares = [unit["methods"][key]["hits"] for unit in units if key in unit["methods"]]
        hits = 100 * np.array(shares)
        row_of_dots(ax, row, hits, colour(title))
        mean = hits.mean()
        write_in_row(
            ax,
            row,
            f"{mean:.0f} %",
            at=1.01,
        )
        if row % 2:  # a band, so that a dot is seen to be of its row
            ax.axhspan(
                row - 0.5,
                row + 0.5,
                color=GREY,
                alpha=0.1,
                lw=0,
            )
    if units:
        chance = 100 * units[0]["methods"]["occlusion, mean"]["chance"]
        ax.axvline(chance, color=GREY, lw=1)
        ax.text(
            chance,
            -0.75,
            " chance",
            color=GREY,
            va="center",
            fontsize=9,
        )
    hiding = METHODS["occlusion"].title  # the papers' name; the notebooks say what it does
    names = ["hiding" if title == hiding else title for title in rows]
    ax.set_xlim(-4, 104)
    ax.set_ylim(max(len(rows), 1) - 0.5, -1.1)
    ax.set_yticks(range(len(rows)), names)


def _cheats(units: Sequence[Mapping]) -> list[Mapping]:
    """Of the measured models those that were trained on marks in a corner."""
    return [unit for unit in units if unit["kind"] == "cheat" and unit["mark"] == "corner"]
