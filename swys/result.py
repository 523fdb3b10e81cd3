"""``from swys import compare``: the comparison of two models as an object, in a notebook or not."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import numpy as np
from matplotlib.figure import Figure

from swys_utils.config import SwysError, replacing, unknown, write_json
from swys_utils.plots import heatmap_rows

from .compared_images import ComparedImages, from_arrays
from .comparison import Effort, Measured, measure
from .gates import ASKED_GATES, GATES, Gate, exit_code, gates_of
from .open_model import open_model
from .opened_models import OpenedModel
from .report_json import report
from .report_page import image_html, page
from .shown_images import ShownImage
from .verdicts import Bounds
from .wording import GLYPHS, bound_text, figure_text, headline, row_text

CAPTION_LENGTH = 14


class ImageSlider(widgets.VBox):
    """Steps through the images of a comparison.

    Args:
        shown: the images, with their maps.

    Attributes:
        position: the slider, from 1.
        view: the image, both answers and all maps, as HTML.

    Raises:
        SwysError: there are no images.
    """

    def __init__(self, shown: Sequence[ShownImage]):
        if not shown:
            raise SwysError("this comparison shows no images; compare with Effort(shown=16)")
        self.shown = list(shown)
        self.position = widgets.IntSlider(value=1, min=1, max=len(shown), description="image")
        self.view = widgets.HTML()
        self.position.observe(self._show, "value")
        super().__init__([self.position, self.view])
        self._show()

    def __repr__(self) -> str:
        return f"slider through {len(self.shown)} images (run the notebook to move it)"

    def _show(self, change: dict | None = None) -> None:
        """Draw the image that the slider is at."""
        self.view.value = image_html(self.shown[self.position.value - 1])


@dataclass(frozen=True, eq=False)
class Comparison:
    """What B kept of A; a notebook shows it as a table of verdicts.

    Attributes:
        measured: rows, notes and images behind the report.
    """

    measured: Measured

    @property
    def verdicts(self) -> dict[str, str]:
        """Measure -> ``kept``, ``lost`` or ``cannot tell``."""
        return {row.id: row.verdict for row in self.measured.rows}

    @property
    def gates(self) -> list[Gate]:
        """The four gates, and those that were asked for, at the bounds of this comparison."""
        return gates_of(self.measured)

    @property
    def exit_code(self) -> int:
        """0 kept, 1 lost, 2 the comparison could not be made."""
        return exit_code(self.gates)

    def with_gates(self, *options: str) -> Comparison:
        """The same comparison with further gates, at the limits of its bounds.

        Args:
            *options: keys of ``gates.ASKED_GATES``, such as "max_class_drop".

        Raises:
            SwysError: no such gate.
        """
        known = GATES | ASKED_GATES
        for option in options:
            if option not in known:
                raise SwysError(unknown("gate", option, known))
        asked = self.measured.asked | set(options)
        return Comparison(replace(self.measured, asked=asked))

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON holds it."""
        return report(self.measured)

    def save(self, path: str | Path) -> None:
        """Write the report.

        Args:
            path: ends in .html (one page that needs nothing else) or in .json.

        Raises:
            SwysError: another ending, or an unwritable path.
        """
        path = Path(path)
        if path.suffix == ".json":
            write_json(path, self.to_dict())
        elif path.suffix in (".html", ".htm"):
            with replacing(path) as part:
                part.write_text(page(self.measured, path.parent), encoding="utf-8")
        else:
            raise SwysError(f"'{path}' ends in neither .html nor .json; give one of these")

    def slider(self) -> ImageSlider:
        """A slider through the images that changed, worst first.

        Raises:
            SwysError: the comparison shows no images.
        """
        return ImageSlider(self.measured.shown)

    def figure(self, n: int = 6) -> Figure:
        """A static figure of the first images: A's and B's heatmaps, or what hiding patches does.

        Args:
            n: the largest number of images.

        Raises:
            SwysError: there are no maps to draw.
        """
        shown = [image for image in self.measured.shown if image.maps or image.occlusions][:n]
        if not shown:
            raise SwysError("no map was made, so there is nothing to draw")
        maps = {}
        captions = {}
        for number, name in enumerate(("A", "B")):
            one_kind = [(image.maps or image.occlusions)[name] for image in shown]
            maps[name] = np.stack(one_kind)
            captions[name] = [image.answers[number][:CAPTION_LENGTH] for image in shown]
        titles = [f"{image.kind}\n{(image.truth or '')[:CAPTION_LENGTH]}" for image in shown]
        pixels = np.stack([image.pixels for image in shown])
        return heatmap_rows(pixels, maps, captions, titles, scale="image")

    def __str__(self) -> str:
        lines = [headline(self.measured)]
        for row in self.measured.rows:
            lines.append(f"{row.verdict:<11}  {row.title.lower()}: {row_text(row)}")
        lines += [f"note: {note}" for note in self.measured.notes]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        """The table that a notebook shows; it reads well without any style, as on GitHub."""
        rows = []
        for row in self.measured.rows:
            figure = f"{figure_text(row)}, {bound_text(row)}" if row.measured else row.note
            if row.subject:
                figure = f"'{row.subject}' {figure}"
            cells = [
                f"<b>{GLYPHS[row.verdict]} {row.verdict}</b>",
                f'<span title="{html.escape(row.meaning)}">{html.escape(row.title)}</span>',
                html.escape(row.a),
                html.escape(row.b),
                html.escape(figure),
            ]
            rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self.measured.notes)
        head = "<tr><th>verdict</th><th>measure</th><th>A</th><th>B</th><th>figure</th></tr>"
        sentence = html.escape(headline(self.measured))
        return f"<p><b>{sentence}</b></p><table>{head}{''.join(rows)}</table><ul>{notes}</ul>"


def compare(
    a: Any,
    b: Any,
    images: np.ndarray | ComparedImages,
    labels: np.ndarray | None = None,
    class_names: Sequence[str] | None = None,
    ceiling: Any = None,
    bounds: Bounds | None = None,
    effort: Effort | None = None,
) -> Comparison:
    """Compare a model with a smaller or another form of it.

    Args:
        a: the model to be kept: what ``open_model`` takes, so also a torch model or a function from
            uint8 images (N, S, S[, 3]) to scores (N, C).
        b: what it was made into.
        images: uint8 (N, S, S) or (N, S, S, 3), or what ``open_images`` returns.
        labels: int (N,), 0/1 (N, L) of several labels, or None: everything but what needs labels.
        class_names: in the order of the classes.
        ceiling: a second A, such as another seed: how alike two good models are.
        bounds: what may be lost.
        effort: how much is measured.

    Returns:
        The comparison.

    Raises:
        SwysError: models or images that cannot be compared, in one line.
    """
    if isinstance(images, ComparedImages):
        if labels is not None or class_names is not None:
            raise SwysError("these images have labels and class names of their own; leave both out")
        data = images
    else:
        data = from_arrays(images, labels, class_names)
    classes = len(data.class_names)
    given = {"A": a, "B": b, "ceiling": ceiling}
    models: dict[str, OpenedModel] = {}
    for name, model in given.items():
        if model is not None:
            models[name] = open_model(model, num_classes=classes)
    return Comparison(measure(models, data, bounds, effort))
