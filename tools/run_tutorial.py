"""Execute the six notebooks in order, with progress; build the site; print the final table (`make tutorial`).

Executed copies, with this machine's outputs, go to build/notebooks/; the committed notebooks are not touched.
Exit codes: 0 all ran, 1 a cell failed (what ran is saved, with the error), 2 nothing could be started.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import textwrap
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from setup_cell import FOLDER, NOTEBOOKS

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
# Kept beside the executed copies: build/results/ is also written by tests and by hand, with other sizes.
KEPT = {"04_gradcam": "gradcam_browser.html", "06_benchmark": "benchmark_table.json"}
CELL_TIMEOUT = 1800  # seconds; `full` has none, because there a cell may train a model for hours


class Failure(Exception):
    """A notebook did not run to its end; the message is what the reader needs."""


def duration(seconds: float) -> str:
    """8.3 s, 2 min 05 s, 1 h 12 min."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def headings(notebook: nbformat.NotebookNode) -> list[str]:
    """For every cell, the last markdown heading at or above it."""
    found, current = [], ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            match = re.search(r"^#{1,6}\s+(.+?)\s*$", cell.source, flags=re.MULTILINE)
            current = re.sub(r"[`*$]", "", match.group(1)) if match else current
        found.append(current)
    return found


def execute(path: Path, target: Path, timeout: int | None) -> None:
    """Run one notebook in notebooks/ with one line a code cell; save it to ``target`` whatever happens.

    Raises:
        Failure: a cell raised, ran out of time, or its kernel died.
    """
    notebook = nbformat.read(path, as_version=4)
    code = [i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code" and cell.source.strip()]
    number = {index: n for n, index in enumerate(code, 1)}
    names = headings(notebook)
    now = {"cell": code[0] if code else 0, "start": time.perf_counter()}

    # No carriage returns: a line begins and ends with its cell, so a log reads the same.
    def begin(cell, cell_index):
        if cell_index in number:
            now.update(cell=cell_index, start=time.perf_counter())
            label = textwrap.shorten(names[cell_index], 66, placeholder=" ...")
            print(f"  cell {number[cell_index]:>2}/{len(code)}  {label:<66}", end="", flush=True)

    def end(cell, cell_index, **_):
        if cell_index in number:
            print(f"{duration(time.perf_counter() - now['start']):>12}", flush=True)

    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        extra_arguments=["--IPKernelApp.log_level=40"],  # newer kernels warn of loopback TCP
        resources={"metadata": {"path": str(FOLDER)}},
        store_widget_state=False,  # GitHub refuses notebooks with half of it; a figure is below
        on_cell_start=begin,
        on_cell_executed=end,
    )
    reason = None
    try:
        client.execute()
    except CellTimeoutError:
        reason = f"the cell did not finish in {timeout} s; give more with tools/run_tutorial.py --timeout"
    except CellExecutionError as error:
        at = re.search(r"^-+> *(\d+) ", re.sub(r"\x1b\[[\d;]*m", "", error.traceback), flags=re.MULTILINE)
        reason = textwrap.shorten(f"{error.ename}: {error.evalue}", 400) + (f" (line {at[1]})" if at else "")
    except DeadKernelError:
        reason = "the kernel died; most often the machine ran out of memory"
    except KeyboardInterrupt:
        reason = "interrupted"
    finally:
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, target)
    if reason:
        print(flush=True)
        source = notebook.cells[now["cell"]].source.splitlines() if notebook.cells else []
        head = "\n".join(f"    | {line}" for line in source[:6] + (["..."] if len(source) > 6 else []))
        raise Failure(
            f"{path.name}, cell {number.get(now['cell'], '?')}/{len(code)} ({names[now['cell']]})\n{head}\n"
            f"{reason}\nWhat ran is saved in {target.relative_to(ROOT)}"
        )


def format_table(table: dict) -> str:
    """The final table as aligned text: numbers to the right, words to the left."""
    rows = [[str(v) for v in table["columns"]]] + [[str(v) for v in row] for row in table["rows"]]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]

    def line(row):
        cells = [v.ljust(w) if i == 0 else v.rjust(w) for i, (v, w) in enumerate(zip(row, widths))]
        return "  ".join(cells).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    parts = [table.get("title", ""), rule, line(rows[0]), rule, *map(line, rows[1:]), rule]
    if table.get("note"):
        parts.append(textwrap.fill(table["note"], max(len(rule), 80)))
    return "\n".join(parts)


def final_table() -> str:
    """The table that 06 wrote, or one line saying that there is none."""
    path = BUILD / "notebooks" / KEPT["06_benchmark"]
    if not path.is_file():
        return f"(no final table: 06_benchmark wrote no {path.name})"
    return format_table(json.loads(path.read_text(encoding="utf-8")))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", metavar="04", help="run one notebook, by the start of its name")
    limit = f"seconds a cell may take (default {CELL_TIMEOUT}; in `full` no limit)"
    parser.add_argument("--timeout", type=int, help=limit)
    args = parser.parse_args()

    chosen = [name for name in NOTEBOOKS if name.startswith(args.only or "")]
    missing = [name for name in chosen if not (FOLDER / f"{name}.ipynb").is_file()]
    if not chosen or missing:
        what = f"notebooks/{missing[0]}.ipynb is missing" if missing else f"no notebook is '{args.only}...'"
        print(f"tutorial: {what}; there are: {', '.join(NOTEBOOKS)}", file=sys.stderr)
        return 2

    # The cheap check: a mistyped profile or a missing data set shows up now, not after three notebooks.
    try:
        from swys_utils.config import SwysError, default_device, profile
        from swys_utils.data import DEFAULT_DATASET, load_dataset
    except ModuleNotFoundError as error:
        print(f"tutorial: {error}; run it as `make tutorial`, which makes the environment", file=sys.stderr)
        return 2
    try:
        current = profile()
        info = load_dataset(os.environ.get("SWYS_DATASET") or DEFAULT_DATASET).info
    except SwysError as error:
        print(f"tutorial: {error}", file=sys.stderr)
        return 2
    print(f"profile  {current}\ndevice   {default_device()}\ndata     {info.name}: {info.source}", flush=True)

    timeout = args.timeout or (None if current.name == "full" else CELL_TIMEOUT)
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # or each kernel warns of a debugger
    results, executed = BUILD / "results" / info.results_name, BUILD / "notebooks"
    for name in chosen:  # nothing old may pass for a result of this run
        (executed / f"{name}.ipynb").unlink(missing_ok=True)
        if name in KEPT:
            (executed / KEPT[name]).unlink(missing_ok=True)
            (results / KEPT[name]).unlink(missing_ok=True)
    times = []
    started = time.perf_counter()
    for name in chosen:
        print(f"\n[{name[:2]}/{len(NOTEBOOKS):02d}] {name}", flush=True)
        begun = time.perf_counter()
        try:
            execute(FOLDER / f"{name}.ipynb", executed / f"{name}.ipynb", timeout)
        except Failure as failure:
            print(failure, file=sys.stderr, flush=True)
            return 1
        if name in KEPT and (results / KEPT[name]).is_file():
            shutil.copyfile(results / KEPT[name], executed / KEPT[name])
        times.append((name, time.perf_counter() - begun))

    import build_site

    print("\nsite", flush=True)
    index = build_site.build()
    print()
    for name, seconds in times:
        print(f"{name:<20}{duration(seconds):>14}")
    print(f"{'total':<20}{duration(time.perf_counter() - started):>14}\n")
    if "06_benchmark" in chosen:
        print(final_table() + "\n")
    print(f"executed notebooks: build/notebooks/    pages: {index.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
