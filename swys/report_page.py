"""A comparison as one HTML page that needs nothing else: no server, no network, no other file."""

from __future__ import annotations

import base64
import io
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, select_autoescape
from PIL import Image

from swys_utils.config import PROJECT_ROOT
from swys_utils.gradcam import overlay

from .comparison import Measured
from .measure_rows import Row
from .measures import megabytes
from .opened_models import OpenedModel
from .shown_images import ShownImage
from .verdicts import CANNOT_TELL, KEPT, LOST
from .wording import (
    AT_MOST,
    GLYPHS,
    bound_text,
    headline,
    interval_text,
    number_text,
    unit_text,
)

FOLDER = Path(__file__).parent
SIDE = 192  # px of a picture; a screen shows it at about this size
QUALITY = 84
HEATMAP_COLOURS = "inferno"
OCCLUSION_COLOURS = "viridis"
ALPHA = 0.72
WORDS = (KEPT, LOST, CANNOT_TELL)


@dataclass(frozen=True)
class Axis:
    """Where a measure's figures lie on its line, in percent of the width.

    Attributes:
        low: left end of the interval.
        high: right end.
        value: the figure.
        good_from: where what is allowed begins.
        good_to: where it ends.
        bound: the bound itself.
        chance: or None.
        ceiling: or None.
    """

    low: float
    high: float
    value: float
    good_from: float
    good_to: float
    bound: float
    chance: float | None
    ceiling: float | None


@dataclass(frozen=True)
class Picture:
    """A picture of an image in the report.

    Attributes:
        title: what it shows.
        model: ``A``, ``B``, or "" for the image itself.
        kind: ``image``, ``map`` or ``occlusion``.
        source: a data URI.
        text: what it shows, for those who cannot see it.
        empty: whether the map has no positive value.
    """

    title: str
    model: str
    kind: str
    source: str
    text: str
    empty: bool = False


def page(measured: Measured, folder: Path | None = None) -> str:
    """The whole page.

    Args:
        measured: the comparison.
        folder: where the page will lie: links to the notebooks lead from there. None: no links.

    Returns:
        HTML.
    """
    template = _environment().get_template("compare.html.jinja")
    return template.render(
        measured=measured,
        headline=headline(measured),
        counts=[(word, measured.count(word)) for word in WORDS],
        axes={row.id: axis_of(row) for row in measured.rows},
        models=[(name, measured.models[name], _facts(measured.models[name])) for name in "AB"],
        ceiling=measured.models.get("ceiling"),
        kinds=_kinds(measured.shown),
        notebook=notebook_links(folder),
        style=_text("compare.css"),
        script=_text("compare.js"),
    )


def image_html(image: ShownImage) -> str:
    """One image with its maps, for a notebook's slider.

    Args:
        image: with its maps.

    Returns:
        HTML, with its style.
    """
    template = _environment().get_template("compare_image.html.jinja")
    card = template.module.card(image)  # type: ignore[attr-defined]
    return f'<style>{_text("compare.css")}</style><div class="swys">{card}</div>'


def pictures(image: ShownImage) -> list[Picture]:
    """The image, then the maps of both models over it.

    Args:
        image: with its maps.

    Returns:
        One to five pictures.
    """
    none = np.zeros((1, 1))
    drawn = [Picture("Image", "", "image", _drawn(image.pixels, none, "gray"), "the image")]
    for kind, maps, colours in (
        ("map", image.maps, HEATMAP_COLOURS),
        ("occlusion", image.occlusions, OCCLUSION_COLOURS),
    ):
        for name in "AB":
            if name not in maps:
                continue
            what = "marks" if kind == "map" else "rests on"
            drawn.append(
                Picture(
                    title=what,
                    model=name,
                    kind=kind,
                    source=_drawn(image.pixels, maps[name], colours),
                    text=f"what {name} {what}, drawn over the image",
                    empty=bool(maps[name].max() <= 0),
                )
            )
    return drawn


