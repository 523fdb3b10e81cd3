"""HTML pages of the notebooks and a landing page, in build/site/; nothing is loaded from elsewhere.

Executed copies (build/notebooks/) are preferred to the committed notebooks.
"""

from __future__ import annotations

import base64
import html
import importlib
import importlib.util
import posixpath
import re
import sys
from dataclasses import dataclass
from pathlib import Path

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

BUILD = ROOT / "build"
SITE = ROOT / "site"
REPOSITORY = address()
DOCUMENTED = ("swys_utils", "swys")  # packages of the reference
BENCHMARK = "06_benchmark"  # the notebook whose table the landing page shows
TEMPLATE = jinja2.Environment(autoescape=True).from_string((SITE / "page.html").read_text())
MATH = re.compile(r"\$\$(.+?)\$\$|(?<![\\$\w])\$(?=\S)([^$\n]+?)(?<=\S)\$(?!\d)", re.DOTALL)


@dataclass
class Page:
    """A notebook, and what the landing page shows of it.

    Attributes:
        path: of the committed notebook.
        notebook: its content, executed if it was.
        title: its first line.
        goals: what a reader learns, as HTML.
        minutes: how long it takes, as the notebook says it; may be empty.
        picture: a PNG in base64, if the notebook has a figure.
    """

    path: Path
    notebook: nbformat.NotebookNode
    title: str
    goals: list[Markup]
    minutes: str
    picture: str | None

    @property
    def name(self) -> str:
        """Name of its file, without an ending."""
        return self.path.stem


def build() -> Path:
    """Write all pages.

    Returns:
        The path of the landing page.
    """
    site = BUILD / "site"
    site.mkdir(parents=True, exist_ok=True)
    style = stylesheet()
    pages = [describe(path) for path in CORE + EXTRAS]
    neighbours = [None, *pages, None]
    for number, page in enumerate(pages):
        text = TEMPLATE.render(
            title=page.title,
            style=style,
            content=content(page),
            before=neighbours[number],
            after=neighbours[number + 2],
        )
        (site / f"{page.name}.html").write_text(text, encoding="utf-8")
    hero = (ROOT / "notebooks" / "images" / "cost_and_kept.png").read_bytes()
    index = TEMPLATE.render(
        title="SeeWhatYouShrink",
        style=style,
        groups=[
            ("", pages[: len(CORE)]),
            ("Extras", pages[len(CORE) :]),
        ],
        table=tables_of(pages, BENCHMARK),
        hero=f"data:image/png;base64,{base64.b64encode(hero).decode()}",
        demo=(site / "demo" / "index.html").is_file(),
        repository=REPOSITORY,
        first=f"{pages[0].name}.html",
        api=reference(site / "api"),
        documented=" and ".join(DOCUMENTED),
    )
    (site / "index.html").write_text(index, encoding="utf-8")
    return site / "index.html"


def stylesheet() -> Markup:
    """The style of all pages: colours of code, for a light and a dark screen, and our own rules."""
    light = HtmlFormatter(style="default").get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".highlight")
    own = (SITE / "style.css").read_text()
    return Markup(f"{light}@media (prefers-color-scheme: dark) {{ {dark} }}{own}")


def describe(path: Path) -> Page:
    """Read a notebook.

    Args:
        path: of the committed notebook; an executed copy of it is preferred.
    """
    executed = BUILD / "notebooks" / path.name
    notebook = nbformat.read(executed if executed.is_file() else path, as_version=4)
    opening = notebook.cells[0].source
    first_line = opening.splitlines()[0]
    minutes = re.search(r"\*\*Time:\*\* (.+?)\.$", opening, re.MULTILINE)
    goals = []
    for goal in re.findall(r"^\* (.+(?:\n  .+)*)", opening, re.MULTILINE):
        plain = re.sub(r"[`*]", "", goal)
        goals.append(Markup(math(plain)))
    return Page(
        path=path,
        notebook=notebook,
        title=re.sub(r"[#`*$]", "", first_line).strip(),
        goals=goals,
        minutes=minutes[1] if minutes else "",
        picture=first_figure(notebook),
    )


def first_figure(notebook: nbformat.NotebookNode) -> str | None:
    """A figure of the notebook as PNG in base64: of a cell tagged "card", else the first one.

    Args:
        notebook: with its outputs.
    """
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    cells.sort(key=lambda cell: "card" not in cell.metadata.get("tags", []))
    for cell in cells:
        for output in cell.outputs:
            figure = output.get("data", {}).get("image/png")
            if figure is not None:
                return figure.strip()
    return None


