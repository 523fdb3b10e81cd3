"""Pictures whose patches a reader can cover on a page that has neither Python nor scripts.

A notebook stores what its widget would answer, see ``PatchCover.stored`` in ``swys_figures.dials``.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import nbformat

from swys_figures.dials import STORED_COVER

SIDE = 224  # of a picture, in the units of its drawing
LINE = 24  # height of a line of text
ADVICE = "Point at a patch, tap it, or step to it with the Tab key, and it is covered."
# Where one patch has the focus and another one the pointer, only the pointer counts.
STYLE = """
.cover .pictures { display: flex; flex-wrap: wrap; gap: 1rem; }
.cover figure { margin: 0; width: 11.5rem; max-width: 100%; }
.cover figcaption { margin: 0 0 .3rem; min-height: 4em; text-align: left; color: inherit; }
.cover svg { display: block; width: 100%; }
.cover text { fill: currentColor; font-size: 18px; text-anchor: middle; }
.cover .patch { cursor: pointer; outline: none; }
.cover .patch rect { fill: transparent; stroke: #fff; stroke-opacity: .35; }
.cover .patch text { visibility: hidden; }
.cover .patch:is(:hover, :focus) rect {
  fill: var(--mean); stroke: #ffb000; stroke-opacity: 1; stroke-width: 3;
}
.cover .patch:is(:hover, :focus) text { visibility: visible; }
.cover .patch:is(:hover, :focus) ~ .whole { visibility: hidden; }
.cover svg:hover .patch:focus:not(:hover) rect { fill: transparent; stroke: none; }
.cover svg:hover .patch:focus:not(:hover) text { visibility: hidden; }
"""


def draw_covers(notebook: nbformat.NotebookNode) -> None:
    """Put pictures that can be covered in place of the widgets that need Jupyter.

    Args:
        notebook: executed; changed in place.
    """
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            stored = output.get("data", {}).get(STORED_COVER)
            if stored:
                output.data = {"text/html": covers_html(stored)}


def covers_html(stored: Mapping) -> str:
    """The pictures beside each other; a patch that is pointed at is covered.

    Args:
        stored: of ``PatchCover.stored``.
    """
    figures = "".join(_figure(picture, stored) for picture in stored["pictures"])
    asked = html.escape(stored["asked"])
    words = f"<p>{ADVICE} Below each picture stands the probability of {asked}.</p>"
    pictures = f"<div class='pictures'>{figures}</div>"
    return f"<style>{STYLE}</style><div class='cover'>{words}{pictures}</div>"


def _figure(picture: Mapping, stored: Mapping) -> str:
    """One picture, a square for each patch, and the answers below."""
    address = f"data:image/png;base64,{picture['png']}"
    parts = [f"<image href='{address}' width='{SIDE}' height='{SIDE}'/>"]
    rows, columns = stored["grid"]
    width = SIDE / columns
    height = SIDE / rows
    for place, shares in enumerate(picture["covered"]):
        row, column = divmod(place, columns)
        corner = f"x='{column * width:g}' y='{row * height:g}'"
        size = f"width='{width:g}' height='{height:g}'"
        square = f"<rect {corner} {size} style='--mean: {picture['mean']}'/>"
        lines = _lines(f"row {row + 1}, column {column + 1} covered", stored["models"], shares)
        spoken = html.escape(", ".join(lines))
        named = f"tabindex='0' role='img' aria-label='{spoken}'"
        parts.append(f"<g class='patch' {named}>{square}{_drawn(lines)}</g>")
    lines = _lines("nothing covered", stored["models"], picture["whole"])
    parts.append(f"<g class='whole'>{_drawn(lines)}</g>")
    drawing = f"<svg viewBox='0 0 {SIDE} {SIDE + LINE * len(lines)}'>{''.join(parts)}</svg>"
    return f"<figure><figcaption>{html.escape(picture['title'])}</figcaption>{drawing}</figure>"


def _lines(covered: str, models: Sequence[str], shares: Sequence[float]) -> list[str]:
    """What is covered, and what each model then answers."""
    return [covered, *(f"{name}: {share:.1%}" for name, share in zip(models, shares))]


def _drawn(lines: Sequence[str]) -> str:
    """Lines of text below the picture."""
    drawn = []
    for number, line in enumerate(lines, start=1):
        place = f"x='{SIDE / 2:g}' y='{SIDE + LINE * number - 6}'"
        drawn.append(f"<text {place}>{html.escape(line)}</text>")
    return "".join(drawn)
