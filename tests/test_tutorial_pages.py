"""The pages of `make tutorial`."""

import sys
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
from setup_cell import CORE, EXTRAS  # noqa: E402
from tutorial_pages import TARGET, as_page  # noqa: E402

TEXT = """Guess.
<details><summary><b>Which?</b></summary>

The **second**, because $x = 1$.
</details>

Go on."""


def page_of(text: str) -> BeautifulSoup:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)])
    return BeautifulSoup(as_page(notebook, ROOT, "a page"), "html.parser")


def test_an_answer_stays_in_its_fold():
    page = page_of(TEXT)
    (fold,) = page.select("details")
    assert fold.summary.get_text() == "Which?"
    assert "The second" in fold.get_text()
    assert fold.math is not None
    assert "Go on." not in fold.get_text()
    assert "FOLD" not in page.get_text()


def test_a_fold_in_code_is_code():
    page = page_of("```html\n<details>\n</details>\n```")
    assert not page.select("details")


@pytest.mark.parametrize("path", CORE + EXTRAS, ids=lambda path: path.stem)
def test_links_to_files_of_the_repository_lead_there(path):
    notebook = nbformat.read(path, as_version=4)
    page = BeautifulSoup(as_page(notebook, path.parent, "a page"), "html.parser")
    targets = [link["href"].partition("#")[0] for link in page.select("a[href^='..']")]
    assert [target for target in targets if not (TARGET / target).resolve().is_file()] == []


def test_the_first_answers_of_notebook_1_are_folded():
    notebook = nbformat.read(ROOT / "notebooks" / "01_data.ipynb", as_version=4)
    html = as_page(notebook, ROOT / "notebooks", "1")
    folds = BeautifulSoup(html, "html.parser").select("details")
    texts = [fold.get_text() for fold in folds]
    assert any("Which four?" in text and "2, 3, 7 and 8" in text for text in texts)


def test_the_source_of_the_setup_cell_is_left_out_and_its_output_stays():
    cell = nbformat.v4.new_code_cell("secret = 1", metadata={"tags": ["setup", "hide-input"]})
    cell.outputs = [nbformat.v4.new_output("stream", text="shown")]
    notebook = nbformat.v4.new_notebook(cells=[cell])
    text = BeautifulSoup(as_page(notebook, ROOT, "a page"), "html.parser").get_text()
    assert "secret" not in text
    assert "shown" in text


def test_the_source_of_another_hidden_cell_is_folded_and_its_output_is_not():
    cell = nbformat.v4.new_code_cell("plumbing = 1", metadata={"tags": ["hide-input"]})
    cell.outputs = [nbformat.v4.new_output("stream", text="shown")]
    notebook = nbformat.v4.new_notebook(cells=[cell])
    page = BeautifulSoup(as_page(notebook, ROOT, "a page"), "html.parser")
    (fold,) = page.select("details")
    assert "plumbing = 1" in fold.get_text()
    assert "shown" not in fold.get_text()
    assert page.get_text().count("plumbing") == 1
