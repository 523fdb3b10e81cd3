"""What every notebook has to be; that the cells run is tested by nbval (`make test`)."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from swys_figures.dials import STORED_COVER
from swys_utils.data import notebook_setup

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import setup_cell  # noqa: E402
from setup_cell import CORE, EXTRAS, SOURCE  # noqa: E402

# what a reader on Colab does after the first cell: load a model, move the slider
COLAB_READER = """
import ipywidgets
from swys_utils.browser import GradCAMBrowser
from swys_utils.models import load_checkpoint
models = {"Tiny": load_checkpoint("pneumoniamnist/vit_tiny")[0]}
browser = GradCAMBrowser(models, data.test.sample(4), data.info.class_names)
browser.slider.value = 2
print(ipywidgets.__version__, "Image 2 of 4" in browser.status.value)
"""
FOLDED = re.compile(r"<details>(.*?)</details>", re.DOTALL)
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
MACHINE_PATH = re.compile(r"(?<![\w.])/(work|tmp|root|home|Users|content)/")
PROGRESS_BAR = re.compile(r"\d+%\|| \[\d\d:\d\d")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^(#+) (.*)$", re.MULTILINE)
LATER = "Second reading"  # the section that can be left out


@pytest.fixture(params=CORE + EXTRAS, ids=lambda path: path.stem)
def path(request) -> Path:
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


@pytest.fixture
def text(notebook) -> str:
    """All Markdown of the notebook."""
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    return "\n\n".join(cells)


@pytest.fixture
def code(notebook) -> list:
    """The code cells."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture
def outputs(code) -> list:
    """Every stored output."""
    return [output for cell in code for output in cell.outputs]


@pytest.fixture
def headings(text) -> list[str]:
    found = re.findall(r"^#{2,3} [\d. ]*(.+?)\s*$", text, re.MULTILINE)
    return [heading.lower() for heading in found]


@pytest.fixture
def solutions(text) -> list[str]:
    """The folded parts below the heading of the exercises, above that of the second reading.

    The answer to a question that needs no computer is left out.
    """
    below = re.split(r"^#{2,3} .*Exercises", text, flags=re.MULTILINE)[-1]
    folded = FOLDED.findall(below.split(f"\n## {LATER}")[0])
    return [part for part in folded if "<b>An answer</b>" not in part]


def shown_text(output) -> str:
    """What a reader sees of an output as text: nothing beside a picture."""
    data = output.get("data", {})
    if "image/png" in data:
        data = {}
    return output.get("text", "") + data.get("text/plain", "")


def test_there_are_six_notebooks():
    assert [path.stem[:3] for path in CORE] == ["01_", "02_", "03_", "04_", "05_", "06_"]


def test_a_notebook_is_valid(notebook):
    nbformat.validate(notebook)


def test_github_can_show_it(path):
    assert path.stat().st_size <= 1_000_000


def test_the_first_line_is_the_title_with_its_number(path, notebook):
    assert re.match(rf"# {int(path.stem[:2])}\. \S", notebook.cells[0].source)


def test_goals_come_before_the_first_code_cell(notebook, code):
    opening = notebook.cells[: notebook.cells.index(code[0])]
    source = "\n".join(cell.source for cell in opening)
    assert re.search(r"\bgoals?\b", source, re.IGNORECASE)


def test_it_links_to_its_neighbours(path, text):
    series = EXTRAS if path in EXTRAS else CORE
    at = series.index(path)
    neighbours = [other for other in series[max(at - 1, 0) : at + 2] if other != path]
    links = LINK.findall(text)
    for name in [*(other.name for other in neighbours), "README.md"]:
        assert any(name in link for link in links), name


def test_its_links_lead_to_files_that_exist(path, text):
    local = [link for link in LINK.findall(text) if not re.match(r"\w+:|#", link)]
    missing = [link for link in local if not (path.parent / link.split("#")[0]).exists()]
    assert missing == []


def test_it_says_what_was_seen(headings):
    assert any(heading.startswith("what you saw") for heading in headings)


def test_it_has_exercises(headings):
    assert "exercises" in headings


