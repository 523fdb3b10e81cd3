"""Execute the notebooks in order, each in a fresh kernel; build the site; print the final table.

Executed copies go to build/notebooks/; the committed notebooks are not touched. Exit code 1: a cell failed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from setup_cell import CORE, EXTRAS

from swys_utils.config import BUILD, PROJECT_ROOT, SwysError, default_device, profile
from swys_utils.data import load_dataset
from swys_utils.results import as_table


def execute(path: Path, target: Path) -> None:
    """Run one notebook in its own folder, one line a code cell; save it to ``target`` whatever happens."""
    notebook = nbformat.read(path, as_version=4)
    code = [at for at, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    now: dict = {}

    def begin(cell, cell_index):
        if cell_index in code:
            now.update(cell=cell, start=time.perf_counter())
            print(f"  cell {code.index(cell_index) + 1:>2}/{len(code)}", end="", flush=True)

    def end(cell, cell_index, **_):
        if cell_index in code:
            print(f"{time.perf_counter() - now['start']:>9.1f} s", flush=True)

    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        extra_arguments=["--IPKernelApp.log_level=40"],  # newer kernels warn of loopback TCP
        resources={"metadata": {"path": str(path.parent)}},
        store_widget_state=False,
        on_cell_start=begin,
        on_cell_executed=end,
    )
    try:
        client.execute()
    except (CellExecutionError, DeadKernelError) as error:
        reason = (
            str(error)
            if isinstance(error, CellExecutionError)
            else f"{now['cell'].source}\n\n{error}"
        )
        sys.exit(f"\n\n{path.name} failed in this cell:\n{reason}\nWhat ran is saved in {target}")
    finally:
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, target)


def final_table(path: Path) -> str:
    """A table that notebook 6 wrote as {title, columns, rows, note}, as aligned text."""
    table = json.loads(path.read_text(encoding="utf-8"))
    text = as_table([dict(zip(table["columns"], row)) for row in table["rows"]])
    return "\n".join([table.get("title", ""), text, table.get("note", "")])


def main() -> int:
    """Run the chosen notebooks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", default="", metavar="04", help="only the notebooks whose names begin so"
    )
    parser.add_argument("--extras", action="store_true", help="the notebooks in notebooks/extras")
    options = parser.parse_args()
    chosen = [
        path for path in (EXTRAS if options.extras else CORE) if path.name.startswith(options.only)
    ]
    if not chosen:
        sys.exit(f"tutorial: no notebook's name begins with '{options.only}'")
    try:  # a mistyped profile or a missing data set shows now, not after a notebook
        print(f"profile {profile().name} | {default_device().type}")
        info = load_dataset(os.environ.get("SWYS_DATASET") or "pneumoniamnist").info
    except SwysError as error:
        sys.exit(f"tutorial: {error}")
    table = BUILD / "results" / info.results_name / "benchmark_table.json"
    started = time.time()
    for number, path in enumerate(chosen, 1):
        print(f"\n[{number}/{len(chosen)}] {path.stem}", flush=True)
        execute(path, BUILD / "notebooks" / path.name)
    print(f"\n{len(chosen)} notebooks in {(time.time() - started) / 60:.1f} minutes")
    if table.is_file() and table.stat().st_mtime >= started:  # of this run; tests write it, too
        print(f"\n{final_table(table)}\n")
    print("executed notebooks: build/notebooks/")
    subprocess.run([sys.executable, PROJECT_ROOT / "site" / "build_pages.py"], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
