"""What notebook 1 shows of a data set: a guessing game, patches, neighbours, published scores."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from PIL import Image

from swys_utils.data import DEFAULT_DATASET, Dataset, to_model_input
from swys_utils.metrics import wilson_interval
from swys_utils.plots import GREY
from swys_utils.splits import Split, has_class

from .chest import name_places

MARK = "#E69F00"  # what a figure points at; no model has this colour
WARNING = "#B00020"
GROUPS = ("sick", "healthy")
FAR = 0.05  # of two AUCs
SHOWN_SIDE = 112  # px of an image on a button's side
NOTES = 101  # % of accuracy at which the column of notes begins, beside the axes


class GuessingGame(widgets.VBox):
    """Eight test images, four of which have the second class: which four?

    Args:
        data: its test split is shown; the question is about class number 1.

    Attributes:
        indices: int (8,), positions of the images in the test split.
        truth: bool (8,), which have the class.
        buttons: one below each image; pressed means "has it".
        answer: the text that says how many are right.
    """

    def __init__(self, data: Dataset):
        self.name = short_name(data, 1)
        self.truth = np.random.default_rng(5).permutation([True, False] * 4)
        self.indices = _four_of_each(data.test, self.truth, seed=0)
        self.images = data.test.images[self.indices]
        self.buttons = []
        columns = []
        for number, image in enumerate(self.images, start=1):
            layout = {"width": "auto", "min_width": f"{SHOWN_SIDE}px"}
            button = widgets.ToggleButton(description=f"{number}: {self.name}?", layout=layout)
            picture = widgets.Image(value=as_png(image), width=SHOWN_SIDE, height=SHOWN_SIDE)
            self.buttons.append(button)
            columns.append(widgets.VBox([picture, button], layout={"margin": "0 8px 8px 0"}))
        self.answer = widgets.HTML()
        done = widgets.Button(description="How many are right?")
        done.on_click(self.score)
        rows = widgets.HBox(columns, layout={"flex_flow": "row wrap"})
        super().__init__([rows, done, self.answer])

    def __repr__(self) -> str:
        return "Eight images with buttons (run the notebook to guess); below are the same eight."

    def score(self, _: object = None) -> int:
        """Say below the images how many guesses are right; returns their number."""
        guesses = np.array([button.value for button in self.buttons])
        right = int((guesses == self.truth).sum())
        places = ", ".join(str(number) for number in 1 + np.flatnonzero(self.truth))
        text = f"{right} of 8 are right (guessing: 4). With {self.name}: {places}."
        self.answer.value = text
        return right

    def figure(self) -> Figure:
        """The same eight images, for a page on which nothing can be pressed."""
        figure, axes = plt.subplots(
            2,
            4,
            figsize=(7.6, 4.3),
            layout="constrained",
        )
        for number, (ax, image) in enumerate(zip(axes.ravel(), self.images), start=1):
            show_image(ax, image)
            ax.set_title(str(number), loc="left", fontsize=12)
        return figure


def _four_of_each(split: Split, truth: np.ndarray, seed: int) -> np.ndarray:
    """Positions of images: of those with class 1 where ``truth`` says so, else of the others."""
    rng = np.random.default_rng(seed)
    member = has_class(split, 1)
    with_class = rng.permutation(np.flatnonzero(member))
    without = rng.permutation(np.flatnonzero(~member))
    indices = np.zeros(len(truth), dtype=int)
    indices[truth] = np.resize(with_class, truth.sum())
    indices[~truth] = np.resize(without, (~truth).sum())
    return indices


def as_png(image: np.ndarray) -> bytes:
    """One image at the side ``SHOWN_SIDE``, each pixel as a square.

    Args:
        image: uint8 (H, W) or (H, W, 3).
    """
    enlarged = Image.fromarray(image).resize((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.NEAREST)
    file = io.BytesIO()
    enlarged.save(file, format="PNG")
    return file.getvalue()


def short_name(data: Dataset, number: int) -> str:
    """A class as it fits on a button: the name's first words, whole ones where that is possible.

    Args:
        data: gives the names of the classes.
        number: of the class.
    """
    name = data.info.class_names[number].split("(")[0].strip()
    name = textwrap.shorten(name, 20, placeholder="") or name[:20]
    return f"class {name}" if name.isdigit() else name


def group_names(data: Dataset, number: int) -> tuple[str, str]:
    """What images with a class are called, and what all others are.

    Args:
        data: only in the default data set are they the sick and the healthy.
        number: of the class.
    """
    if data.info.name == DEFAULT_DATASET:
        return GROUPS
    return short_name(data, number), "others"


def show_image(ax: Axes, image: np.ndarray) -> None:
    """Draw one image without axes: uint8 (H, W) or (H, W, 3), or any float array."""
    shown = ax.imshow(image, cmap="gray")
    if image.dtype == np.uint8:
        shown.set_clim(0, 255)
    ax.set(xticks=[], yticks=[], frame_on=False)


def image_row(
    images: Sequence[np.ndarray], titles: Sequence[str], scores: Sequence[float]
) -> Figure:
    """Images side by side, with a text above each and an AUC below it.

    Args:
        images: each (H, W), (H, W, 1) or (H, W, 3), 0 to 255, of any sizes.
        titles: as many texts.
        scores: as many AUCs; one that is far below the first has a colour.
    """
    figure, axes = plt.subplots(
        1,
        len(images),
        figsize=(8, 2.3),
        layout="constrained",
        squeeze=False,
    )
    for ax, image, title, auc in zip(axes[0], images, titles, scores, strict=True):
        show_image(ax, np.asarray(image).astype(np.uint8).squeeze())
        ax.set_title(title, fontsize=10.5)
        drops = auc < scores[0] - FAR
        ax.set_xlabel(
            f"AUC {auc:.3f}",
            fontsize=14,
            weight="bold" if drops else "normal",
            color=WARNING if drops else "black",
        )
    return figure


def difference_figure(
    without: np.ndarray, with_class: np.ndarray, groups: tuple[str, str] = GROUPS
) -> Figure:
    """Two mean images, and where the second is brighter or darker than the first.

    Args:
        without: mean of the images without a class, float (H, W) or (H, W, 3), 0 to 255.
        with_class: mean of the images with it.
        groups: of ``group_names``.
    """
    article = "the " if groups == GROUPS else ""
    sick, healthy = groups
    difference = with_class - without
    if difference.ndim == 3:
        difference = difference.mean(axis=2)
    limit = np.abs(difference).max()
    figure, axes = plt.subplots(
        1,
        3,
        figsize=(8, 3),
        layout="constrained",
    )
    for ax, mean, words in zip(axes, (without, with_class), (healthy, sick)):
        ax.imshow(mean / 255, cmap="gray", vmin=0, vmax=1)
        ax.set_title(f"mean of {article}{words}", fontsize=11, loc="left")
    shown = axes[2].imshow(
        difference,
        cmap="PuOr_r",
        vmin=-limit,
        vmax=limit,
    )
    axes[2].set_title(f"{sick} minus {healthy}", fontsize=11, loc="left")
    if groups == GROUPS:
        name_places(axes[2], difference)
    bar = figure.colorbar(shown, ax=axes[2], shrink=0.8)
    bar.set_label("grey values, of 255")
    step = float(f"{0.7 * limit:.1g}")  # one digit, and never above the limit
    labels = [f"{step:g} {way}\nin {article}{sick}" for way in ("darker", "brighter")]
    bar.set_ticks([-step, 0, step], labels=[labels[0], "0", labels[1]])
    for ax in axes:
        ax.set(xticks=[], yticks=[], frame_on=False)
    return figure


def patch_figure(image: np.ndarray) -> Figure:
    """One image as a ViT cuts it at 28 px and at 224 px, and the same patch of both, enlarged.

    The patch of the large image is a quarter of the other one, which is dashed in both.

    Args:
        image: uint8 (28, 28) or (28, 28, 3); other sizes are shown at these two.
    """
    figure, axes = plt.subplots(
        1, 4, figsize=(8.4, 3), width_ratios=[2, 1] * 2, layout="constrained"
    )
    pixels = to_model_input(image[None], 28)
    patches = pixels.unfold(2, 4, 4).unfold(3, 4, 4)
    contrast = patches.std(dim=(0, 1, 4, 5))  # of each patch, (7, 7)
    y, x = divmod(int(contrast.argmax()), 7)
    panels = (
        (28, 4, axes[0], axes[1]),
        (224, 16, axes[2], axes[3]),
    )
    for side, patch, whole, one in panels:
        pixels = to_model_input(image[None], side)[0].permute(1, 2, 0)
        picture = (pixels / 2 + 0.5).numpy()
        top = y * side // 7
        left = x * side // 7
        show_image(whole, picture)
        _draw_grid(whole, side, patch)
        _frame(whole, (left, top), patch).set_linewidth(3)
        show_image(one, picture[top : top + patch, left : left + patch])
        pixel = side / 28  # of the stored image, in pixels of this one
        _draw_grid(one, patch, pixel)
        quarter = _frame(one, (0, 0), 2 * pixel)
        quarter.set(linewidth=2, linestyle="--")
        stored = int(patch / pixel) ** 2
        whole.set_title(f"{side} x {side} pixels,\n{(side // patch) ** 2} patches", fontsize=11)
        one.set_title(f"this patch:\n{stored} stored pixels", fontsize=11, color="#A06A00")
    return figure


def _frame(ax: Axes, corner: tuple[int, int], side: float) -> Rectangle:
    """Draw a frame around pixels; its corner is the position (x, y) of the upper left one."""
    left, top = corner
    frame = Rectangle((left - 0.5, top - 0.5), side, side, fill=False)
    frame.set(color=MARK, clip_on=False)
    ax.add_patch(frame)
    return frame


def _draw_grid(ax: Axes, side: int, patch: float) -> None:
    """White lines between the patches, or the pixels, of a square image."""
    for edge in np.arange(patch, side, patch) - 0.5:
        ax.axhline(edge, color="white", linewidth=0.5)
        ax.axvline(edge, color="white", linewidth=0.5)


def neighbour_figure(
    shown: Mapping[str, tuple[str, int]],
    splits: Mapping[str, Split],
    train: Split,
    nearest: Mapping[str, np.ndarray],
    asked: int,
    groups: tuple[str, str] = GROUPS,
) -> Figure:
    """Images above the training image that is nearest to each, and whether both are of one group.

    Args:
        shown: title -> (name of a split, position of an image in it).
        splits: name -> images.
        train: the training images.
        nearest: name of a split -> int (N,), position of each image's neighbour in ``train``.
        asked: in the corner of an image stands whether it is of this class.
        groups: of ``group_names``.

    Returns:
        A figure with a column for each image.
    """
    figure, axes = plt.subplots(
        2, len(shown), figsize=(6.4, 4.8), squeeze=False, layout="constrained"
    )
    what = "diagnosis" if groups == GROUPS else "class"
    for column, (title, (name, place)) in zip(axes.T, shown.items()):
        _show_named(column[0], splits[name], place, asked, groups)
        found = int(nearest[name][place])
        _show_named(column[1], train, found, asked, groups)
        column[0].set_title(title, fontsize=10, loc="left")
        same = has_class(splits[name], asked)[place] == has_class(train, asked)[found]
        words = f"✓ same {what}" if same else f"✗ another {what}"
        column[0].set_xlabel(words, fontsize=11, color="black" if same else WARNING)
    axes[0, 0].set_ylabel("image", fontsize=11)
    axes[1, 0].set_ylabel("nearest in\ntraining", fontsize=11)
    return figure


def _show_named(ax: Axes, split: Split, place: int, asked: int, groups: tuple[str, str]) -> None:
    """An image of a split; in its corner whether it has a class."""
    show_image(ax, split.images[place])
    with_class, other = groups
    name = with_class if has_class(split, asked)[place] else other
    text = ax.text(0.03, 0.03, name, transform=ax.transAxes, fontsize=10)
    text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 2})


class Published(NamedTuple):
    """A published score on the official test split, fractions.

    Attributes:
        model: what was trained, and at which size of the images.
        accuracy: on the test split.
        chosen_on: the images by which the epoch or the settings were chosen.
    """

    model: str
    accuracy: float
    chosen_on: str


PUBLISHED = {  # data set -> scores; notebook 1 names and links the sources
    DEFAULT_DATASET: (
        Published("ResNet-18, 28 px [1]", 0.854, "validation"),
        Published("ResNet-50, 224 px [1]", 0.884, "validation"),
        Published("AutoML, 28 px, pretrained [1]", 0.946, "validation"),
        Published("ViT-B/16, 28 px, pretrained [2]", 0.837, "validation"),
        Published("DINO ViT-B, 224 px, linear [2]", 0.916, "validation"),
        Published("MedMamba, 224 px [3]", 0.899, "unclear"),
        Published("MedViTV2, 224 px [4]", 0.973, "test"),
    )
}


def published_figure(data: Dataset, linear: float) -> Figure:
    """Published accuracies with the 95 % interval that the number of test images gives them.

    Args:
        data: its name chooses the scores, its test split the width of the intervals.
        linear: accuracy of the linear model, a fraction.
    """
    scores = sorted(PUBLISHED.get(data.info.name, ()), key=lambda score: score.accuracy)
    size = (7.8, 1.4 + 0.36 * len(scores))
    figure, ax = plt.subplots(figsize=size, layout="constrained")
    for place, score in enumerate(scores):
        _draw_published(ax, place, score, len(data.test))
    ax.set_yticks(range(len(scores)), [score.model for score in scores])
    top = max(len(scores), 1) - 0.3
    if scores:
        ax.text(NOTES, top, "model\nchosen by", va="bottom", color=GREY)
    ax.axvline(100 * linear, color="black", linestyle="--", linewidth=1.2)
    ax.text(100 * linear, top, "linear model\n(this page)", ha="center", va="bottom")
    interval = f", with 95 % interval of {len(data.test)} images" if scores else ""
    ax.set(xlabel=f"test accuracy (%){interval}")
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.set(xlim=(min(78, 100 * linear - 3), 100), ylim=(-0.6, top))
    return figure


def _draw_published(ax: Axes, place: int, score: Published, images: int) -> None:
    """A score as a dot on its interval; red where it was chosen on the test split."""
    right = np.arange(images) < round(score.accuracy * images)
    low, high = (100 * limit for limit in wilson_interval(right))
    shade = WARNING if score.chosen_on == "test" else "black"
    ax.hlines(place, low, high, color=shade, alpha=0.3, linewidth=4)
    ax.plot(100 * score.accuracy, place, "o", color=shade)
    ax.text(NOTES, place, score.chosen_on, va="center", color=shade)
