"""HTML pages of notebooks that were just executed, in build/tutorial/; they ask for nothing else.

`make site` builds the book, of the notebooks as they are stored; these pages are plain.
"""

from __future__ import annotations

import html
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import nbformat
from covers import draw_covers
from latex2mathml.converter import convert
from nbconvert import HTMLExporter

from swys_utils.config import BUILD, PROJECT_ROOT

TARGET = BUILD / "tutorial"
CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)
MATH = re.compile(r"\$\$(.+?)\$\$|(?<![\\$\w])\$(?=\S)([^$\n]+?)(?<=\S)\$(?!\d)", re.DOTALL)
FOLD = re.compile(r"^(<details>.*|</details>)$", re.MULTILINE)
NOTEBOOK_LINK = re.compile(r"\]\((?:[^)\s]*/)?(\d\d_\w+)\.ipynb")
README_LINK = re.compile(r"\]\([./]*README\.md(#[^)\s]*)?\)")
FILE_LINK = re.compile(r"\]\((?:\.\./)+([^)]+)\)")  # to another file of the repository
SCRIPT = re.compile(r"<script\b.*?</script>", re.DOTALL)  # for what these pages do not have


def write_pages(paths: Sequence[Path]) -> Path:
    """Write a page of each notebook, and one that lists them.

    Args:
        paths: of the stored notebooks; their executed copies, where there are any, are shown.

    Returns:
        The path of the list.
    """
    TARGET.mkdir(parents=True, exist_ok=True)
    entries = []
    for path in paths:
        executed = BUILD / "notebooks" / path.name
        notebook = nbformat.read(executed if executed.is_file() else path, as_version=4)
        title = notebook.cells[0].source.splitlines()[0].lstrip("# ")
        page = as_page(notebook, path.parent, title)
        (TARGET / f"{path.stem}.html").write_text(page, encoding="utf-8")
        state = " (as stored)"
        if executed.is_file():
            when = time.localtime(executed.stat().st_mtime)
            state = time.strftime(" (executed %Y-%m-%d %H:%M)", when)
        entries.append(f'<li><a href="{path.stem}.html">{html.escape(title)}</a>{state}</li>')
    head = '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>Notebooks</title>'
    head += '<meta name="viewport" content="width=device-width, initial-scale=1">'
    body = f"<h1>Notebooks</h1><ul>{''.join(entries)}</ul>"
    index = TARGET / "index.html"
    index.write_text(f"{head}{body}</html>", encoding="utf-8")
    print(f"pages: {index.relative_to(PROJECT_ROOT)}")
    return index


def as_page(notebook: nbformat.NotebookNode, folder: Path, title: str) -> str:
    """A notebook as one HTML page.

    Args:
        notebook: changed in place.
        folder: that pictures in its text are looked for in.
        title: of the page.
    """
    formulas = prepare(notebook)
    exporter = HTMLExporter(embed_images=True)
    resources = {"metadata": {"path": str(folder), "name": title}}
    page, _ = exporter.from_notebook_node(notebook, resources)
    return finish(page, formulas)


def prepare(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """Make a notebook fit for a page that needs neither Jupyter nor a script for formulas.

    Args:
        notebook: changed in place: pictures to cover stand in place of their widgets, other widgets
            and the source of the setup cell go, the source of other hidden cells is folded, links
            lead to the pages, a word stands for each formula, which Markdown would change, and for
            the beginning and end of each fold, which nbconvert would close at once where it embeds
            images.

    Returns:
        Word -> MathML, and paragraph of one word -> HTML.
    """
    formulas: dict[str, str] = {}

    def keep(formula: re.Match) -> str:
        word = f"FORMULA{len(formulas)}X"
        formulas[word] = as_mathml(formula)
        return word

    def keep_fold(tag: re.Match) -> str:
        word = f"FOLD{len(formulas)}X"
        formulas[f"<p>{word}</p>"] = tag.group()
        return f"\n\n{word}\n\n"

    draw_covers(notebook)
    notebook.cells = with_folded_code(notebook.cells)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            if "hide-input" in cell.metadata.get("tags", []):
                cell.metadata["transient"] = {"remove_source": True}  # nbconvert's own word
            cell.outputs = [output for output in cell.outputs if not is_widget(output)]
        elif cell.cell_type == "markdown":
            linked = NOTEBOOK_LINK.sub(r"](\1.html", cell.source)
            linked = README_LINK.sub("](index.html)", linked)
            linked = FILE_LINK.sub(r"](../../\1)", linked)  # the page lies in build/tutorial/
            parts = CODE.split(linked)
            parts[::2] = [MATH.sub(keep, text) for text in parts[::2]]
            cell.source = FOLD.sub(keep_fold, "".join(parts))
    return formulas


def with_folded_code(cells: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """The cells, with a fold that holds the source before each hidden one but the setup cell.

    Args:
        cells: of a notebook.
    """
    shown = []
    for cell in cells:
        tags = cell.metadata.get("tags", [])
        if "hide-input" in tags and "setup" not in tags:
            code = f"```python\n{cell.source}\n```"
            fold = f"<details><summary>The code</summary>\n\n{code}\n\n</details>"
            shown.append(nbformat.v4.new_markdown_cell(fold))
        shown.append(cell)
    return shown


def finish(page: str, formulas: Mapping[str, str]) -> str:
    """A page without scripts, with its formulas.

    Args:
        page: HTML.
        formulas: what ``prepare`` returned.
    """
    page = SCRIPT.sub("", page)
    for word, formula in formulas.items():
        page = page.replace(word, formula)
    return page


def is_widget(output: nbformat.NotebookNode) -> bool:
    """Whether an output is drawn by Jupyter alone; a picture of it follows in our notebooks.

    Args:
        output: of a code cell.
    """
    return any("widget-view" in kind for kind in output.get("data", {}))


def as_mathml(formula: re.Match) -> str:
    """MathML of a formula, which needs no script.

    Args:
        formula: a match of ``MATH``.
    """
    block, inline = formula.groups()
    return convert(block, display="block") if block else convert(inline)
