"""The one source of the first code cell (tagged 'setup'), which is the same in every notebook.

python tools/setup_cell.py --check    # exit 1 when a notebook's cell differs
python tools/setup_cell.py --write    # put it into every notebook
"""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
CORE = sorted(FOLDER.glob("0*.ipynb"))
EXTRAS = sorted((FOLDER / "extras").glob("*.ipynb"))

SOURCE = """\
# The same first cell in every notebook; its one source is tools/setup_cell.py.
import importlib.util
import os
import sys

sys.path += map(os.path.abspath, ("..", "../..", "SeeWhatYouShrink"))  # a clone need not be installed
if importlib.util.find_spec("swys_utils") is None:  # as on Colab
    assert (url := os.environ.get("SWYS_REPO_URL")), "set SWYS_REPO_URL to the address of the repository"
    !git clone -q --depth 1 {url} SeeWhatYouShrink
    %pip install -q -e ./SeeWhatYouShrink[export]
    importlib.invalidate_caches()
from swys_utils.data import notebook_setup

DATASET = os.environ.get("SWYS_DATASET", "pneumoniamnist")  # or the name of any other 2D MedMNIST set
data, P, device = notebook_setup(DATASET)"""


def main(mode: str) -> int:
    """Check or write the cell of every notebook; returns 1 when one still differs."""
    failed = 0
    for path in CORE + EXTRAS:
        notebook = nbformat.read(path, as_version=4)
        cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
        if "setup" not in cell.metadata.get("tags", []):
            print(f"{path.name}: the first code cell is not tagged 'setup'")
            failed = 1
        elif cell.source != SOURCE and mode == "--write":
            cell.source = SOURCE
            nbformat.write(notebook, path)
            print(f"{path.name}: setup cell written")
        elif cell.source != SOURCE:
            print(f"{path.name}: the setup cell differs; python tools/setup_cell.py --write")
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]) if sys.argv[1:] in (["--check"], ["--write"]) else __doc__)
