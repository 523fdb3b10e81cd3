"""Execute the notebooks in order, each in a fresh kernel; print the final table; write pages.

Executed copies go to build/notebooks/; the committed notebooks are not touched. Exit code 1: a cell
failed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from setup_cell import CORE, EXTRAS
from tutorial_pages import write_pages

from swys_utils.config import BUILD, SwysError, default_device, profile
from swys_utils.data import DEFAULT_DATASET, load_dataset
from swys_utils.results import as_table


def main() -> int:
    """Run the notebooks that the command line chooses.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only",
        default="",
        metavar="04",
        help="only the notebooks whose names begin so",
    )
    parser.add_argument(
        "--extras",
        action="store_true",
        help="the notebooks in notebooks/extras",
    )
    options = parser.parse_args()
    series = EXTRAS if options.extras else CORE
    chosen = [path for path in series if path.name.startswith(options.only)]
    if not chosen:
        sys.exit(f"tutorial: no notebook's name begins with '{options.only}'")
    try:  # a mistyped profile or a missing data set shows now, not after a notebook
        print(f"profile {profile().name} | {default_device().type}")
        info = load_dataset(os.environ.get("SWYS_DATASET") or DEFAULT_DATASET).info
    except SwysError as error:
        sys.exit(f"tutorial: {error}")
    os.environ["TQDM_DISABLE"] = "1"  # a bar would stay in the executed copies
    started = time.time()
    run_all(chosen)
    table = BUILD / "results" / info.results_name / "benchmark_table.json"
    if table.is_file() and table.stat().st_mtime >= started:  # of this run; tests write it, too
        print(f"\n{final_table(table)}\n")
    print("executed notebooks: build/notebooks/", flush=True)
    write_pages(CORE + EXTRAS)
    return 0


def run_all(paths: Sequence[Path]) -> None:
    """Execute notebooks one after the other; say how long it took.

    Args:
        paths: of the notebooks.
    """
    started = time.time()
    for number, path in enumerate(paths, start=1):
        print(f"\n[{number}/{len(paths)}] {path.stem}", flush=True)
        execute(path, BUILD / "notebooks" / path.name)
    minutes = (time.time() - started) / 60
    print(f"\n{len(paths)} notebooks in {minutes:.1f} minutes")


def execute(path: Path, target: Path) -> None:
    """Run a notebook in its own folder, and print a line for each code cell.

    Args:
        path: of the notebook.
        target: where the executed copy is written, also when a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    progress = Progress(notebook)
    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        extra_arguments=["--IPKernelApp.log_level=40"],  # newer kernels warn of loopback TCP
        resources={"metadata": {"path": str(path.parent)}},
        store_widget_state=False,
        on_cell_start=progress.begin,
        on_cell_executed=progress.end,
    )
    try:
        client.execute()
    except CellExecutionError as error:
        stop(path, target, str(error))
    except DeadKernelError as error:
        stop(path, target, f"{progress.source}\n\n{error}")
    finally:
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, target)


class Progress:
    """Prints which code cell runs, and how long it took.

    Args:
        notebook: the notebook that is executed.

    Attributes:
        source: the code of the cell that runs.
    """

    def __init__(self, notebook: nbformat.NotebookNode):
        self.source = ""
        self._started = 0.0
        self._code = []
        for index, cell in enumerate(notebook.cells):
            if cell.cell_type == "code":
                self._code.append(index)

    def begin(self, cell: nbformat.NotebookNode, cell_index: int) -> None:
        """Before a cell runs.

        Args:
            cell: the cell.
            cell_index: its position in the notebook.
        """
        if cell_index in self._code:
            self.source = cell.source
            self._started = time.perf_counter()
            number = 1 + self._code.index(cell_index)
            print(f"  cell {number:>2}/{len(self._code)}", end="", flush=True)

    def end(self, cell: nbformat.NotebookNode, cell_index: int, **_: object) -> None:
        """After a cell ran.

        Args:
            cell: the cell.
            cell_index: its position in the notebook.
            **_: what nbclient also passes.
        """
        if cell_index in self._code:
            print(f"{time.perf_counter() - self._started:>9.1f} s", flush=True)


def stop(path: Path, target: Path, reason: str) -> None:
    """End with exit code 1.

    Args:
        path: of the notebook that failed.
        target: of its executed copy.
        reason: the code of the cell, and its error.
    """
    sys.exit(f"\n\n{path.name} failed in this cell:\n{reason}\nWhat ran is saved in {target}")


def final_table(path: Path) -> str:
    """A table that notebook 6 wrote, as aligned text.

    Args:
        path: of a JSON file with "title", "columns", "rows" and "note".
    """
    table = json.loads(path.read_text(encoding="utf-8"))
    rows = [dict(zip(table["columns"], row)) for row in table["rows"]]
    lines = [table.get("title", ""), as_table(rows), table.get("note", "")]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
