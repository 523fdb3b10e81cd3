"""Pictures to cover on pages that have neither Python nor scripts."""

import sys
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
from covers import covers_html, draw_covers  # noqa: E402
from tutorial_pages import as_page  # noqa: E402

from swys_figures.dials import STORED_COVER  # noqa: E402

STORED = {
    "asked": "a < b",
    "grid": [2, 3],
    "models": ["A", "B"],
    "pictures": [
        {
            "title": "one <film>",
            "png": "iVBORw0KGgo=",
            "mean": "rgb(1 2 3)",
            "whole": [0.999, 0.5],
            "covered": [[0.1 * place, 0.25] for place in range(6)],
        }
    ],
}


@pytest.fixture
def page() -> BeautifulSoup:
    return BeautifulSoup(covers_html(STORED), "html.parser")


def test_each_patch_says_what_is_answered_without_it(page):
    patches = page.select(".patch")
    assert len(patches) == 6
    assert patches[5]["aria-label"] == "row 2, column 3 covered, A: 50.0%, B: 25.0%"
    drawn = [text.get_text() for text in patches[5].select("text")]
    assert drawn == ["row 2, column 3 covered", "A: 50.0%", "B: 25.0%"]


def test_a_patch_lies_where_it_lies_in_the_picture(page):
    square = page.select(".patch rect")[5]
    corner = [float(square[name]) for name in ("x", "y", "width", "height")]
    assert corner == pytest.approx([2 * 224 / 3, 112, 224 / 3, 112], abs=0.01)
    assert "rgb(1 2 3)" in square["style"]


def test_the_uncovered_picture_has_its_answers(page):
    assert "A: 99.9%" in page.select_one(".whole").get_text()


def test_names_are_words_and_not_tags(page):
    assert page.select_one("figcaption").get_text() == "one <film>"
    assert "the probability of a < b." in page.get_text()


def test_a_page_has_them_in_place_of_the_widget():
    data = {
        "application/vnd.jupyter.widget-view+json": {"model_id": "gone"},
        "text/plain": "run it",
        STORED_COVER: STORED,
    }
    output = nbformat.v4.new_output("display_data", data)
    cell = nbformat.v4.new_code_cell("cover", outputs=[output])
    notebook = nbformat.v4.new_notebook(cells=[cell])
    page = BeautifulSoup(as_page(notebook, ROOT, "a page"), "html.parser")
    assert len(page.select(".cover .patch")) == 6
    assert "run it" not in page.get_text()


def test_other_outputs_stay():
    output = nbformat.v4.new_output("display_data", {"text/plain": "as it was"})
    cell = nbformat.v4.new_code_cell("1", outputs=[output])
    notebook = nbformat.v4.new_notebook(cells=[cell])
    draw_covers(notebook)
    assert notebook.cells[0].outputs[0].data == {"text/plain": "as it was"}
