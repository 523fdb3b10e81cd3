"""What every notebook has to be, checked without running it; and the folded solutions, which are run.

That the cells themselves run is tested by nbval (`make test`).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks"
sys.path.insert(0, str(ROOT / "tools"))
from setup_cell import NOTEBOOKS, problem  # noqa: E402

MACHINE_PATH = re.compile(r"(?<![\w.])/(work|tmp|root|home)/\S*")
DETAILS = re.compile(r"<details>(.*?)</details>", re.DOTALL)
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
MAX_CODE_LINES, MAX_OUTPUT_LINES, MAX_BYTES = 25, 60, 1_000_000


@pytest.fixture(params=NOTEBOOKS)
def path(request) -> Path:
    path = FOLDER / f"{request.param}.ipynb"
    if not path.is_file():
        pytest.fail(f"notebooks/{path.name} is missing")
    return path


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


def markdown(notebook) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def output_texts(cell) -> list[str]:
    """Every output of a cell as text, one string an output; without pictures, as base64 can spell anything."""
    texts = []
    for output in cell.outputs:
        parts = [output.get("text", "")]
        parts += [value for kind, value in output.get("data", {}).items() if kind.startswith("text/")]
        texts.append(re.sub(r"base64,[A-Za-z0-9+/=\s]+", "", "\n".join(parts)))
    return texts


def test_no_other_notebooks():
    assert sorted(p.stem for p in FOLDER.glob("*.ipynb")) == list(NOTEBOOKS)


def test_is_a_valid_small_notebook_without_widget_state(path, notebook):
    nbformat.validate(notebook)
    assert path.stat().st_size < MAX_BYTES, "GitHub does not draw large notebooks"
    assert "widgets" not in notebook.metadata, "widget state breaks the view on GitHub"
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.language_info.name == "python"


def test_setup_cell_is_the_common_one(notebook):
    assert problem(notebook) is None


def test_opens_with_title_goals_and_links(path, notebook):
    assert notebook.cells[0].cell_type == "markdown"
    first_code = notebook.cells.index(code_cells(notebook)[0])
    opening = "\n".join(cell.source for cell in notebook.cells[:first_code])
    assert re.match(r"# \S", opening), "the first line is the title"
    assert re.search(r"\bgoals?\b", opening, re.IGNORECASE), "goals come before the first code cell"
    at = NOTEBOOKS.index(path.stem)
    wanted = [f"{NOTEBOOKS[i]}.ipynb" for i in (at - 1, at + 1) if 0 <= i < len(NOTEBOOKS)] + ["README.md"]
    links = re.findall(r"\]\(([^)\s]+)\)", markdown(notebook))
    missing = [name for name in wanted if not any(name in link for link in links)]
    assert not missing, f"no link to {missing}"


def test_relative_links_exist(notebook):
    links = re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=[\"']([^\"']+)", markdown(notebook))
    targets = {(a or b).split("#")[0] for a, b in links if not re.match(r"\w+:|#|attachment:", a or b)}
    broken = [t for t in targets if t and not (FOLDER / t).exists()]
    assert not broken


def test_closes_with_what_you_saw_and_exercises_with_folded_solutions(notebook):
    headings = re.findall(r"^#{2,3} (.+?)\s*$", markdown(notebook), re.MULTILINE)
    names = [h.lower().lstrip("0123456789. ") for h in headings]
    assert any(name.startswith("what you saw") for name in names)
    assert any(name.startswith("exercises") for name in names)
    exercises = re.split(r"^#{2,3} .*Exercises", markdown(notebook), flags=re.MULTILINE)[-1]
    assert DETAILS.search(exercises), "a solution is folded in <details>"
    assert all("<summary>" in block for block in DETAILS.findall(exercises))


def test_cells_are_short_and_not_empty(notebook):
    assert all(cell.source.strip() for cell in notebook.cells)
    lines = [cell.source.splitlines() for cell in code_cells(notebook)]
    too_long = [source[0] for source in lines if len(source) > MAX_CODE_LINES]
    assert not too_long, f"code cells of more than {MAX_CODE_LINES} lines"


def test_was_run_once_from_top_to_bottom_without_error(notebook):
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1)), "run all cells in a fresh kernel, then save"
    errors = [o.ename for cell in code_cells(notebook) for o in cell.outputs if o.output_type == "error"]
    assert not errors


def test_no_machine_path_and_no_endless_output(notebook):
    for cell in notebook.cells:
        assert not MACHINE_PATH.search(cell.source), MACHINE_PATH.search(cell.source).group()
    for cell in code_cells(notebook):
        for text in output_texts(cell):
            assert not MACHINE_PATH.search(text), MACHINE_PATH.search(text).group()
            assert len(text.splitlines()) <= MAX_OUTPUT_LINES, cell.source.splitlines()[0]


def test_some_outputs_are_compared(notebook):
    compared = [c for c in code_cells(notebook) if "nbval-check-output" in c.metadata.get("tags", [])]
    assert compared, "tag a cell that does not depend on the profile with nbval-check-output"
    assert all(cell.outputs for cell in compared)


# One process a notebook: every solution starts from the names of the setup cell and nothing else.
RUN_SOLUTIONS = """
import sys, traceback
from swys_utils.data import notebook_setup
data, P, device = notebook_setup()
for number, source in enumerate(eval(sys.stdin.read()), 1):
    try:
        exec(compile(source, f"<solution {number}>", "exec"),
             {"__name__": "__main__", "data": data, "P": P, "device": device, "display": print})
    except BaseException:
        sys.exit(f"solution {number} failed\\n{traceback.format_exc()}\\n{source}")
"""


@pytest.mark.solutions
def test_folded_solutions_run(path, notebook):
    blocks = [code for fold in DETAILS.findall(markdown(notebook)) for code in PYTHON_BLOCK.findall(fold)]
    if not blocks:
        pytest.skip("its solutions are words")
    environment = os.environ | {"SWYS_PROFILE": "smoke", "MPLBACKEND": "agg", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", RUN_SOLUTIONS],
        input=repr(blocks), cwd=FOLDER, env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
