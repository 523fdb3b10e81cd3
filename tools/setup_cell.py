"""The one source of the first code cell, which is the same in all six notebooks.

    python tools/setup_cell.py --check    # exit 1 when a notebook's cell differs
    python tools/setup_cell.py --write    # put it into every notebook (the cell tagged 'setup')
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import nbformat

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = ("01_data", "02_train_base", "03_train_tiny", "04_gradcam", "05_distillation", "06_benchmark")

SOURCE = '''\
# The same first cell in all six notebooks; its one source is tools/setup_cell.py.
import os
import sys
from importlib.util import find_spec

if find_spec("swys_utils") is None:  # not installed: use the clone that this notebook lies in
    sys.path.insert(0, os.path.abspath(".."))
if find_spec("swys_utils") is None and os.environ.get("SWYS_REPO_URL"):  # as on Colab
    !git clone -q --depth 1 {os.environ["SWYS_REPO_URL"]} SeeWhatYouShrink
    %pip install -q ./SeeWhatYouShrink
    sys.path.insert(0, os.path.abspath("SeeWhatYouShrink"))
if find_spec("swys_utils") is None:
    raise SystemExit("swys_utils not found: clone the repository and open its notebooks/ folder")

from swys_utils.data import notebook_setup

%matplotlib inline
DATASET = os.environ.get("SWYS_DATASET", "pneumoniamnist")  # swap in any 2D MedMNIST name
data, P, device = notebook_setup(DATASET)
'''.rstrip("\n")


def setup_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The code cells tagged 'setup' (there should be exactly one, and it should come first)."""
    return [c for c in notebook.cells if c.cell_type == "code" and "setup" in c.metadata.get("tags", [])]


def problem(notebook: nbformat.NotebookNode) -> str | None:
    """One line saying what is wrong with the notebook's setup cell, or None."""
    tagged = setup_cells(notebook)
    if len(tagged) != 1:
        return f"{len(tagged)} cells tagged 'setup' instead of one"
    if tagged[0] is not next(c for c in notebook.cells if c.cell_type == "code"):
        return "the cell tagged 'setup' is not the first code cell"
    if tagged[0].source != SOURCE:
        return "the setup cell differs from tools/setup_cell.py"
    return None


def write(notebook: nbformat.NotebookNode) -> bool:
    """Put the cell in place; True when something changed. Stored outputs of the cell are kept."""
    tagged = setup_cells(notebook)
    if not tagged:  # a new notebook: after the title and the goals
        code = [i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
        cell = nbformat.v4.new_code_cell(SOURCE, metadata={"tags": ["setup"]})
        notebook.cells.insert(code[0] if code else len(notebook.cells), cell)
        return True
    changed = tagged[0].source != SOURCE
    tagged[0].source = SOURCE
    return changed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--check", action="store_true")
    mode.add_argument("--write", action="store_true")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the notebooks are")
    args = parser.parse_args()
    failed = False
    for name in NOTEBOOKS:
        path = args.folder / f"{name}.ipynb"
        if not path.is_file():
            print(f"{path.name}: missing", file=sys.stderr)
            failed = True
            continue
        notebook = nbformat.read(path, as_version=4)
        if args.write and write(notebook):
            nbformat.write(notebook, path)
            print(f"{path.name}: setup cell written")
        wrong = problem(notebook)
        if wrong:
            print(f"{path.name}: {wrong} (python tools/setup_cell.py --write)", file=sys.stderr)
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
