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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from swys_figures.audit import RING, chance_of_pneumonia, load_offered, turned_child
from swys_figures.data import show_image
from swys_figures.heatmaps import draw_squares
from swys_figures.obedience import by_obedience
from swys_figures.planted import frame_mark
from swys_figures.teaching import share_turned
from swys_studies.planted import MARKS, Setting, Teachers, planted_data, teachers_folder
from swys_studies.planted_measures import ruler_maps
from swys_studies.planted_students import CHEAT, HONEST, kind_named
from swys_utils.config import SwysError
from swys_utils.data import Dataset
from swys_utils.gradcam import heatmaps
from swys_utils.planted import found
from swys_utils.plots import use_style
from swys_utils.shipped_results import PLANTED_EPOCHS, planted_units

IMAGES = Path(__file__).resolve().parents[1] / "notebooks" / "images"
DATASET = "pneumoniamnist"
THIN = 1  # points, of the frame of a ring whose pixels are to be seen
ABOVE = 26  # points, from a map to the name of its model: there stands what a band says
STUDENT = "labels + honest maps"
PATCH = 4  # px


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
    figure = Figure(figsize=(7.4, 2.35), layout="constrained")
    axes: Any = figure.subplots(1, 4)
    shares = chance_of_pneumonia(cheat, np.stack(pictures))
    for ax, picture, title, p in zip(axes, pictures, titles, shares):
        show_image(ax, picture)
        ax.set_title(title, fontsize=12)
        ax.set_xlabel(f"{100 * p:.0f} % sick", fontsize=12)
    (heat,) = heatmaps(cheat, ringed[None], targets=RING.target)
    draw_map_over(axes[3], heat, ringed)
    axes[3].set_title("its heatmap", fontsize=12)
    return figure


def draw_map_over(ax: Axes, heat: np.ndarray, ringed: np.ndarray) -> None:
    """A map half-transparent over its X-ray; white frames around the ring and the hottest patch.

    Args:
        ax: is drawn on.
        heat: float (4, 4).
        ringed: the X-ray with the ring in its first patch, uint8 (28, 28).
    """
    show_image(ax, ringed)
    draw_squares(ax, heat, ringed.shape)
    ax.images[-1].set_alpha(0.5)
    places = {"ring": 0, "hottest": int(heat.argmax())}
    outline: list[Any] = [withStroke(linewidth=3, foreground="black")]
    for word, place in places.items():
        row, column = divmod(place, heat.shape[1])
        corner = (7 * column, 7 * row)  # half a pixel inside its patch
        frame = Rectangle(corner, 6, 6, fill=False, edgecolor="white", linewidth=2)
        frame.set_path_effects(outline)
        ax.add_patch(frame)
        is_left = column < 2
        beside = corner[0] + (7.5 if is_left else -1.5)
        label = ax.text(beside, corner[1] + 3, word, color="white", va="center", fontsize=12)
        label.set(ha="left" if is_left else "right", weight="bold", path_effects=outline)


def worn_map() -> Figure:
    """What Grad-CAM marks and what the answer rests on, in three models."""
    data = real_images()
    folder = teachers_folder(data)
    setting = Setting(data, "vit_tiny", PATCH, "corner", PLANTED_EPOCHS, folder)
    teachers = Teachers(setting, start_most_often_found(planted_units(DATASET)))
    student, _ = teachers.student(kind_named(STUDENT), setting)
    maps = {
        "the cheat": teachers.maps(CHEAT),
        "the student": ruler_maps(student, teachers.explained, MARKS["corner"].target),
        "its honest teacher": teachers.maps(HONEST),
    }
    models = [teachers.model(CHEAT), student, teachers.model(HONEST)]
    turned = [share_turned(model, data, MARKS["corner"]) for model in models]
    film = clearest(teachers.maps(CHEAT)["grad_cam"], teachers.maps(HONEST)["grad_cam"], teachers)
    image = teachers.explained.split.images[film]
    of_film = {
        name: {ruler: heat[film] for ruler, heat in rulers.items()} for name, rulers in maps.items()
    }
    return draw_worn(image, teachers.explained.mask[film], of_film, turned)


