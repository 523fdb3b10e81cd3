"""Draw two pictures of models that read a planted ring (`swys study planted`).

notebooks/images/ring.png opens notebook 1: the first healthy test image whose answer the ring turns
in a cheat with 16 patches, the same with the ring covered, and the cheat's heatmap.

notebooks/images/worn_map.png: a cheat with 49 patches, an honest model, and a student that learned
the honest model's heatmaps, of the first test image. The start is the one of the table in notebook
5 in which Grad-CAM finds the ring in the cheat most often.

Both need the real images and about six minutes on two cores.

    python tools/ring_pictures.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from timm.models.vision_transformer import VisionTransformer

from swys_figures.data import show_image
from swys_figures.heatmaps import draw_patches
from swys_figures.planted import frame_mark
from swys_studies.planted import MARKS, Setting, Teachers, planted_data
from swys_studies.planted_measures import ruler_maps
from swys_studies.planted_students import CHEAT, HONEST, KINDS
from swys_studies.runs import RUNS
from swys_utils.config import SwysError
from swys_utils.metrics import probabilities
from swys_utils.plots import use_style
from swys_utils.splits import has_class
from swys_utils.training import predict

IMAGES = Path(__file__).resolve().parents[1] / "notebooks" / "images"
DATASET = "pneumoniamnist"
WORN_SEED = 3  # row 4 of the table in notebook 5


def setting_of(patch: int) -> Setting:
    """What the models have in common.

    Args:
        patch: side of a patch, px.
    """
    folder = RUNS / "planted" / DATASET
    data = planted_data(DATASET)
    return Setting(data, "vit_tiny", patch=patch, mark="corner", epochs=2, folder=folder)


def ring() -> Figure:
    """A healthy child without the ring, with it, with its corner covered, and the heatmap."""
    setting = setting_of(patch=7)
    teachers = Teachers(setting, 0)
    cheat = teachers.model(CHEAT)
    plain = setting.data.test.head(len(teachers.explained.split))
    marked = teachers.explained.split.images
    target = MARKS["corner"].target
    turned = ~has_class(plain, target) & (sick(cheat, plain.images) < 0.5)
    first = int((turned & (sick(cheat, marked) > 0.5)).argmax())
    covered = marked[first].copy()
    covered[:7, :7] = marked[first].mean().astype("uint8")
    pictures = [plain.images[first], marked[first], covered]
    titles = ["a healthy child", "with nine pixels", "corner covered"]
    figure = Figure(figsize=(7.4, 2.5), layout="constrained")
    axes: Any = figure.subplots(1, 4)
    for ax, picture, title, p in zip(axes, pictures, titles, sick(cheat, np.stack(pictures))):
        show_image(ax, picture)
        ax.set_title(title, fontsize=11)
        ax.set_xlabel(f'"{p:.0%} sick"', fontsize=12)
    draw_patches(axes[3], teachers.maps(CHEAT)["grad_cam"][first], (28, 28))
    frame_mark(axes[3], teachers.explained.mask[first])
    axes[3].set_title("its heatmap", fontsize=11)
    axes[3].set_xlabel("orange: the ring", fontsize=10)
    return figure


def sick(model: VisionTransformer, images: np.ndarray) -> np.ndarray:
    """Probability of the marked class, float (N,).

    Args:
        model: of the study.
        images: uint8 (N, 28, 28).
    """
    logits = predict(model, images)
    return probabilities(logits, "binary-class")[:, MARKS["corner"].target]


def worn_map() -> Figure:
    """What Grad-CAM marks and what the answer rests on, in three models.

    Log-odds have one scale for all models; Grad-CAM's values, which have no unit, one for each.
    """
    setting = setting_of(patch=4)
    teachers = Teachers(setting, WORN_SEED)
    taught = next(kind for kind in KINDS if kind.id == "labels + honest maps")
    student, _ = teachers.student(taught)
    of_student = ruler_maps(student, teachers.explained, MARKS["corner"].target)
    models = {
        "the cheat": teachers.maps(CHEAT),
        "an honest teacher": teachers.maps(HONEST),
        "its student": of_student,
    }
    figure = Figure(figsize=(8.2, 4.5), layout="constrained")
    axes: Any = figure.subplots(2, 1 + len(models))
    for ax in axes[:, 0]:
        ax.axis("off")
    show_image(axes[0, 0], teachers.explained.split.images[0])
    axes[0, 0].set_title("an X-ray\nwith the ring", fontsize=11)
    for row, (ruler, words) in zip(axes, {"grad_cam": "Grad-CAM", "occlusion": "hiding"}.items()):
        top = None
        if ruler == "occlusion":
            top = max(maps[ruler][0].max() for maps in models.values())
        for ax, (name, maps) in zip(row[1:], models.items()):
            draw_patches(ax, maps[ruler][0], (28, 28), top=top)
            frame_mark(ax, teachers.explained.mask[0])
            ax.set_title(f"{name}:\n{words}", fontsize=11)
            ax.set_xlabel(f"highest {maps[ruler][0].max():.2g}", fontsize=10)
    return figure


if __name__ == "__main__":
    use_style()
    try:
        ring().savefig(IMAGES / "ring.png", dpi=90)
        worn_map().savefig(IMAGES / "worn_map.png", dpi=90)
    except SwysError as error:
        sys.exit(f"ring_pictures: {error}")
