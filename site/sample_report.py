"""A report of `swys compare` on two shipped models, for the book.

python site/sample_report.py build/site/compare/index.html

Where it cannot be made, a line says why, and the book is built without it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from swys import cli
from swys_utils.data import load_dataset

MODELS = ("pneumoniamnist/vit_base", "pneumoniamnist/vit_tiny_maps")
OPTIONS = {"--maps": "32", "--occlusions": "8", "--shown": "12", "--seconds": "2"}


def main(path: Path) -> int:
    """Write the report.

    Args:
        path: of its HTML file.

    Returns:
        The exit code: 0 also where there is no report.
    """
    path.unlink(missing_ok=True)  # an older one would look new
    if load_dataset("pneumoniamnist").info.synthetic:
        print("report: skipped, it needs real images; the book is built without it")
        return 0
    path.parent.mkdir(parents=True, exist_ok=True)
    arguments = ["compare", *MODELS, "--data", "pneumoniamnist", "--html", str(path)]
    for option, value in OPTIONS.items():
        arguments += [option, value]
    cli.main(arguments)  # its exit code is about the gates: 2 is "cannot tell", too
    if not path.is_file():
        print("report: skipped, swys compare did not work; the book is built without it")
        return 0
    page = path.read_text("utf-8")  # its links lead into the clone; those of the book stay in it
    # and are not opened inside the frame that shows the report
    page = page.replace('href="../../../notebooks/', 'target="_top" href="../notebooks/')
    path.write_text(page.replace('.ipynb"', '.html"'), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
