"""What every notebook and its page have to be; that the cells run is tested by nbval (`make test`)."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup

from swys_studies.agreement import ANOTHER, BOTH, summary
from swys_studies.runs import read_runs
from swys_utils.data import notebook_setup

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import setup_cell  # noqa: E402
from setup_cell import CORE, EXTRAS, SOURCE  # noqa: E402

USE = """
import ipywidgets
from swys_utils.browser import GradCAMBrowser
from swys_utils.models import load_checkpoint
models = {"Tiny": load_checkpoint("pneumoniamnist/vit_tiny")[0]}
browser = GradCAMBrowser(models, data.test.head(4), data.info.class_names)
browser.slider.value = 2
print(ipywidgets.__version__, "Image 2 of 4" in browser.status.value)
"""
FOLDED = re.compile(r"<details>(.*?)</details>", re.DOTALL)
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
MACHINE_PATH = re.compile(r"(?<![\w.])/(work|tmp|root|home|Users|content)/")
NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?\b")


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
    source = "\n".join(
        re.sub(r"^\s*[%!].*$", "", cell.source, flags=re.MULTILINE) for cell in cells
    )
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    return {
        alias.name for node in nodes if node.module.startswith("swys_utils") for alias in node.names
    }


def words(notebook) -> int:
    """Words of the text, without folded solutions, code blocks, formulas and addresses of links."""
    asides = r"<details>.*?</details>|```.*?```|\$\$.*?\$\$|\$[^$\n]+\$|\]\([^)]*\)|<[^>]+>"
    text = re.sub(asides, " ", markdown(notebook), flags=re.DOTALL)
    return sum(bool(re.search(r"[A-Za-z]", word)) for word in text.split())


def test_stays_within_the_caps(path, notebook):
    lessons = code_cells(notebook)[1:]  # the setup cell aside
    outputs = [output for cell in lessons for output in cell.outputs]
    found = {
        "cells": (len(notebook.cells), 28),
        "code cells": (len(lessons) + 1, 13),
        "lines of the longest code cell": (
            max(len(cell.source.splitlines()) for cell in lessons),
            14,
        ),
        "names from swys_utils": (len(imported_names(lessons)), 8),
        "words of markdown": (words(notebook), 700),
        "kB": (path.stat().st_size / 1000, 600),
        "printed numbers": (sum(len(NUMBER.findall(shown_text(output))) for output in outputs), 40),
    }
    extra = 1.3 if path in EXTRAS else 1
    assert not {what: (size, cap) for what, (size, cap) in found.items() if size > extra * cap}


def test_six_notebooks_begin_alike_and_badges_come_with_an_address_and_go_with_it():
    assert [path.stem[:3] for path in CORE] == [f"0{number}_" for number in range(1, 7)]
    assert setup_cell.main("--check") == 0, "python tools/setup_cell.py --write"
    here, readme = "https://github.com/somebody/shrink", ROOT / "README.md"
    notebook = setup_cell.wanted(EXTRAS[0], here)
    assert (
        f"/somebody/shrink/blob/main/notebooks/extras/{EXTRAS[0].name})" in notebook.cells[0].source
    )
    assert f'"{here}"' in code_cells(notebook)[0].source
    named = setup_cell.wanted(readme, here)
    assert f"{here}/actions/workflows/ci.yml" in named
    assert setup_cell.BADGES.sub("", named) == readme.read_text(encoding="utf-8")


def test_opens_with_title_goals_and_links_and_closes_with_what_you_saw_and_two_exercises(
    path, notebook
):
    first_code, text = notebook.cells.index(code_cells(notebook)[0]), markdown(notebook)
    opening = "\n".join(cell.source for cell in notebook.cells[:first_code])
    assert re.match(rf"# {int(path.stem[:2])}\. \S", opening), (
        "the first line is the title, with its number"
    )
    assert re.search(r"\bgoals?\b", opening, re.IGNORECASE), "goals come before the first code cell"
    series, links = EXTRAS if path in EXTRAS else CORE, re.findall(r"\]\(([^)\s]+)\)", text)
    at = series.index(path)
    wanted = [other.name for other in series[max(at - 1, 0) : at + 2] if other != path] + [
        "README.md"
    ]
    assert not [name for name in wanted if not any(name in link for link in links)]
    targets = [link for link in links if not re.match(r"\w+:|#", link)]
    assert not [target for target in targets if not (path.parent / target.split("#")[0]).exists()]
    headings = [h.lower() for h in re.findall(r"^#{2,3} [\d. ]*(.+?)\s*$", text, re.MULTILINE)]
    assert (
        any(heading.startswith("what you saw") for heading in headings)
        and "exercises" in headings[-1]
    )
    solutions = FOLDED.findall(re.split(r"^#{2,3} .*Exercises", text, flags=re.MULTILINE)[-1])
    assert len(solutions) == 2
    assert all("<summary>" in solution and PYTHON_BLOCK.search(solution) for solution in solutions)


def test_was_run_from_top_to_bottom_and_shows_no_error_widget_or_path_of_a_machine(notebook):
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    cells = code_cells(notebook)
    counts = [cell.execution_count for cell in cells]
    assert counts == list(range(1, len(cells) + 1)), "run all cells in a fresh kernel, then save"
    assert "widgets" not in notebook.metadata, "widget state breaks the view on GitHub"
    for output in (output for cell in cells for output in cell.outputs):
        assert output.output_type != "error"
        text = shown_text(output)
        assert not re.search(r"\d+%\|| \[\d\d:\d\d", text), (
            f"a progress bar stays behind: {text[:80]}"
        )
        is_widget = any("widget-view" in kind for kind in output.get("data", {}))
        assert not (is_widget and re.match(r"\w+\(", text)), (
            "a widget's bare repr, which is all GitHub shows"
        )
        shown = [
            str(value) for kind, value in output.get("data", {}).items() if "image/" not in kind
        ]
        shown = re.sub(r"base64,[^\"')]+", "", " ".join([output.get("text", ""), *shown]))
        assert not MACHINE_PATH.search(shown)
    assert any("nbval-check-output" in cell.metadata.get("tags", []) for cell in cells), (
        "one is compared"
    )


@pytest.mark.slow
def test_folded_solutions_run(path, notebook, monkeypatch):
    monkeypatch.chdir(path.parent)
    names = dict(zip(("data", "P", "device"), notebook_setup("pneumoniamnist")))
    for number, block in enumerate(
        PYTHON_BLOCK.findall("".join(FOLDED.findall(markdown(notebook)))), 1
    ):
        code = compile(block, f"<solution {number} of {path.stem}>", "exec")
        exec(code, {"__name__": "__main__", "display": print, **names})


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="the cell clones the repository")
def test_the_setup_cell_clones_once_and_finds_its_checkpoints_after_a_restart(
    environment, tmp_path
):
    python = environment("--no-deps", "ipywidgets==7.7.1")  # as on Colab, without a checkout
    (tmp_path / "cells.ipy").write_text(SOURCE.replace("{repository}", "") + USE)
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("SWYS", "PYTHON"))
    }
    kept |= {"HOME": str(tmp_path), "SWYS_PROFILE": "smoke"}

    def run(**extra: str) -> tuple[int, str]:
        command = [python, "-m", "IPython", "cells.ipy"]
        done = subprocess.run(
            command, cwd=tmp_path, env=kept | extra, capture_output=True, text=True
        )
        return done.returncode, done.stdout + done.stderr

    code, said = run()
    assert code and "first run os.environ['SWYS_REPO_URL']" in said
    code, said = run(SWYS_REPO_URL="file:///nowhere")
    assert code and "'git', 'clone'" in said and not (tmp_path / "SeeWhatYouShrink").exists()
    for extra in ({"SWYS_REPO_URL": f"file://{ROOT}"}, {}):
        code, said = run(**extra)
        assert code == 0 and "7.7.1 True" in said, said


@pytest.mark.slow
def test_links_of_the_site_lead_somewhere_and_nothing_comes_from_elsewhere():
    subprocess.run([sys.executable, ROOT / "site" / "build_pages.py"], check=True)
    site = ROOT / "build" / "site"
    paths = list(site.glob("*.html"))
    assert {"index.html", "01_data.html", "07_is_the_map_true.html"} <= {
        path.name for path in paths
    }
    for path in paths:
        page = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        for part in page.select("img, script, link, iframe"):
            assert (part.get("src") or part.get("href") or "data:").startswith("data:"), path.name
        links = [link["href"].split("#")[0] for link in page.select("a[href]")]
        assert not [x for x in links if not re.match(r"\w+:", x) and not (site / x).exists()], (
            path.name
        )
        assert all(picture.get("alt") for picture in page.select(".notebook img, .hero img")), (
            path.name
        )
        assert page.title.text and page.html["lang"] == "en"


def test_the_table_of_the_readme_is_that_of_notebook_6():
    notebook = nbformat.read(ROOT / "notebooks" / "06_benchmark.ipynb", as_version=4)
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    tables = BeautifulSoup(
        "".join(o.get("data", {}).get("text/html", "") for o in outputs), "html.parser"
    )
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = [
        row.split(" | ") for row in re.findall(r"^\| (.* tokens \|.*) \|$", readme, re.MULTILINE)
    ]
    found = [[cell.text.strip() for cell in row.select("td")] for row in tables.select("tr")]
    assert len(rows) >= 4 and all(row in found for row in rows)
    alone, taught = (row[-1].split()[0].lstrip("0") for row in rows[1:3])
    assert f"is {alone} when it was trained alone, and {taught} when Base's" in " ".join(
        readme.split()
    )
    shipped = ROOT / "checkpoints" / "pneumoniamnist"
    r = summary(json.loads((shipped / "agreement.json").read_text()))[0]  # of Grad-CAM maps
    said = f": {r['alone']:.2f} alone, {r[BOTH]:.2f} with heatmaps; a second Base has {r[ANOTHER]:.2f}."
    assert said.replace("0.", ".") in readme
    theirs = {run["method"]: run["last"] for run in read_runs(shipped / "runs.json")}["original"]
    assert f"original`,\n{100 * theirs['accuracy']:.1f} % ({theirs['auc']:.3f});" in readme