def test_exercises_have_folded_solutions_in_python(solutions):
    assert len(solutions) >= 2
    for solution in solutions:
        assert "<summary>" in solution
        assert PYTHON_BLOCK.search(solution)


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.stem)
def test_each_exercise_of_the_six_has_a_starter_cell_with_a_check(code, solutions):
    starters = [cell for cell in code if re.search(r"^check\(", cell.source, re.MULTILINE)]
    numbered = [solution for solution in solutions if "<summary>Solution" in solution]
    assert len(starters) == len(numbered)
    for starter in starters:
        assert "..." in starter.source
        assert ": not yet." not in starter.outputs[0].text


def test_the_patch_of_model_d_is_left_to_the_reader():
    notebook = nbformat.read(CORE[-1], as_version=4)
    (starter,) = [cell for cell in notebook.cells if "fourth.paste(*patch)" in cell.source]
    assert starter.source.startswith("patch = ...")


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.stem)
def test_one_exercise_of_each_of_the_six_needs_no_computer(text):
    assert text.count("**Without a computer**") == 1
    assert text.count("<b>An answer</b>") == 1


def test_it_was_run_from_top_to_bottom(code):
    counts = [cell.execution_count for cell in code]
    assert counts == list(range(1, len(code) + 1)), "run all cells in a fresh kernel, then save"


def test_no_cell_is_longer_than_a_screen(code):
    lines = [len(cell.source.splitlines()) for cell in code]
    assert max(lines) <= 25, "split the longest cell"


def first_reading(notebook) -> list[str]:
    """The code outside of the section "Second reading", without the first cell."""
    depth_left_out = 0  # of the heading whose section is left out; 0: none is
    kept = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for marks, title in HEADING.findall(FOLDED.sub("", cell.source)):
                if not depth_left_out or len(marks) <= depth_left_out:
                    depth_left_out = len(marks) if title == LATER else 0
        elif cell.cell_type == "code" and not depth_left_out:
            lines = [line for line in cell.source.splitlines() if not line.startswith("%")]
            kept.append("\n".join(lines))
    return kept[1:]


def undefined_names(source: str) -> str:
    """What ruff says of names that are used and never bound; empty where there are none."""
    options = ["--isolated", "--quiet", "--select", "F821", "--output-format", "concise", "-"]
    command = [sys.executable, "-m", "ruff", "check", *options]
    result = subprocess.run(command, input=source, capture_output=True, text=True)
    assert not result.stderr
    return result.stdout


def test_the_second_reading_can_be_left_out(notebook):
    source = "import os, sys\ndata = P = device = DATASET = None\n"
    for cell in first_reading(notebook):
        source += cell + "\n"
        assert not undefined_names(source)


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.stem)
def test_it_closes_with_summary_and_exercises_and_perhaps_a_second_reading(text):
    titles = [title for marks, title in HEADING.findall(FOLDED.sub("", text)) if marks == "##"]
    if titles[-1] == LATER:
        titles.pop()
    assert titles[-2:] == ["What you saw", "Exercises"]


def test_a_name_that_only_a_left_out_section_binds_is_found():
    heading = nbformat.v4.new_markdown_cell(f"## {LATER}\n\n### A part of it")
    cells = [nbformat.v4.new_code_cell("setup"), heading, nbformat.v4.new_code_cell("a = 1")]
    cells += [nbformat.v4.new_markdown_cell("## B"), nbformat.v4.new_code_cell("print(a)")]
    assert first_reading(nbformat.v4.new_notebook(cells=cells)) == ["print(a)"]
    assert "Undefined name `a`" in undefined_names("print(a)\n")


def test_it_names_the_usual_kernel(notebook):
    assert notebook.metadata.kernelspec.name == "python3"


def test_no_widget_state_is_saved(notebook):
    assert "widgets" not in notebook.metadata, "it breaks the view on GitHub"


def test_its_stored_outputs_are_of_real_images(outputs):
    (source,) = re.findall(r"^source +(.*)$", str(outputs[0].text), re.MULTILINE)
    assert source.startswith("real file pneumoniamnist.npz")


def test_a_board_to_cover_patches_stores_its_answers(code):
    for cell in code:
        if cell.source.splitlines()[-1:] == ["cover"]:
            assert any(STORED_COVER in output.data for output in cell.outputs if "data" in output)


def test_no_error_is_stored(outputs):
    assert [output for output in outputs if output.output_type == "error"] == []


def test_no_progress_bar_is_stored(outputs):
    left = [shown_text(output) for output in outputs if PROGRESS_BAR.search(shown_text(output))]
    assert left == []