def tables_of(pages: list[Page], name: str) -> Markup:
    """The HTML tables among the outputs of a notebook.

    Args:
        pages: all notebooks.
        name: of the notebook.
    """
    tables = []
    for page in pages:
        if page.name == name:
            for cell in page.notebook.cells:
                for output in cell.get("outputs", []):
                    tables.append(output.get("data", {}).get("text/html", ""))
    return Markup("".join(tables))


def content(page: Page) -> Markup:
    """The cells of a notebook as HTML.

    Args:
        page: the notebook; links are meant from the folder of its committed form.
    """
    drop_widgets(page.notebook)
    exporter = HTMLExporter(template_name="basic", exclude_anchor_links=True, embed_images=True)
    resources = {"metadata": {"path": str(page.path.parent)}}
    body, _ = exporter.from_notebook_node(page.notebook, resources)
    soup = BeautifulSoup(body, "html.parser")
    draw_formulas(soup)
    for link in soup.select("a[href]"):
        link["href"] = local_link(link["href"], page.path)
        if not link["href"]:
            link.unwrap()
    for figure in soup.select("img"):  # described by the words that follow it
        following = figure.find_next(class_="text_cell_render")
        words = following.get_text().split() if following else []
        figure["alt"] = " ".join(words)[:200] if following else "a figure"
    for code in soup.select("pre"):
        code["tabindex"] = "0"  # a wide one is scrolled by keyboard, too
    fold_setup(soup)
    return Markup(soup)


def drop_widgets(notebook: nbformat.NotebookNode) -> None:
    """Remove outputs that need Jupyter; a static figure follows each.

    Args:
        notebook: changed in place.
    """
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        static = []
        for output in cell.outputs:
            kinds = " ".join(output.get("data", {}))
            if "widget-view" not in kinds:
                static.append(output)
        cell.outputs = static


def draw_formulas(soup: BeautifulSoup) -> None:
    """Put MathML in the place of TeX, in text but not in code.

    Args:
        soup: a page, changed in place.
    """
    for text in soup.find_all(string=MATH):
        is_prose = text.find_parent(class_="text_cell_render")
        if is_prose and not text.find_parent(["code", "pre"]):
            text.replace_with(BeautifulSoup(math(text), "html.parser"))


def math(text: str) -> str:
    """Text as HTML, with TeX between dollars as MathML, which needs no script.

    Args:
        text: plain text with formulas as $...$ or $$...$$.
    """
    parts = []
    end = 0
    for formula in MATH.finditer(text):
        block, inline = formula.groups()
        parts.append(html.escape(text[end : formula.start()]))
        parts.append(convert(block, display="block") if block else convert(inline))
        end = formula.end()
    parts.append(html.escape(text[end:]))
    return "".join(parts)


def local_link(href: str, path: Path) -> str | None:
    """A link as its page needs it.

    Args:
        href: the link of a notebook.
        path: of that notebook.

    Returns:
        Notebooks are pages, the README is the index, other files lie in the repository, or None as
        long as that has no address.
    """
    if re.match(r"\w+:|#", href):
        return href
    notebook = re.search(r"(\d\d_\w+)\.ipynb(#.*)?$", href)
    if notebook:
        return f"{notebook[1]}.html"
    if re.search(r"README\.md(#.*)?$", href):
        return "index.html"
    if not REPOSITORY:
        return None
    folder = path.parent.relative_to(ROOT).as_posix()
    return f"{REPOSITORY}/blob/main/{posixpath.normpath(f'{folder}/{href}')}"


def fold_setup(soup: BeautifulSoup) -> None:
    """Hide the setup cell behind a line to click on.

    Args:
        soup: a page, changed in place.
    """
    summary = "<summary>Setup, the same in every notebook</summary>"
    for area in soup.select(".celltag_setup .input"):
        folded = area.wrap(soup.new_tag("details", attrs={"class": "setup"}))
        folded.insert(0, BeautifulSoup(summary, "html.parser"))


def reference(folder: Path) -> bool:
    """Write pages of the public names of our packages, if pdoc is installed.

    Args:
        folder: where the pages are written.

    Returns:
        Whether they were written.
    """
    if importlib.util.find_spec("pdoc") is None:
        return False
    pdoc = importlib.import_module("pdoc")
    pdoc.render.configure(docformat="google", show_source=False)
    pdoc.pdoc(*DOCUMENTED, output_directory=folder)
    return True


if __name__ == "__main__":
    print(f"pages: {build().relative_to(ROOT)}")
