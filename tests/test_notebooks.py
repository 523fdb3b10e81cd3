"""What every notebook has to be, checked without running it; and the folded solutions, which are run.

That the cells themselves run is tested by nbval (`make test`).
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import nbformat
import pytest

from swys_utils.data import notebook_setup

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import setup_cell  # noqa: E402
from setup_cell import CORE, EXTRAS  # noqa: E402

# The caps of the six notebooks; the extras may have 1.3 times as much.
CAPS = {
    "cells": 28,
    "code cells": 13,
    "lines of the longest code cell": 14,  # the setup cell aside
    "names from swys_utils": 8,
    "words of markdown": 700,  # what is folded aside
    "kB": 600,
    "printed numbers": 40,
}
FOLDED = re.compile(r"<details>(.*?)</details>", re.DOTALL)
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?\b")
LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.fixture(params=CORE + EXTRAS, ids=lambda path: path.stem)
def path(request) -> Path:
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


def markdown(notebook) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown_text(output) -> str:
    """What a reader sees of an output as text: nothing beside a picture."""
    data = {} if "image/png" in output.get("data", {}) else output.get("data", {})
    return output.get("text", "") + data.get("text/plain", "")


def imported_names(cells) -> set[str]:
    """What these cells import from swys_utils."""
    source = "\n".join(re.sub(r"^\s*[%!].*$", "", cell.source, flags=re.MULTILINE) for cell in cells)
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    return {alias.name for node in nodes if node.module.startswith("swys_utils") for alias in node.names}


def words(notebook) -> int:
    """Words of the text, without folded solutions, code blocks, formulas and addresses of links."""
    asides = r"<details>.*?</details>|```.*?```|\$\$.*?\$\$|\$[^$\n]+\$|\]\([^)]*\)|<[^>]+>"
    text = re.sub(asides, " ", markdown(notebook), flags=re.DOTALL)
    return sum(bool(re.search(r"[A-Za-z]", word)) for word in text.split())


def test_there_are_six_in_the_series():
    assert [path.stem[:3] for path in CORE] == ["01_", "02_", "03_", "04_", "05_", "06_"]
    assert sorted((ROOT / "notebooks").glob("*.ipynb")) == CORE


def test_stays_within_the_caps(path, notebook):
    lessons = code_cells(notebook)[1:]
    outputs = [output for cell in lessons for output in cell.outputs]
    sizes = {
        "cells": len(notebook.cells),
        "code cells": len(lessons) + 1,
        "lines of the longest code cell": max(len(cell.source.splitlines()) for cell in lessons),
        "names from swys_utils": len(imported_names(lessons)),
        "words of markdown": words(notebook),
        "kB": path.stat().st_size / 1000,
        "printed numbers": sum(len(NUMBER.findall(shown_text(output))) for output in outputs),
    }
    allowed = {name: cap * (1.3 if path in EXTRAS else 1) for name, cap in CAPS.items()}
    assert not {name: (size, allowed[name]) for name, size in sizes.items() if size > allowed[name]}


def test_is_valid_and_opens_with_the_common_setup_cell(notebook):
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert all(cell.source.strip() for cell in notebook.cells)
    setup = code_cells(notebook)[0]
    assert setup.source.startswith("# The same first cell") and setup.metadata.get("tags") == ["setup"]


def test_badges_come_with_an_address_and_go_with_it(path, tmp_path, monkeypatch):
    assert setup_cell.main("--check") == 0, "python tools/setup_cell.py --write"
    here = "https://github.com/somebody/shrink"
    named = setup_cell.wanted(path, here)
    name = path.relative_to(ROOT).as_posix()
    assert f"/github/somebody/shrink/blob/main/{name})" in named.cells[0].source
    assert named.cells[0].source.startswith(nbformat.read(path, as_version=4).cells[0].source.splitlines()[0])
    assert f'"{here}"' in code_cells(named)[0].source
    readme = tmp_path / "README.md"
    readme.write_text((ROOT / "README.md").read_text())
    readme.write_text(setup_cell.wanted(readme, here))
    assert f"{here}/actions/workflows/ci.yml" in readme.read_text()
    assert setup_cell.wanted(readme, "") == (ROOT / "README.md").read_text()


def test_opens_with_title_goals_and_links(path, notebook):
    first_code = notebook.cells.index(code_cells(notebook)[0])
    opening = "\n".join(cell.source for cell in notebook.cells[:first_code])
    assert re.match(rf"# {int(path.stem[:2])}\. \S", opening), "the first line is the title, with its number"
    assert re.search(r"\bgoals?\b", opening, re.IGNORECASE), "goals come before the first code cell"
    series = EXTRAS if path in EXTRAS else CORE
    at = series.index(path)
    wanted = [other.name for other in series[max(at - 1, 0) : at + 2] if other != path] + ["README.md"]
    assert not [name for name in wanted if not any(name in link for link in LINK.findall(markdown(notebook)))]


def test_relative_links_exist(path, notebook):
    targets = [link for link in LINK.findall(markdown(notebook)) if not re.match(r"\w+:|#", link)]
    assert not [target for target in targets if not (path.parent / target.split("#")[0]).exists()]


def test_closes_with_what_you_saw_and_two_exercises(notebook):
    text = markdown(notebook)
    headings = [h.lower() for h in re.findall(r"^#{2,3} [\d. ]*(.+?)\s*$", text, re.MULTILINE)]
    assert any(heading.startswith("what you saw") for heading in headings)
    solutions = FOLDED.findall(re.split(r"^#{2,3} .*Exercises", text, flags=re.MULTILINE)[-1])
    assert "exercises" in headings[-1] and len(solutions) == 2
    assert all("<summary>" in solution and PYTHON_BLOCK.search(solution) for solution in solutions)


def test_was_run_from_top_to_bottom_and_shows_no_error_and_no_widget_state(notebook):
    cells = code_cells(notebook)
    counts = [cell.execution_count for cell in cells]
    assert counts == list(range(1, len(cells) + 1)), "run all cells in a fresh kernel, then save"
    assert "widgets" not in notebook.metadata, "widget state breaks the view on GitHub"
    for output in (output for cell in cells for output in cell.outputs):
        assert output.output_type != "error"
        text = shown_text(output)
        assert not re.search(r"\d+%\|| \[\d\d:\d\d", text), f"a progress bar stays behind: {text[:80]}"
        is_widget = any("widget-view" in kind for kind in output.get("data", {}))
        assert not (is_widget and re.match(r"\w+\(", text)), "a widget's bare repr, which is all GitHub shows"
    assert any("nbval-check-output" in cell.metadata.get("tags", []) for cell in cells), "one is compared"


@pytest.mark.slow
def test_folded_solutions_run(path, notebook, monkeypatch):
    monkeypatch.chdir(path.parent)
    names = dict(zip(("data", "P", "device"), notebook_setup("pneumoniamnist")))
    for number, block in enumerate(PYTHON_BLOCK.findall("".join(FOLDED.findall(markdown(notebook)))), 1):
        code = compile(block, f"<solution {number} of {path.stem}>", "exec")
        exec(code, {"__name__": "__main__", "display": print, **names})