def test_a_widget_leaves_no_bare_repr(outputs):
    """It is all that GitHub would show of the widget."""
    for output in outputs:
        is_widget = any("widget-view" in kind for kind in output.get("data", {}))
        assert not (is_widget and re.match(r"\w+\(", shown_text(output)))


def test_no_path_of_a_machine_is_stored(outputs):
    for output in outputs:
        data = output.get("data", {})
        shown = [str(value) for kind, value in data.items() if "image/" not in kind]
        everything = " ".join([output.get("text", ""), *shown])
        without_pictures = re.sub(r"base64,[^\"')]+", "", everything)
        assert not MACHINE_PATH.search(without_pictures)


def test_nbval_compares_at_least_one_cell(code):
    assert any("nbval-check-output" in cell.metadata.get("tags", []) for cell in code)


@pytest.mark.slow
def test_folded_solutions_run_and_are_right(path, text, monkeypatch, capsys):
    monkeypatch.chdir(path.parent)
    data, profile, device = notebook_setup("pneumoniamnist")
    names = {"__name__": "__main__", "display": print}
    names |= {"data": data, "P": profile, "device": device}
    for solution in FOLDED.findall(text):
        for block in PYTHON_BLOCK.findall(solution):
            exec(compile(block, f"<a solution of {path.stem}>", "exec"), names)
    assert ": not yet." not in capsys.readouterr().out


def test_all_begin_with_the_same_cell():
    assert setup_cell.main("--check") == 0, "python tools/setup_cell.py --write"


@pytest.fixture
def with_address():
    """The first extra notebook as it is once the repository has an address."""
    return setup_cell.wanted(EXTRAS[0], "https://github.com/somebody/shrink")


def test_a_badge_opens_the_notebook_it_stands_in(with_address):
    address = f"/somebody/shrink/blob/main/notebooks/extras/{EXTRAS[0].name})"
    assert address in with_address.cells[0].source


def test_the_setup_cell_clones_from_the_address(with_address):
    setup = next(cell for cell in with_address.cells if cell.cell_type == "code")
    assert '"https://github.com/somebody/shrink"' in setup.source


def test_the_badges_of_the_readme_come_with_an_address():
    readme = setup_cell.wanted(ROOT / "README.md", "https://github.com/somebody/shrink")
    assert "https://github.com/somebody/shrink/actions/workflows/ci.yml" in readme


def test_the_badges_of_the_readme_go_with_the_address():
    path = ROOT / "README.md"
    readme = setup_cell.wanted(path, "https://github.com/somebody/shrink")
    assert setup_cell.BADGES.sub("", readme) == path.read_text(encoding="utf-8")


@pytest.fixture
def colab(environment, tmp_path):
    """A place like Colab, with ipywidgets 7.7.1 and without a checkout: runs the setup cell there.

    Returns exit code and everything printed.
    """
    if not (ROOT / ".git").exists():
        pytest.skip("the cell clones the repository")
    python = environment("--no-deps", "ipywidgets==7.7.1")
    script = tmp_path / "cells.ipy"
    script.write_text(SOURCE.replace("{repository}", "") + COLAB_READER)
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("SWYS", "PYTHON"))
    }
    kept["HOME"] = str(tmp_path)
    kept["SWYS_PROFILE"] = "smoke"

    def run(**variables: str) -> tuple[int, str]:
        command = [python, "-m", "IPython", script.name]
        options = {"cwd": tmp_path, "env": kept | variables}
        done = subprocess.run(command, capture_output=True, text=True, **options)
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.mark.slow
def test_the_setup_cell_asks_for_an_address(colab):
    code, printed = colab()
    assert code != 0
    assert "first run os.environ['SWYS_REPO_URL']" in printed


@pytest.mark.slow
def test_the_setup_cell_leaves_nothing_of_a_failed_clone(colab, tmp_path):
    code, printed = colab(SWYS_REPO_URL="file:///nowhere")
    assert code != 0
    assert "'git', 'clone'" in printed
    assert not (tmp_path / "SeeWhatYouShrink").exists()


@pytest.mark.slow
def test_the_setup_cell_clones_once_and_finds_its_checkpoints_after_a_restart(colab):
    for variables in ({"SWYS_REPO_URL": f"file://{ROOT}"}, {}):
        code, printed = colab(**variables)
        assert code == 0, printed
        assert "7.7.1 True" in printed, printed
