"""The pages of the site, built from the committed notebooks."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "build" / "site"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pages() -> dict[str, BeautifulSoup]:
    """File name -> page."""
    subprocess.run([sys.executable, ROOT / "site" / "build_pages.py"], check=True)
    found = {}
    for path in SITE.glob("*.html"):
        found[path.name] = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
    return found


def test_there_is_a_page_for_each_notebook(pages):
    assert {"index.html", "01_data.html", "07_is_the_map_true.html"} <= set(pages)


def test_nothing_is_fetched_from_elsewhere(pages):
    for name, page in pages.items():
        for part in page.select("img, script, link, iframe"):
            address = part.get("src") or part.get("href") or "data:"
            assert address.startswith("data:"), name


def test_local_links_lead_somewhere(pages):
    for name, page in pages.items():
        targets = [link["href"].split("#")[0] for link in page.select("a[href]")]
        local = [target for target in targets if not re.match(r"\w+:", target)]
        assert [target for target in local if not (SITE / target).exists()] == [], name


def test_pictures_have_a_description(pages):
    for name, page in pages.items():
        pictures = page.select(".notebook img, .hero img")
        assert all(picture.get("alt") for picture in pictures), name


def test_pages_have_a_title_and_a_language(pages):
    for name, page in pages.items():
        assert page.title.text, name
        assert page.html["lang"] == "en", name