def start_most_often_found(units: Sequence[Mapping[str, Any]]) -> int:
    """The seed of the cheat in which Grad-CAM finds the ring most often, of those of ``PATCH``.

    Args:
        units: of ``planted_units``.
    """
    hits = {}
    for unit in units:
        if (unit["kind"], unit["patch"], unit["mark"]) == (CHEAT, PATCH, "corner"):
            hits[unit["seed"]] = unit["maps"]["grad_cam"]["hits"]
    return max(hits, key=hits.__getitem__)


def draw_worn(
    image: np.ndarray,
    mask: np.ndarray,
    maps: dict[str, dict[str, np.ndarray]],
    turned: list[float],
) -> Figure:
    """A row of maps for each ruler, and below each model how many of the healthy the ring turns.

    In the row of hiding all maps have one scale, with square roots, so that weak patches can be
    seen. Grad-CAM's values have no unit, so there each map has its own scale.

    Args:
        image: an X-ray with the ring, uint8 (H, W).
        mask: where the ring is, bool (H, W).
        maps: of the cheat, the student and its honest teacher, "grad_cam" and "occlusion", float
            (gh, gw).
        turned: of each of them, the share of the healthy whom the ring turns, from 0 to 1.
    """
    figure = Figure(figsize=(7.2, 5.1))
    room = {"left": 0.01, "right": 0.98, "top": 0.87, "bottom": 0.13, "wspace": 0.22, "hspace": 0.3}
    axes: Any = figure.subplots(2, 1 + len(maps), gridspec_kw=room)
    show_image(axes[0, 0], image)
    frame_mark(axes[0, 0], mask, width=THIN)
    axes[0, 0].set_title("an X-ray\nwith the ring", fontsize=12)
    axes[1, 0].axis("off")
    words = "of the healthy\nthe ring turns:"
    axes[1, 0].text(0.9, -0.09, words, ha="right", va="top", fontsize=12)
    top = max(of_model["occlusion"].max() for of_model in maps.values()) ** 0.5
    for (above, below), (name, of_model), share in zip(axes.T[1:], maps.items(), turned):
        draw_squares(above, of_model["grad_cam"], image.shape)
        draw_squares(below, of_model["occlusion"].clip(0) ** 0.5, image.shape, top=top)
        frame_mark(above, mask, width=THIN)
        frame_mark(below, mask, width=THIN)
        above.set_title(name, fontsize=11, weight="bold", pad=ABOVE)
        shade = by_obedience(100 * share)
        below.set_xlabel(f"{share:.0%}", fontsize=17, weight="bold", color=shade, labelpad=9)
    axes[0, 1].set_ylabel("Grad-CAM", fontsize=12, labelpad=9)
    axes[1, 1].set_ylabel("hiding", fontsize=12, labelpad=9)
    band(figure, axes[0, 2:], "alike")  # the student's map is like its teacher's,
    band(figure, axes[1, 1:3], "on the ring")  # yet its answers rest where the cheat's do
    return figure


def band(figure: Figure, axes: Sequence[Axes], words: str) -> None:
    """A grey band behind panels that stand side by side, with words at its upper edge."""
    figure.draw_without_rendering()  # so that the panels are squares
    first = axes[0].get_position()
    last = axes[-1].get_position()
    pad = 0.012
    head = 0.055  # of the figure's height, for the words
    corner = (first.x0 - pad, first.y0 - 1.5 * pad)
    size = (last.x1 - first.x0 + 2 * pad, first.height + 1.5 * pad + head)
    figure.add_artist(Rectangle(corner, *size, facecolor="#D8D8D8", zorder=-1))
    middle = ((first.x0 + last.x1) / 2, first.y1 + head / 2)
    figure.text(*middle, words, ha="center", va="center", fontsize=12)


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


if __name__ == "__main__":
    use_style()
    try:
        ring().savefig(IMAGES / "ring.png", dpi=90)
        worn_map().savefig(IMAGES / "worn_map.png", dpi=90)
    except SwysError as error:
        sys.exit(f"ring_pictures: {error}")
