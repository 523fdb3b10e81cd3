"""Make three pictures of README, FINDINGS and COMPARE anew from what is stored.

notebooks/images/honest_map.png is the figure of extra 7, as it was executed; answer.png is drawn
from the shipped results and the times in notebook 6's stored table; compare.png is the first part
of the report of `swys compare` on two shipped models (some minutes; needs `.[browser]` and a
Chromium on the PATH).

    python tools/stored_pictures.py [honest_map] [answer] [compare]
"""

from __future__ import annotations

import base64
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat

from swys import cli
from swys_figures.answer import answer_figure
from swys_studies.reference import study_data
from swys_utils.config import SwysError
from swys_utils.plots import use_style

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
IMAGES = NOTEBOOKS / "images"
MODELS = ("pneumoniamnist/vit_base", "pneumoniamnist/vit_tiny_maps")
TIMED = {  # title in the figure -> row of notebook 6's table; its last column but one is in ms
    "Base": "Base, torch",
    "Base, int8": "Base, int8",
    "Tiny": "Tiny, torch",
}
WIDTH = 960  # px, of a window


def main(names: list[str]) -> int:
    """Make the pictures of these names, or all of them.

    Args:
        names: keys of ``PICTURES``.

    Returns:
        The exit code.
    """
    unknown = [name for name in names if name not in PICTURES]
    if unknown:
        print(f"no picture '{unknown[0]}'; choose from {', '.join(PICTURES)}", file=sys.stderr)
        return 2
    for name in names or PICTURES:
        try:
            PICTURES[name](IMAGES / f"{name}.png")
        except SwysError as error:  # such as drawn images in place of real ones
            print(f"stored_pictures: {error}", file=sys.stderr)
            return 1
        print(IMAGES / f"{name}.png")
    return 0


def honest_map(path: Path) -> None:
    """The figure of extra 7 in which a student looks honest.

    Args:
        path: of the picture.
    """
    outputs = _outputs("extras/07_is_the_map_true.ipynb", "looks_honest(")
    pictures = [
        part["data"]["image/png"] for part in outputs if "image/png" in part.get("data", {})
    ]
    path.write_bytes(base64.b64decode(pictures[-1]))


def answer(path: Path) -> None:
    """What is kept, with the times of notebook 6's table.

    Args:
        path: of the picture.
    """
    outputs = _outputs("06_benchmark.ipynb", "macs_of(saved.model)")
    table = "".join(part.get("text", "") for part in outputs)
    times = {}
    for title, row in TIMED.items():
        (found,) = re.findall(rf"^{row} .* ([\d.]+) ms", table, re.MULTILINE)
        times[title] = float(found)
    use_style()
    figure = answer_figure(milliseconds=times)
    figure.savefig(path, dpi=90)


def compare(path: Path) -> None:
    """The first part of a report of `swys compare`.

    Args:
        path: of the picture.
    """
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 (of the extra `browser`)

    study_data("pneumoniamnist")  # refuses drawn images

    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.html"
        cli.main(["compare", *MODELS, "--data", "pneumoniamnist", "--html", str(report)])
        with sync_playwright() as browsers:
            browser = browsers.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            page = browser.new_page(viewport={"width": WIDTH, "height": 1000})
            page.goto(report.as_uri())
            end = page.locator("section").first.evaluate(
                "one => one.getBoundingClientRect().bottom"
            )
            clip: Any = {"x": 0, "y": 0, "width": WIDTH, "height": end}  # as far as the verdicts
            page.screenshot(path=path, full_page=True, clip=clip)
            browser.close()


def _outputs(name: str, code: str) -> list[dict]:
    """The stored outputs of the one cell with this code."""
    cells = nbformat.read(NOTEBOOKS / name, as_version=4).cells
    found = []
    for cell in cells:
        if cell.cell_type == "code" and code in cell.source:
            found.append(cell.outputs)
    (outputs,) = found
    return outputs


PICTURES = {"honest_map": honest_map, "answer": answer, "compare": compare}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