def axis_of(row: Row) -> Axis | None:
    """Where a measure's figures lie on its line.

    Args:
        row: the measure.

    Returns:
        The places; None where there is no figure.
    """
    if not row.measured:
        return None
    marks = [row.estimate.low, row.estimate.high, row.estimate.value, row.bound]
    marks += [mark for mark in (row.chance, row.ceiling) if mark is not None]
    if row.unit != "share":
        marks.append(0.0)
    if row.unit in ("correlation", "times"):
        marks.append(1.0)
    start = min(marks)
    stop = max(marks)
    margin = 0.06 * (stop - start or 1)
    start -= margin
    stop += margin

    def place(value: float) -> float:
        return round(100 * (value - start) / (stop - start), 2)

    bound = place(row.bound)
    low_is_good = row.id in AT_MOST
    return Axis(
        low=place(row.estimate.low),
        high=place(row.estimate.high),
        value=place(row.estimate.value),
        good_from=0 if low_is_good else bound,
        good_to=bound if low_is_good else 100,
        bound=bound,
        chance=None if row.chance is None else place(row.chance),
        ceiling=None if row.ceiling is None else place(row.ceiling),
    )


def notebook_links(folder: Path | None) -> dict[str, str]:
    """Where the notebooks are, seen from a page in a clone of the repository.

    Args:
        folder: of the page.

    Returns:
        "base": the way to ``notebooks/``, ending in a slash; empty outside of a clone, where a way
        would lead through the folders of this machine.
    """
    notebooks = PROJECT_ROOT / "notebooks"
    if folder is None or not (notebooks / "01_data.ipynb").is_file():
        return {"base": ""}
    absolute = folder.resolve()
    if absolute != PROJECT_ROOT and PROJECT_ROOT not in absolute.parents:
        return {"base": ""}
    return {"base": Path(os.path.relpath(notebooks, absolute)).as_posix() + "/"}


def notebook_title(name: str) -> str:
    """What a link to a notebook says.

    Args:
        name: such as ``extras/07_is_the_map_true.ipynb``.

    Returns:
        Such as ``extra 7``.
    """
    kind = "extra" if name.startswith("extras/") else "notebook"
    return f"{kind} {int(Path(name).stem[:2])}"


def _environment() -> Environment:
    """Templates that escape what strangers wrote: names of classes, files and models."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=select_autoescape(default=True, default_for_string=True),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "number": number_text,
        "unit": unit_text,
        "interval": interval_text,
        "bound": bound_text,
        "glyphs": GLYPHS,
        "pictures": pictures,
        "notebook_title": notebook_title,
        "isnan": math.isnan,
    }
    return environment


def _text(name: str) -> str:
    """A file of ours."""
    return (FOLDER / name).read_text("utf-8")


def _drawn(pixels: np.ndarray, heatmap: np.ndarray, colours: str) -> str:
    """An image under a map, as a data URI."""
    side = max(SIDE, min(pixels.shape[0], 2 * SIDE))
    (picture,) = overlay(pixels[None], heatmap[None], ALPHA, cmap=colours, size=side)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "WEBP", quality=QUALITY)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _facts(model: OpenedModel) -> list[tuple[str, str]]:
    """What the page says of a model."""
    facts = [("kind", model.kind)]
    if model.parameters:
        facts.append(("weights", f"{model.parameters / 1e6:.3g} million"))
    if model.size_bytes:
        facts.append(("stored", megabytes(model.size_bytes)))
    facts.append(("reads", model.preprocessing))
    facts.append(("map", model.map_layer if model.draw else f"none: {model.map_layer}"))
    return facts


def _kinds(shown: list[ShownImage]) -> list[tuple[str, int]]:
    """The kinds of images that occur, with their numbers, in the order of the report."""
    kinds: dict[str, int] = {}
    for image in shown:
        kinds[image.kind] = kinds.get(image.kind, 0) + 1
    return list(kinds.items())
