"""Heatmaps in notebook 4 and extra 13: one map, empty ones, what colours hide, two models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy.ndimage import gaussian_filter
from timm.models.vision_transformer import VisionTransformer

from swys_utils.data import Dataset, Split
from swys_utils.explain import agreement
from swys_utils.gradcam import overlay
from swys_utils.metrics import point_scores
from swys_utils.plots import colour
from swys_utils.saved_models import SavedModel
from swys_utils.splits import has_class
from swys_utils.training import predict

from .data import short_name, show_image

PATCH_COLOURS = "inferno"
HOTTEST = "cyan"  # frame of the hottest patch
BRIGHTER = 8  # of 255 grey values, in the mean image
BORDER = 4  # px
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
        if np.isnan(auc) or auc >= MIN_AUC:  # nan: too few images to tell
            kept[name] = saved.model
            continue
        print(f"{name} has AUC {auc:.2f} after its short training: it has learned hardly more than")
        print("how frequent the classes are, so its maps would explain nothing and are left out.")
    return kept or {name: saved.model for name, saved in trained.items()}


def same_answers(answers: Mapping[str, np.ndarray]) -> np.ndarray:
    """Positions of the images to which all models give the same answer; all where they never do.

    Args:
        answers: model -> classes, int (N,).
    """
    table = np.stack(list(answers.values()))
    is_same = (table == table[0]).all(axis=0)
    if not is_same.any():
        return np.arange(len(is_same))
    return np.flatnonzero(is_same)


def typical_images(
    answers: Mapping[str, np.ndarray], signed: Mapping[str, np.ndarray], count: int
) -> np.ndarray:
    """Images with the same answer and no weak map, at evenly spaced ranks of the maps' agreement.

    With three images: the middle of each third, at 17, 50 and 83 %.

    Args:
        answers: model -> classes, int (N,).
        signed: model -> maps before the ReLU, float (N, gh, gw); the first two models count for
            the agreement. A map is weak whose peak is below a tenth of the model's highest one;
            where fewer than ``count`` images are left, weak maps are allowed.
        count: how many.

    Returns:
        Positions, int (count,), the least alike first.
    """
    agreed = same_answers(answers)
    peaks = []
    for maps in signed.values():
        highest = max(maps.max(), 1e-30)
        peaks.append(maps[agreed].max(axis=(1, 2)) / highest)
    strong = agreed[np.min(peaks, axis=0) > WEAK]
    if len(strong) >= count:
        agreed = strong
    first, *others = signed.values()
    second = others[0] if others else first  # one model, where another has learned nothing
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


def colours_figure(signed: np.ndarray) -> Figure:
    """Five maps, the strongest first: each on its own scale without ReLU, then all on one.

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
        above.imshow(signed[index], cmap=PATCH_COLOURS)
        below.imshow(
            signed[index].clip(0),
            cmap=PATCH_COLOURS,
            vmin=0,
            vmax=top,
        )
        share = f"{peaks[index] / top:.0%} of the highest" if peaks[index] > 0 else "empty"
        below.set_xlabel(share, fontsize=10)
    axes[0, 0].set_ylabel("own scale,\nno ReLU", fontsize=11)
    axes[1, 0].set_ylabel("one scale,\nReLU", fontsize=11)
    plt.setp(axes.ravel(), xticks=[], yticks=[])
    return figure


def two_rulers(
    images: np.ndarray,
    marked: Mapping[str, np.ndarray],
    hidden: Mapping[str, np.ndarray],
    answers: Sequence[str],
) -> Figure:
    """A row for each image: what two models mark in it, and what their answers rest on.

    All maps of a column have one scale, from 0 to the highest value among them. A frame is around
    the hottest patch of each map, whose value stands below it. Below the second map of each ruler
    stands how much the maps of both models agree. White lines are the edges of dark areas of the
    image, which in an X-ray are the lungs and the air.

    Args:
        images: uint8 (N, H, W) or (N, H, W, 3).
        marked: model -> signed Grad-CAM maps, float (N, gh, gw).
        hidden: model -> occlusion, float (N, gh, gw).
        answers: the answer to each image, which both models give.
    """
    rulers = {"Grad-CAM marks": marked, "the answer rests on": hidden}
    columns = 1 + sum(len(maps) for maps in rulers.values())
    figure, axes = plt.subplots(
        len(images), columns, figsize=(9, 2.1 * len(images) + 0.6), squeeze=False
    )
    figure.set_layout_engine("constrained")
    for ax, image, answer in zip(axes[:, 0], images, answers):
        show_image(ax, image)
        ax.set_xlabel(f"both: {answer}", fontsize=9)
    axes[0, 0].set_title("image", fontsize=10)
    place = 1
    for ruler, maps in rulers.items():
        words = _below_maps(maps)
        for name, of_model in maps.items():
            axes[0, place].set_title(f"{name}:\n{ruler}", color=colour(name), fontsize=10)
            for ax, image, heat, below in zip(axes[:, place], images, of_model, words[name]):
                draw_patches(ax, heat, images.shape[1:], top=of_model.max())
                draw_dark_areas(ax, image)
                ax.set_xlabel(below, fontsize=9)
            place += 1
    return figure


