"""The pages of the site: no dead link, nothing asked from elsewhere, words for every picture."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "build" / "site"


@pytest.fixture(scope="module")
def pages() -> dict[str, BeautifulSoup]:
    subprocess.run([sys.executable, ROOT / "site" / "build_pages.py"], check=True)
    return {
        path.name: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        for path in SITE.glob("*.html")
    }


@pytest.mark.slow
def test_links_lead_somewhere_and_nothing_comes_from_elsewhere(pages):
    assert {"index.html", "01_data.html", "06_benchmark.html", "07_is_the_map_true.html"} <= set(pages)
    for name, page in pages.items():
        addresses = [
            tag.get("src") or tag.get("href", "") for tag in page.select("img, script, link, iframe")
        ]
        assert not [a for a in addresses if a and not a.startswith("data:")], name
        links = {link["href"].split("#")[0] for link in page.select("a[href]")}
        relative = {link for link in links if link and "://" not in link and not link.startswith("mailto:")}
        assert not [link for link in relative if not (SITE / link).exists()], name
        assert all(picture.get("alt") for picture in page.select(".notebook img, .hero img")), name
        assert page.title.text and page.html["lang"] == "en"


def test_the_table_of_the_readme_is_that_of_notebook_6():
    notebook = nbformat.read(ROOT / "notebooks" / "06_benchmark.ipynb", as_version=4)
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    tables = BeautifulSoup("".join(o.get("data", {}).get("text/html", "") for o in outputs), "html.parser")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = [line.strip("|") for line in readme.splitlines() if "tokens |" in line]
    rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    found = [[cell.text.strip() for cell in row.select("td")] for row in tables.select("tr")]
    assert len(rows) >= 4 and all(row in found for row in rows)
