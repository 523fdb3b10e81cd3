"""Figures of notebook 4: one heatmap, why maps are empty, what colours hide, two models' places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from timm.models.vision_transformer import VisionTransformer

from swys_utils.explain import agreement
from swys_utils.gradcam import overlay
from swys_utils.plots import GREY, colour
from swys_utils.saved_models import SavedModel

from .data import images_above, show_image

PATCH_COLOURS = "inferno"
WEAK = 0.1  # of the highest value of a model's maps
MIN_AUC = 0.6  # a model below it knows hardly more than the shares of the classes


def knowing_models(trained: Mapping[str, SavedModel]) -> dict[str, VisionTransformer]:
    """The models that have learned something; of the others the page says that they have not.

    Args:
        trained: name -> model and card, whose history has the AUC on images it was not trained on.

    Returns:
        Name -> model; all of them where none has learned more.
    """
    kept = {}
    for name, saved in trained.items():
        last = saved.card["history"][-1]
        auc = last.get("val_auc", last.get("auc", 1.0))
        if auc >= MIN_AUC:
            kept[name] = saved.model
            continue
        print(f"{name} has AUC {auc:.2f} after its short training: it has learned hardly more than")
        print("how frequent the classes are, so its maps would explain nothing and are left out.")
    return kept or {name: saved.model for name, saved in trained.items()}


def same_answers(answers: Mapping[str, np.ndarray], signed: Mapping[str, np.ndarray]) -> np.ndarray:
    """Positions of the images to which all models give the same answer, strong maps first.

    Where they never do, all images are taken.

    Args:
        answers: model -> classes, int (N,).
        signed: model -> maps before the ReLU, float (N, gh, gw). A map's strength is its peak as a
            share of the model's highest one; an image has the strength of its weakest map.
    """
    table = np.stack(list(answers.values()))
    is_same = (table == table[0]).all(axis=0)
    agreed = np.flatnonzero(is_same | ~is_same.any())
    strengths = []
    for maps in signed.values():
        peaks = maps.max(axis=(1, 2))
        strengths.append(peaks / max(peaks.max(), 1e-30))
    weakest = np.min(strengths, axis=0)[agreed]
    return agreed[np.argsort(-weakest, kind="stable")]


def typical_images(
    answers: Mapping[str, np.ndarray], signed: Mapping[str, np.ndarray], count: int
) -> np.ndarray:
    """Images with the same answer and no weak map, at evenly spaced ranks of the maps' agreement.

    With three images these are nearly the lower quartile, the median and the upper quartile.

    Args:
        answers: model -> classes, int (N,).
        signed: model -> maps before the ReLU, float (N, gh, gw); the first two models count for
            the agreement. A map is weak whose peak is below a tenth of the model's highest one;
            where fewer than ``count`` images are left, weak maps are allowed.
        count: how many.

    Returns:
        Positions, int (count,), the least alike first.
    """
    agreed = np.sort(same_answers(answers, signed))
    peaks = [maps[agreed].max(axis=(1, 2)) / max(maps.max(), 1e-30) for maps in signed.values()]
    strong = agreed[np.min(peaks, axis=0) > WEAK]
    if len(strong) >= count:
        agreed = strong
    first, second, *_ = signed.values()
    alike = np.nan_to_num(agreement(first[agreed], second[agreed]))
    order = agreed[np.argsort(alike, kind="stable")]
    ranks = (np.arange(count) + 0.5) / count * len(order)
    return order[ranks.astype(int)]


def heatmap_steps(image: np.ndarray, heat: np.ndarray, title: str) -> Figure:
    """An image, its heatmap as one value for each patch, and the usual smooth picture.

    Args:
        image: uint8 (H, W) or (H, W, 3).
        heat: float (gh, gw), >= 0.
        title: above the image.
    """
    figure, axes = plt.subplots(
        1,
        3,
        figsize=(8, 2.7),
        layout="constrained",
    )
    show_image(axes[0], image)
    values = axes[1].imshow(heat, cmap=PATCH_COLOURS, vmin=0)
    axes[1].set(xticks=[], yticks=[])
    figure.colorbar(values, ax=axes[1], shrink=0.85, label="value of the map")
    show_image(
        axes[2],
        overlay(
            image[None],
            heat[None],
            alpha=0.7,
            size=224,
        )[0],
    )
    titles = [title, "one value for each patch", "smoothed, over the image"]
    for ax, text in zip(axes, titles):
        ax.set_title(text, fontsize=11, loc="left")
    return figure


def offset_figure(signed: Mapping[str, np.ndarray], sureness: Mapping[str, np.ndarray]) -> Figure:
    """For each image a line from the lowest to the highest value of its map, a dot at the mean.

    Args:
        signed: model -> maps before the ReLU, float (N, gh, gw).
        sureness: model -> log-odds of its answers, float (N,).
    """
    figure, axes = plt.subplots(
        1,
        len(signed),
        figsize=(8, 3.3),
        squeeze=False,
    )
    figure.set_layout_engine("constrained")
    for ax, (name, maps) in zip(axes[0], signed.items()):
        _draw_offsets(
            ax,
            maps.reshape(len(maps), -1),
            sureness[name],
            colour(name),
        )
        empty = int((maps.max(axis=(1, 2)) <= 0).sum())
        ax.set_title(f"{name}: {empty} of {len(maps)} maps empty", color=colour(name), loc="left")
    axes[0, 0].set_ylabel("values of the map")
    heights = [ax.get_ylim()[1] for ax in axes[0]]
    for ax, height in zip(axes[0], heights):
        if max(heights) > 2 * height:
            text = f"(scale {max(heights) / height:.0f} times finer)"
            ax.text(0.02, 0.94, text, transform=ax.transAxes, color=GREY)
    return figure


def _draw_offsets(ax: Axes, values: np.ndarray, x: np.ndarray, shade: str) -> None:
    """Lines and dots of one model; grey where the ReLU cuts off."""
    lines = ax.vlines(
        x,
        values.min(axis=1),
        values.max(axis=1),
        color=shade,
        lw=1.5,
    )
    lines.set_alpha(0.5)
    ax.plot(
        x,
        values.mean(axis=1),
        "o",
        ms=4,
        color=shade,
    )
    top = max(abs(values).max(), 1e-9) * 1.1
    ax.axhspan(-top, 0, color=GREY, alpha=0.15, lw=0)
    ax.axhline(0, color="black", lw=1)
    ax.set(xlabel="how sure the answer is (log-odds)", ylim=(-top, top))
    ax.text(
        0.98,
        0.03,
        "ReLU removes this",
        transform=ax.transAxes,
        ha="right",
        color=GREY,
    )


def colours_figure(signed: np.ndarray) -> Figure:
    """Five maps, the strongest first: on one scale, then each on its own and without ReLU.

    Args:
        signed: maps before the ReLU, float (N, gh, gw).
    """
    peaks = signed.max(axis=(1, 2))
    order = np.argsort(-peaks)
    chosen = order[
        np.linspace(
            0,
            len(order) - 1,
            5,
        ).astype(int)
    ]
    top = max(peaks.max(), 1e-30)
    figure, axes = plt.subplots(
        2,
        5,
        figsize=(8, 3.7),
        layout="constrained",
    )
    for above, below, index in zip(*axes, chosen):
        above.imshow(
            signed[index].clip(0),
            cmap=PATCH_COLOURS,
            vmin=0,
            vmax=top,
        )
        below.imshow(signed[index], cmap=PATCH_COLOURS)
        share = f"{peaks[index] / top:.0%} of the highest" if peaks[index] > 0 else "empty"
        above.set_title(share, fontsize=10)
    axes[0, 0].set_ylabel("honest:\none scale, ReLU")
    axes[1, 0].set_ylabel("usual: own\nscale, no ReLU")
    plt.setp(axes.ravel(), xticks=[], yticks=[])
    return figure


def two_rulers(
    images: np.ndarray,
    marked: Mapping[str, np.ndarray],
    hidden: Mapping[str, np.ndarray],
    answers: Sequence[str],
) -> Figure:
    """Images, below each what two models mark, and below that what their answers rest on.

    A frame is around the hottest patch of each map. Below the second model of each ruler stands how
    much its maps agree with the first one's.

    Args:
        images: uint8 (N, H, W) or (N, H, W, 3).
        marked: model -> signed Grad-CAM maps, float (N, gh, gw).
        hidden: model -> occlusion, float (N, gh, gw).
        answers: the answer to each image, which both models give.
    """
    rows = [(f"{name},\nGrad-CAM", maps) for name, maps in marked.items()]
    rows += [(f"{name},\nhiding", maps) for name, maps in hidden.items()]
    size = (1.6 * len(images) + 1.2, 1.65 * (len(rows) + 1))
    figure, axes = images_above(images, len(rows), size)
    for ax, answer in zip(axes[0], answers):
        ax.set_title(f"both: {answer}", fontsize=9)
    for row, (name, maps) in zip(axes[1:], rows):
        pictures = overlay(images, maps, alpha=0.7, size=112)
        row[0].set_ylabel(
            name,
            color=colour(name.split(",")[0]),
            fontsize=11,
        )
        for ax, picture, heat in zip(row, pictures, maps):
            show_image(ax, picture)
            _frame_hottest(ax, heat, len(picture))
    last = len(marked)
    for by_model, row in ((marked, axes[last]), (hidden, axes[last + len(hidden)])):
        first, *_, second = by_model.values()
        for ax, value in zip(row, agreement(first, second)):
            ax.set_xlabel(f"agreement {value:.2f}", fontsize=11, weight="bold")
    return figure


def _frame_hottest(ax: Axes, heat: np.ndarray, side: int) -> None:
    """A frame around the hottest patch of a map, or the word that there is none."""
    if heat.max() <= 0:
        ax.text(side / 2, side / 2, "empty", color="white", ha="center", va="center")
        return
    patch = side / len(heat)
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    corner = (column * patch - 0.5, row * patch - 0.5)
    ax.add_patch(Rectangle(corner, patch, patch, fill=False, edgecolor="cyan", linewidth=1.5))
