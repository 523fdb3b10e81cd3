"""Slides and plain pages that nbconvert makes of notebooks."""

import re
import sys
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
from setup_cell import CORE  # noqa: E402
from slides import REVEAL_FOLDER, as_slides, split_text  # noqa: E402
from tutorial_pages import as_page  # noqa: E402

LOADED = "img, script, link, iframe"


@pytest.fixture
def notebook():
    """A title, the setup, two headings in one cell, a figure, and a widget."""
    widget = new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}})
    text = new_output("stream", text="a result")
    return new_notebook(
        cells=[
            new_markdown_cell("# 4. Title\n\n[next](05_distillation.ipynb), [all](../README.md)"),
            new_code_cell("import hidden_setup", metadata={"tags": ["setup"]}),
            new_markdown_cell("## First\n\n$x^2$ and `$a$`\n\n## Second\n\ntext"),
            new_code_cell("show()", outputs=[widget, text]),
        ]
    )


@pytest.fixture
def slides(notebook):
    return BeautifulSoup(as_slides(notebook, ROOT), "html.parser")


@pytest.fixture
def page(notebook):
    return BeautifulSoup(as_page(notebook, ROOT, "4. Title"), "html.parser")


def addresses(soup: BeautifulSoup) -> list[str]:
    return [part.get("src") or part.get("href") or "" for part in soup.select(LOADED)]


def test_each_heading_begins_a_slide(slides):
    tops = slides.select(".slides > section")
    assert [top.find(re.compile("h[12]")).get_text()[:6] for top in tops] == [
        "4. Tit",
        "First¶",
        "Second",
    ]


def test_code_is_on_the_slide_of_the_text_before_it(slides):
    last = slides.select(".slides > section > section")[-1]
    assert "Second" in last.get_text()
    assert "a result" in last.get_text()


def test_slides_leave_out_the_setup(slides):
    assert "hidden_setup" not in slides.get_text()


def test_slides_start_reveal_from_beside_them(slides):
    scripts = [script for script in addresses(slides) if script.endswith(".js")]
    assert all(script.startswith(f"{REVEAL_FOLDER}/") for script in scripts)
    assert "Reveal.initialize" in str(slides)


@pytest.mark.parametrize("made", ["slides", "page"])
def test_nothing_is_asked_for_elsewhere(made, request):
    soup = request.getfixturevalue(made)
    assert not [address for address in addresses(soup) if re.match(r"(https?:)?//", address)]


def test_a_formula_is_mathml(page):
    assert page.find("math").get_text(strip=True) == "x2"


def test_dollars_in_code_are_no_formula(page):
    assert "$a$" in [code.get_text() for code in page.select("code")]


def test_links_lead_to_the_pages(page):
    links = [link["href"] for link in page.select("a[href]")]
    assert {"05_distillation.html", "index.html"} <= set(links)


def test_a_comment_in_code_is_no_heading():
    text = "## One\n\n```python\n# no heading\n```\n\n## Two\n"
    assert [part.splitlines()[0] for part in split_text(text)] == ["## One", "## Two"]


@pytest.mark.slow
@pytest.mark.parametrize("path", CORE, ids=lambda path: path.stem)
def test_a_notebook_has_a_slide_for_each_heading(path):
    notebook = nbformat.read(path, as_version=4)
    text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    soup = BeautifulSoup(as_slides(notebook, path.parent), "html.parser")
    assert len(soup.select(".slides > section")) == len(split_text(text))
