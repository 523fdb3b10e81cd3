"""Draw the README's picture: what three models mark in X-rays, and what their answers rest on.

Run from the repository's root, with the images in SWYS_DATA_DIR. Of the test images to which all
three models give the same answer and no map is empty or weak it takes one with little, one with
medium and one with much agreement between the Grad-CAM maps of Base and Tiny.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from swys_figures.data import show_image
from swys_figures.heatmaps import typical_images
from swys_studies.reference import study_data
from swys_utils.config import SwysError
from swys_utils.explain import agreement
from swys_utils.gradcam import heatmaps, overlay
from swys_utils.models import SERIES, load_checkpoint
from swys_utils.training import predict

ROOT = Path(__file__).resolve().parents[1]
PATH = ROOT / "notebooks" / "images" / "where_it_looks.png"
NAMES = ("vit_base", "vit_tiny", "vit_tiny_maps")
SHOWN = 3
LOOKED_AT = 96
METHODS = {"grad_cam": "what Grad-CAM marks", "occlusion": "what the answer rests on"}


def main() -> None:
    """Draw the picture and write it."""
    data = study_data("pneumoniamnist")  # the real images
    test = data.test.sample(LOOKED_AT)
    models = {name: load_checkpoint(f"pneumoniamnist/{name}")[0] for name in NAMES}
    answers = {name: predict(model, test.images).argmax(axis=1) for name, model in models.items()}
    signed = {name: heatmaps(model, test.images, signed=True) for name, model in models.items()}
    chosen = typical_images(answers, signed, SHOWN)
    images = test.images[chosen]
    figure = Figure(figsize=(10.5, 5.2), layout="constrained")
    parts: Any = figure.subfigures(1, 3, width_ratios=[1.15, 3, 3], wspace=0.02)
    first, *halves = parts
    axes = first.subplots(SHOWN, 1)
    first.suptitle("X-ray", fontsize=12)
    axes[0].set_title(" ", fontsize=10)
    for ax, image in zip(axes, images):
        show_image(ax, image)
    for half, (method, words) in zip(halves, METHODS.items()):
        half.suptitle(words, fontsize=12)
        axes = half.subplots(SHOWN, len(models))
        maps = {}
        for name, model in models.items():
            maps[name] = heatmaps(model, images, method, answers[name][chosen], signed=True)
        for column, name in zip(axes.T, models):
            _draw(column, images, maps[name], maps[NAMES[0]], name)
    figure.savefig(PATH, dpi=110)


def _draw(
    column: np.ndarray, images: np.ndarray, maps: np.ndarray, base: np.ndarray, name: str
) -> None:
    """Draw the maps of one model over all images, with their agreement with Base's."""
    title = SERIES[name].title.replace("Tiny, answers + maps", "Tiny, taught both")
    column[0].set_title(title, color=SERIES[name].colour, fontsize=10)
    for ax, picture in zip(column, overlay(images, maps, alpha=0.7, size=112)):
        show_image(ax, picture)
    if name == NAMES[0]:
        return
    for ax, value in zip(column, agreement(base, maps)):
        _number(ax, value)


def _number(ax: Axes, value: float) -> None:
    """An agreement, in the corner of a picture."""
    label = ax.text(0.03, 0.97, f"{value:.2f}", transform=ax.transAxes, va="top", fontsize=10)
    label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1.5})


if __name__ == "__main__":
    try:
        main()
    except SwysError as error:
        sys.exit(f"readme_picture: {error}")
