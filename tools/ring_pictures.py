"""Draw two pictures of models that read a planted ring (`swys study planted`).

notebooks/images/ring.png opens notebook 1: the first healthy test image that the ring clearly
turns in the shipped cheat, the same with the ring covered, and the cheat's heatmap.

notebooks/images/worn_map.png: a cheat with 49 patches, an honest model, and a student that learned
the honest model's heatmaps. The start is the one of the table in extra 14 in which Grad-CAM
finds the ring in the cheat most often, and the image one in which it does: of these the one on
which the honest model's map has the least heat at the ring.

Both need the real images, and the second one some minutes on two cores.

    python tools/ring_pictures.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from swys_figures.audit import RING, chance_of_pneumonia, load_offered, turned_child
from swys_figures.data import show_image
from swys_figures.heatmaps import draw_patches
from swys_figures.planted import frame_mark
from swys_figures.teaching import caught
from swys_studies.planted import MARKS, Setting, Teachers, planted_data
from swys_studies.planted_measures import ruler_maps
from swys_studies.planted_students import CHEAT, HONEST, KINDS
from swys_studies.runs import RUNS
from swys_utils.config import SwysError
from swys_utils.data import Dataset
from swys_utils.gradcam import heatmaps
from swys_utils.planted import found
from swys_utils.plots import use_style

IMAGES = Path(__file__).resolve().parents[1] / "notebooks" / "images"
DATASET = "pneumoniamnist"
WORN_SEED = 3  # row 4 of the table in extra 14


def real_images() -> Dataset:
    """The X-rays; a SwysError where only the drawn ones are there."""
    data = planted_data(DATASET)
    if data.info.synthetic:
        raise SwysError("no real images; set SWYS_DATA_DIR to a folder with them")
    return data


def ring() -> Figure:
    """A healthy child without the ring, with it, with its corner covered, and the heatmap."""
    cheat = load_offered("A")
    plain, ringed = turned_child(real_images(), cheat)
    covered = ringed.copy()
    covered[:7, :7] = ringed.mean().round().astype("uint8")
    pictures = [plain, ringed, covered]
    titles = ["a healthy child", "with nine pixels", "corner covered"]
    figure = Figure(figsize=(7.4, 2.5), layout="constrained")
    axes: Any = figure.subplots(1, 4)
    shares = chance_of_pneumonia(cheat, np.stack(pictures))
    for ax, picture, title, p in zip(axes, pictures, titles, shares):
        show_image(ax, picture)
        ax.set_title(title, fontsize=11)
        ax.set_xlabel(f'"{p:.0%} sick"', fontsize=12)
    (heat,) = heatmaps(cheat, ringed[None], targets=RING.target)
    draw_patches(axes[3], heat, ringed.shape)
    frame_mark(axes[3], plain != ringed)
    axes[3].set_title("its heatmap", fontsize=11)
    axes[3].set_xlabel("orange frame: the ring\ncyan frame: the hottest", fontsize=10)
    return figure


def worn_map() -> Figure:
    """What Grad-CAM marks and what the answer rests on, in three models.

    Log-odds have one scale for all models; Grad-CAM's values, which have no unit, one for each.
    """
    folder = RUNS / "planted" / DATASET
    data = real_images()
    setting = Setting(data, "vit_tiny", patch=4, mark="corner", epochs=2, folder=folder)
    teachers = Teachers(setting, WORN_SEED)
    taught = next(kind for kind in KINDS if kind.id == "labels + honest maps")
    student, _ = teachers.student(taught)
    of_student = ruler_maps(student, teachers.explained, MARKS["corner"].target)
    models = {
        "the cheat": teachers.maps(CHEAT),
        "an honest teacher": teachers.maps(HONEST),
        "its student": of_student,
    }
    turned = [
        caught(model, data, MARKS["corner"])
        for model in (teachers.model(CHEAT), teachers.model(HONEST), student)
    ]
    film = clearest(teachers.maps(CHEAT)["grad_cam"], teachers.maps(HONEST)["grad_cam"], teachers)
    figure = Figure(figsize=(8.2, 4.9), layout="constrained")
    axes: Any = figure.subplots(2, 1 + len(models))
    for ax in axes[:, 0]:
        ax.axis("off")
    show_image(axes[0, 0], teachers.explained.split.images[film])
    axes[0, 0].set_title("an X-ray\nwith the ring", fontsize=11)
    words_at(axes[0, 0], -0.08, "GRAD-CAM\neach map has\nits own scale")
    words_at(axes[1, 0], 0.8, "HIDING\none scale for all\n(square root)")
    words_at(axes[1, 0], -0.04, "highest\nhealthy turned sick")
    for row, ruler in zip(axes, ("grad_cam", "occlusion")):
        shown = {name: maps[ruler][film] for name, maps in models.items()}
        top = None
        if ruler == "occlusion":
            top = max(heat.max() for heat in shown.values()) ** 0.5
        for ax, (name, heat) in zip(row[1:], shown.items()):
            drawn = heat if top is None else heat.clip(0) ** 0.5  # so that weak ones are seen, too
            draw_patches(ax, drawn, (28, 28), top=top)
            frame_mark(ax, teachers.explained.mask[film])
            ax.set_xlabel(f"highest {heat.max():.2g}", fontsize=10)
            if ruler == "grad_cam":
                ax.set_title(name, fontsize=12, weight="bold")
    for ax, heat in zip(axes[1, 1:], shown.values()):
        ax.set_xlabel(f"{heat.max():.2g} of log-odds", fontsize=10)
    for ax, share in zip(axes[1, 1:], turned):
        ax.set_xlabel(f"{ax.get_xlabel()}\n{share}", fontsize=11)
    return figure


def clearest(of_cheat: np.ndarray, of_honest: np.ndarray, teachers: Teachers) -> int:
    """The image on which the two maps differ most about the ring.

    Args:
        of_cheat: Grad-CAM maps of the cheat, (N, rows, columns).
        of_honest: those of the honest model.
        teachers: with the marked images.

    Returns:
        Of the images on which the cheat's hottest patch touches the ring, the one on which the
        honest model's map has the smallest share of its heat in the patches that touch it.
    """
    mask = teachers.explained.mask
    share = found(of_honest, mask).heat
    share[~found(of_cheat, mask).hits] = np.nan
    return int(np.nanargmin(share))


def words_at(ax: Axes, height: float, words: str) -> None:
    """Write words at a height of a panel, 0 is its lower edge.

    Args:
        ax: the panel.
        height: of the upper edge of the words, as a part of the panel's height.
        words: one or two lines.
    """
    ax.text(
        0.5,
        height,
        words,
        transform=ax.transAxes,
        ha="center",
        va="top",
        fontsize=11,
    )


if __name__ == "__main__":
    use_style()
    try:
        ring().savefig(IMAGES / "ring.png", dpi=90)
        worn_map().savefig(IMAGES / "worn_map.png", dpi=90)
    except SwysError as error:
        sys.exit(f"ring_pictures: {error}")
