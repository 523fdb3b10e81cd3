"""HTML pages of the notebooks and a landing page, in build/site/; nothing in them comes from elsewhere.

Executed copies (build/notebooks/) are preferred to the committed notebooks.
"""

from __future__ import annotations

import base64
import html
import importlib.util
import posixpath
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import jinja2
import nbformat
from bs4 import BeautifulSoup
from latex2mathml.converter import convert
from markupsafe import Markup
from nbconvert import HTMLExporter
from pygments.formatters import HtmlFormatter

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
from setup_cell import CORE, EXTRAS, address  # noqa: E402

BUILD, SITE, REPOSITORY = ROOT / "build", ROOT / "site", address()
LIGHT, DARK = (
    HtmlFormatter(style=name).get_style_defs(".highlight") for name in ("default", "github-dark")
)
DARK = f"@media (prefers-color-scheme: dark) {{ {DARK} }}"
STYLE = Markup(LIGHT + DARK + (SITE / "style.css").read_text())
TEMPLATE = jinja2.Environment(autoescape=True).from_string((SITE / "page.html").read_text())
MATH = re.compile(r"\$\$(.+?)\$\$|(?<![\\$\w])\$(?=\S)([^$\n]+?)(?<=\S)\$(?!\d)", re.DOTALL)


def math(text: str) -> str:
    """Text as HTML, with TeX between dollars as MathML, which needs no script."""
    parts = MATH.split(text)  # words, block formula or None, inline formula or None, words, ...
    formulas = [
        convert(b, display="block") if b else convert(i) for b, i in zip(parts[1::3], parts[2::3])
    ]
    words = [html.escape(part) for part in parts[::3]]
    return "".join(word + formula for word, formula in zip(words, [*formulas, ""]))


def local_link(href: str, path: Path) -> str | None:
    """A link as its page needs it: notebooks are pages, the README is the index, files lie in the repository
    (None: its address is not set)."""
    if re.match(r"\w+:|#", href):
        return href
    if found := re.search(r"(\d\d_\w+)\.ipynb(#.*)?$", href):
        return f"{found[1]}.html"
    if re.search(r"README\.md(#.*)?$", href):
        return "index.html"
    folder = path.parent.relative_to(ROOT).as_posix()
    return (
        f"{REPOSITORY}/blob/main/{posixpath.normpath(f'{folder}/{href}')}" if REPOSITORY else None
    )


def content(path: Path, notebook: nbformat.NotebookNode) -> Markup:
    """The cells as HTML; ``path`` is the committed notebook, from whose folder links are meant."""
    for cell in notebook.cells:
        if cell.cell_type == "code":  # a widget needs Jupyter; a static figure follows each
            cell.outputs = [
                o for o in cell.outputs if "widget-view" not in " ".join(o.get("data", {}))
            ]
    exporter = HTMLExporter(template_name="basic", exclude_anchor_links=True, embed_images=True)
    body, _ = exporter.from_notebook_node(notebook, {"metadata": {"path": str(path.parent)}})
    soup = BeautifulSoup(body, "html.parser")
    for text in soup.find_all(string=MATH):
        if text.find_parent(class_="text_cell_render") and not text.find_parent(["code", "pre"]):
            text.replace_with(BeautifulSoup(math(text), "html.parser"))
    for link in soup.select("a[href]"):
        link["href"] = local_link(link["href"], path)
        if not link["href"]:
            link.unwrap()
    for figure in soup.select("img"):  # described by the words that follow it
        words = figure.find_next(class_="text_cell_render")
        figure["alt"] = " ".join(words.get_text().split())[:200] if words else "a figure"
    for code in soup.select("pre"):
        code["tabindex"] = "0"  # a wide one is scrolled by keyboard, too
    for area in soup.select(".celltag_setup .input"):
        summary = "<summary>Setup, the same in every notebook</summary>"
        folded = area.wrap(soup.new_tag("details", attrs={"class": "setup"}))
        folded.insert(0, BeautifulSoup(summary, "html.parser"))
    return Markup(soup)


def describe(path: Path) -> SimpleNamespace:
    """What the landing page shows of a notebook, and the notebook itself."""
    executed = BUILD / "notebooks" / path.name
    notebook = nbformat.read(executed if executed.is_file() else path, as_version=4)
    opening = notebook.cells[0].source
    minutes = re.search(r"\*\*Time:\*\* (.+?)\.$", opening, re.MULTILINE)
    goals = re.findall(r"^\* (.+(?:\n  .+)*)", opening, re.MULTILINE)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    code.sort(key=lambda cell: "card" not in cell.metadata.get("tags", []))  # its figure first
    figures = [
        o.data["image/png"]
        for cell in code
        for o in cell.outputs
        if "image/png" in o.get("data", {})
    ]
    return SimpleNamespace(
        path=path,
        name=path.stem,
        notebook=notebook,
        title=re.sub(r"[#`*$]", "", opening.splitlines()[0]).strip(),
        goals=[Markup(math(re.sub(r"[`*]", "", goal))) for goal in goals],
        minutes=minutes[1] if minutes else "",
        picture=figures[0].strip() if figures else None,
    )


def reference(folder: Path) -> bool:
    """Pages of the public names of swys_utils, when pdoc is there."""
    if importlib.util.find_spec("pdoc") is None:
        return False
    pdoc = importlib.import_module("pdoc")
    pdoc.render.configure(docformat="google", show_source=False)
    pdoc.pdoc("swys_utils", output_directory=folder)
    return True


def build() -> Path:
    """Write all pages; returns the path of the landing page."""
    site = BUILD / "site"
    site.mkdir(parents=True, exist_ok=True)
    pages = [describe(path) for path in CORE + EXTRAS]
    for before, page, after in zip([None, *pages], pages, [*pages[1:], None]):
        cells = content(page.path, page.notebook)
        whole = TEMPLATE.render(
            title=page.title, style=STYLE, content=cells, before=before, after=after
        )
        (site / f"{page.name}.html").write_text(whole, encoding="utf-8")
    outputs = [o for cell in pages[5].notebook.cells for o in cell.get("outputs", [])]
    table = Markup(
        "".join(o["data"]["text/html"] for o in outputs if "text/html" in o.get("data", {}))
    )
    groups = [("", pages[: len(CORE)]), ("Extras", pages[len(CORE) :])]
    hero = base64.b64encode(
        (ROOT / "notebooks" / "images" / "cost_and_kept.png").read_bytes()
    ).decode()
    facts = {
        "hero": f"data:image/png;base64,{hero}",
        "demo": (site / "demo" / "index.html").is_file(),
    }
    facts |= {"repository": REPOSITORY}
    facts |= {"first": f"{pages[0].name}.html", "api": reference(site / "api")}
    index = TEMPLATE.render(
        title="SeeWhatYouShrink", style=STYLE, groups=groups, table=table, **facts
    )
    (site / "index.html").write_text(index, encoding="utf-8")
    return site / "index.html"


if __name__ == "__main__":
    print(f"pages: {build().relative_to(ROOT)}")
