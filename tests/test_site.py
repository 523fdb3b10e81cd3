"""The book as it was built (`make site`): it opens from disk and asks for nothing else.

The browser tests look at it in Chromium.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "site"))

pytest.importorskip("sphinx", reason="the book needs pip install -e '.[site]'")
pytest.importorskip("myst_nb", reason="the book needs pip install -e '.[site]'")
from build_book import TARGET, broken_links  # noqa: E402
from setup_cell import CORE, EXTRAS  # noqa: E402

pytestmark = pytest.mark.slow
OWN_PAGES = ("demo.html", "demo/index.html")  # those of the demo have tests of their own
LOADED = "img, script, link, iframe, source, video, audio"
# a word that a reader looks for, as the search stems it, and a page that has to be found
ANSWERS = {
    "occlus": "how_to/blank_heatmap",
    "temperatur": "teachers/assignment",
    "doctor": "how_to/blank_heatmap",
}


@pytest.fixture(scope="session")
def pages() -> dict[str, BeautifulSoup]:
    """Path in the book -> page."""
    subprocess.run([sys.executable, ROOT / "site" / "build_book.py"], check=True)
    found = {}
    for path in TARGET.rglob("*.html"):
        name = path.relative_to(TARGET).as_posix()
        if name not in OWN_PAGES and not name.startswith("_"):
            found[name] = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
    return found


@pytest.fixture(scope="session")
def search_index(pages) -> dict:
    """What the search looks words up in."""
    script = (TARGET / "searchindex.js").read_text(encoding="utf-8")
    return json.loads(script.removeprefix("Search.setIndex(").removesuffix(")"))


def test_there_is_a_page_for_each_notebook(pages):
    notebooks = CORE + EXTRAS
    names = {path.relative_to(ROOT).with_suffix(".html").as_posix() for path in notebooks}
    assert names <= set(pages)


def test_no_section_lies_in_a_fold(pages):
    for name, page in pages.items():
        headings = [heading.get_text() for heading in page.select("details h2, details h3")]
        assert headings == [], name  # a fold that is not closed swallows the rest of its page


def test_nothing_is_fetched_from_elsewhere(pages):
    for name, page in pages.items():
        addresses = [part.get("src") or part.get("href") or "" for part in page.select(LOADED)]
        elsewhere = [address for address in addresses if re.match(r"(https?:)?//", address)]
        assert elsewhere == [], name


def test_no_style_sheet_asks_for_something_elsewhere(pages):
    for path in (TARGET / "_static").rglob("*.css"):
        style = path.read_text(encoding="utf-8")
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", style), path.name


@pytest.mark.parametrize("word", ANSWERS)
def test_the_search_finds_the_page_for_a_word(search_index, word):
    numbers = []
    for part in ("titleterms", "terms"):
        found = search_index[part].get(word, [])
        numbers += found if isinstance(found, list) else [found]
    assert ANSWERS[word] in [search_index["docnames"][number] for number in numbers]


def test_no_solution_is_shown_before_it_is_asked_for(pages):
    for name, page in pages.items():
        assert page.select("article details[open]") == [], name


def test_the_first_page_has_the_finding_and_the_answers(pages):
    article = pages["index.html"].select_one("article")
    assert article.select("img[src*=honest_map]")
    assert len(article.select("ol > li")) == 3


def test_the_setup_cell_is_folded(pages):
    assert pages["notebooks/01_data.html"].select(".tag_setup details.hide.above-input")


def test_no_widget_is_left_without_a_picture(pages):
    for name, page in pages.items():
        assert "GradCAMBrowser(children" not in page.get_text(), name
        assert not page.select("script[type*=widget]"), name


def test_a_formula_is_drawn_by_a_script_of_the_book(pages):
    scripts = [part.get("src", "") for part in pages["notebooks/04_gradcam.html"].select("script")]
    (drawing,) = [script for script in scripts if "mathjax" in script]
    file_name = drawing.partition("?")[0]
    assert (TARGET / "notebooks" / file_name).is_file()


def test_each_module_has_a_page(pages):
    for package in ("swys_utils", "swys_figures", "swys"):
        for path in (ROOT / package).glob("[!_]*.py"):
            assert f"reference/{package}.{path.stem}.html" in pages


def test_pictures_have_a_description(pages):
    for name, page in pages.items():
        pictures = page.select("article img")
        assert all(picture.get("alt") for picture in pictures), name


def test_pages_have_a_title_and_a_language(pages):
    for name, page in pages.items():
        assert page.title.text, name
        assert page.html["lang"] == "en", name


def test_a_broken_link_is_found(tmp_path):
    page = '<h1 id="a"></h1><a href="#a"></a><a href="#b"></a><a href="c.html"></a>'
    (tmp_path / "page.html").write_text(page)
    assert broken_links(tmp_path) == ["page.html: no #b", "page.html: no c.html"]
