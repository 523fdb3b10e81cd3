"""Slides of the notebooks' cells, in build/slides/, by nbconvert; they open from disk.

Each heading begins a slide, and what follows it lies below: the right arrow goes to the next
heading, the down arrow through its cells. reveal.js comes from the npm registry once.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbconvert import SlidesExporter
from nbformat import NotebookNode
from setup_cell import CORE, EXTRAS
from tutorial_pages import finish, prepare

from swys_utils.config import BUILD, PROJECT_ROOT

TARGET = BUILD / "slides"
REVEAL = "reveal.js@4.6.1"
REVEAL_FOLDER = REVEAL.replace("@", "-")  # beside the slides; another version gets another folder
REVEAL_PARTS = ("package/dist/", "package/plugin/notes/")
HEADING = re.compile(r"^(?=#{1,3} )", re.MULTILINE)
IMPORTED = re.compile(rb"@import url\(https?:[^)]*\);?")
FENCE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
INDEX = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Slides</title>
"""
START = f"""
<script src="{REVEAL_FOLDER}/dist/reveal.js"></script>
<script src="{REVEAL_FOLDER}/plugin/notes/notes.js"></script>
<script>
Reveal.initialize({{
  hash: true, slideNumber: "c/t", width: 1200, height: 760, plugins: [RevealNotes]
}});
</script>
</body>"""
STYLE = """
<style>
.reveal .slides > section > section { height: 100%; overflow-y: auto; text-align: left; }
.reveal img { max-height: 420px; }
</style>
</head>"""


def main() -> int:
    """Write the slides of all notebooks.

    Returns:
        The exit code.
    """
    TARGET.mkdir(parents=True, exist_ok=True)
    try:
        fetch_reveal(TARGET)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"slides: {error}; they need npm (Node.js) and its registry once", file=sys.stderr)
        return 1
    for path in CORE + EXTRAS:
        notebook = nbformat.read(path, as_version=4)
        page = as_slides(notebook, path.parent)
        (TARGET / f"{path.stem}.html").write_text(page, encoding="utf-8")
    items = [f'<li><a href="{path.stem}.html">{path.stem}</a></li>' for path in CORE + EXTRAS]
    contents = f"{INDEX}<ul>{''.join(items)}</ul>"
    (TARGET / "index.html").write_text(contents, encoding="utf-8")  # "contents" leads here
    print(f"slides: {TARGET.relative_to(PROJECT_ROOT)}, {len(CORE + EXTRAS)} notebooks")
    return 0


def fetch_reveal(folder: Path) -> None:
    """Unpack reveal.js, if it is not there yet.

    Args:
        folder: where it gets a folder of its own.

    Raises:
        OSError: npm is not installed.
        subprocess.CalledProcessError: npm fails.
    """
    target = folder / REVEAL_FOLDER
    if target.is_dir():
        return
    npm = shutil.which("npm")
    if npm is None:
        raise OSError("npm is not installed")
    command = [npm, "pack", "--loglevel=error", "--fetch-retries=1", REVEAL]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    archive_path = folder / done.stdout.split()[-1]
    unfinished = folder / f"{REVEAL_FOLDER}.part"  # of a run that was killed while it unpacked
    shutil.rmtree(unfinished, ignore_errors=True)
    with tarfile.open(archive_path) as archive:
        for member in archive.getmembers():
            source = archive.extractfile(member)
            if source is None or not member.name.startswith(REVEAL_PARTS):
                continue
            file = unfinished / member.name.removeprefix("package/")
            file.parent.mkdir(parents=True, exist_ok=True)
            content = source.read()
            if file.suffix == ".css":  # fonts that would come from the network before any slide
                content = IMPORTED.sub(b"", content)
            file.write_bytes(content)
    unfinished.rename(target)
    archive_path.unlink()


def as_slides(notebook: NotebookNode, folder: Path) -> str:
    """A notebook as one HTML page of slides.

    Args:
        notebook: changed in place.
        folder: that pictures in its text are looked for in.
    """
    formulas = prepare(notebook)
    notebook.cells = split_at_headings(notebook.cells)
    mark_slides(notebook.cells)
    exporter = SlidesExporter(embed_images=True, reveal_url_prefix=REVEAL_FOLDER)
    title = notebook.cells[0].source.splitlines()[0].lstrip("# ")
    resources = {"metadata": {"path": str(folder), "name": title}}
    page, _ = exporter.from_notebook_node(notebook, resources)
    page = finish(page, formulas)
    page = page.replace("</head>", STYLE, 1)
    return START.join(page.rsplit("</body>", 1))


def split_at_headings(cells: Sequence[NotebookNode]) -> list[NotebookNode]:
    """The cells, where each heading of a text begins a cell of its own.

    Args:
        cells: of a notebook.
    """
    parts = []
    for cell in cells:
        if cell.cell_type != "markdown":
            parts.append(cell)
            continue
        for text in split_text(cell.source):
            parts.append(nbformat.v4.new_markdown_cell(text, metadata=dict(cell.metadata)))
    return parts


def split_text(text: str) -> list[str]:
    """Parts of a Markdown text that begin with its headings; a comment in code is none.

    Args:
        text: Markdown.
    """
    parts = [""]
    for piece in FENCE.split(text):
        if piece.startswith("```"):
            parts[-1] += piece
            continue
        first, *others = HEADING.split(piece)
        parts[-1] += first
        parts += others
    return [part for part in parts if part.strip()]


def mark_slides(cells: Sequence[NotebookNode]) -> None:
    """Say for each cell where it goes: headings begin slides, code joins the text before it.

    Args:
        cells: of a notebook; their metadata are changed.
    """
    before = ""
    for cell in cells:
        if "setup" in cell.metadata.get("tags", []):
            kind = "skip"
        elif HEADING.match(cell.source) and cell.cell_type == "markdown":
            kind = "slide"
        elif cell.cell_type == "code" and before == "markdown":
            kind = "-"
        else:
            kind = "subslide"
        cell.metadata["slideshow"] = {"slide_type": kind}
        before = cell.cell_type


if __name__ == "__main__":
    sys.exit(main())