def _below_maps(maps: Mapping[str, np.ndarray]) -> dict[str, list[str]]:
    """What stands below each map of each model: its highest value; then how the last one agrees."""
    words = {}
    for name, of_model in maps.items():
        words[name] = [f"highest {heat.max():.2g}" for heat in of_model]
    first, *others = maps
    if others:  # none where the other model has learned nothing
        last = others[-1]
        for place, value in enumerate(agreement(maps[first], maps[last])):
            alike = "a constant map" if np.isnan(value) else f"agreement {value:.2f}"
            words[last][place] += f"\n{alike}"
    return words


def draw_dark_areas(ax: Axes, image: np.ndarray) -> None:
    """Thin lines around the dark areas of an image, to say where the patches of a map lie.

    Args:
        ax: is drawn on; its axes are scaled in pixels of the image.
        image: uint8 (H, W) or (H, W, 3); one of a single colour has no dark area and no line.
    """
    grey = image.astype(float) if image.ndim == 2 else image.mean(axis=2)
    if grey.std() == 0:
        return
    smooth = gaussian_filter(grey, sigma=len(image) / 28)
    level = smooth.mean() - smooth.std() / 2
    ax.contour(smooth, levels=[level], colors="white", linewidths=0.7, alpha=0.7)


def usual_places(maps: Mapping[str, np.ndarray]) -> Figure:
    """Where a patch usually stands in the order of its map, the mean over all images.

    Args:
        maps: title -> float (N, gh, gw). White: on average among the first fifth of the patches
            of a map; black: among the last fifth; grey: in each map somewhere else.
    """
    figure, axes = plt.subplots(1, len(maps), figsize=(2.2 * len(maps), 2.6), squeeze=False)
    figure.set_layout_engine("constrained")
    for ax, (title, of_model) in zip(axes[0], maps.items()):
        rows = of_model.reshape(len(of_model), -1)
        ranks = rows.argsort(axis=1).argsort(axis=1) / (rows.shape[1] - 1)
        mean = ranks.mean(axis=0).reshape(of_model.shape[1:])
        ax.imshow(mean, cmap="gray", vmin=0.2, vmax=0.8)
        ax.set_title(title, fontsize=10)
        ax.set(xticks=[], yticks=[])
        ax.set_xlabel(f"{len(of_model)} images", fontsize=9)
    return figure


def border_table(
    models: Mapping[str, VisionTransformer], data: Dataset, images: Split
) -> list[dict[str, str | float]]:
    """What models answer when the border of the pictures is covered with their mean colour.

    First its bright places are covered, then all of it. A place is bright where the training images
    of class 1 are on average more than ``BRIGHTER`` grey values brighter than the others.

    Args:
        models: name -> model.
        data: its training images say where the border is bright.
        images: the models are asked about them.
    """
    of_class = has_class(data.train, 1)
    mean_with = data.train.images[of_class].mean(axis=0)
    mean_without = data.train.images[~of_class].mean(axis=0)
    more = mean_with - mean_without
    border = np.ones(more.shape[:2], bool)
    border[BORDER:-BORDER, BORDER:-BORDER] = False
    bright = border & (more.reshape(*border.shape, -1).mean(axis=2) > BRIGHTER)
    regions = {"nothing": np.zeros_like(border), "its bright places": bright, "the border": border}
    others = ~has_class(images, 1)
    cleared = f"{short_name(data, 0)} cleared" if data.info.num_classes == 2 else "others cleared"
    rows: list[dict[str, str | float]] = []
    for name, model in models.items():
        before = predict(model, images.images, bf16=True).argmax(axis=1)
        for region, covered in regions.items():
            hidden = images.images.copy()
            hidden[:, covered] = hidden.mean(axis=(1, 2)).astype("uint8")[:, None]
            scores = predict(model, hidden, bf16=True)
            says = scores.argmax(axis=1)
            row: dict[str, str | float] = {
                "model": name,
                "covered": region,
                "AUC": point_scores(scores, images.labels, data.info.task)["auc"],
                "answers changed": f"{np.mean(says != before):.0%}",
                cleared: f"{np.mean(says[others] != 1):.0%}",
            }
            rows.append(row)
    return rows


def draw_patches(
    ax: Axes, heat: np.ndarray, shape: Sequence[int], top: float | None = None
) -> None:
    """A map, a square for each patch, and a frame around the hottest one if that is positive.

    Args:
        ax: as for ``draw_squares``.
        heat: as for ``draw_squares``.
        shape: as for ``draw_squares``.
        top: as for ``draw_squares``.
    """
    draw_squares(ax, heat, shape, top)
    if heat.max() <= 0:
        return
    height, width = shape[:2]
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    down = height / len(heat)
    across = width / len(heat[0])
    frame = Rectangle((column * across - 0.5, row * down - 0.5), across, down, fill=False)
    frame.set(edgecolor=HOTTEST, linewidth=2)
    ax.add_patch(frame)


def draw_squares(
    ax: Axes, heat: np.ndarray, shape: Sequence[int], top: float | None = None
) -> None:
    """A map, a square for each patch. What is not positive is black.

    Args:
        ax: is drawn on.
        heat: float (gh, gw).
        shape: height and width of the explained image, px, with which the axes are scaled.
        top: the value with the brightest colour; None: the highest one of the map.
    """
    height, width = shape[:2]
    box = (-0.5, width - 0.5, height - 0.5, -0.5)
    if top is None:
        top = heat.max()
    ax.imshow(heat, cmap=PATCH_COLOURS, vmin=0, vmax=max(top, 1e-30), extent=box)
    ax.set(xticks=[], yticks=[])
    if heat.max() <= 0:
        ax.text(width / 2, height / 2, "empty", color="white", ha="center", va="center")
