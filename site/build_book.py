"""The book in build/site/: pages, notebooks as they are stored, docstrings; it opens from disk.

Sphinx reads what is gathered in build/book/. A warning is an error, and so is a link inside the
book that leads nowhere.
"""

from __future__ import annotations

import posixpath
import re
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]
from covers import draw_covers  # noqa: E402
from setup_cell import CORE, EXTRAS, address  # noqa: E402

BUILD = ROOT / "build"
SITE = ROOT / "site"
SOURCE = BUILD / "book"
TARGET = BUILD / "site"
REPOSITORY = address()
PACKAGES = ("swys_utils", "swys_figures", "swys")  # of the reference
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)")
# of the README: its first picture, the caption, and the answers, up to the commands
FINDING = re.compile(r"^!\[[^\]]*\]\(notebooks/.*?(?=^```)", re.MULTILINE | re.DOTALL)
FINDING_PLACE = "<!-- the finding of the README -->"
OPTIONAL = {  # what a page shows where it was made before the book -> its file
    "demo": "demo.html",
    "compare": "compare/index.html",
}
NEEDED = (
    "sphinx",
    "myst_nb",
    "pydata_sphinx_theme",
    "sphinx_design",
    "sphinx_copybutton",
    "sphinx-mathjax-offline",  # its folder is named with hyphens
)


def main() -> int:
    """Build the book and check its links.

    Returns:
        The exit code.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        print(f"book: {missing[0]} is missing; pip install -e '.[site]'", file=sys.stderr)
        return 1
    started = time.time()
    gather()
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    for tag, file in OPTIONAL.items():
        if (TARGET / file).is_file():
            command += ["-t", tag]
    command += ["-c", str(SITE), "-d", str(BUILD / "doctrees"), str(SOURCE), str(TARGET)]
    built = subprocess.run(command)
    if built.returncode:
        return built.returncode
    broken = broken_links(TARGET)
    for line in broken:
        print(f"book: {line}", file=sys.stderr)
    seconds = time.time() - started
    print(f"book: {TARGET.relative_to(ROOT)}/index.html, {seconds:.0f} s")
    return 1 if broken else 0


def gather() -> None:
    """Put everything that Sphinx reads into build/book/."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    shutil.copytree(SITE / "book", SOURCE)
    shutil.copytree(ROOT / "notebooks" / "images", SOURCE / "notebooks" / "images")
    shutil.copy(ROOT / "CHANGELOG.md", SOURCE / "about" / "changelog.md")
    findings = as_in_book((ROOT / "FINDINGS.md").read_text(encoding="utf-8"), ROOT / "FINDINGS.md")
    (SOURCE / "findings.md").write_text(findings, encoding="utf-8")
    finding = FINDING.search((ROOT / "README.md").read_text(encoding="utf-8"))
    for page in SOURCE.rglob("*.md"):
        text = page.read_text(encoding="utf-8")  # links are written as they work in a clone
        page.write_text(text.replace("](../../../notebooks/", "](../notebooks/"), encoding="utf-8")
    index = SOURCE / "index.md"
    text = index.read_text(encoding="utf-8")
    text = text.replace(FINDING_PLACE, finding[0] if finding else "")
    index.write_text(text, encoding="utf-8")
    (SOURCE / "notebooks" / "extras").mkdir(exist_ok=True)
    for path in CORE + EXTRAS:
        notebook = as_shown(nbformat.read(path, as_version=4), path)
        nbformat.write(notebook, SOURCE / path.relative_to(ROOT))
    (SOURCE / "reference").mkdir(exist_ok=True)
    for package in PACKAGES:
        write_reference(package)


def as_shown(notebook: nbformat.NotebookNode, path: Path) -> nbformat.NotebookNode:
    """A notebook as the book shows it: its setup cell folded, its links those of the book, and
    pictures to cover in place of widgets.

    Args:
        notebook: as it is stored; changed in place.
        path: of its file.

    Returns:
        The notebook.
    """
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = as_in_book(cell.source, path)
        elif "setup" in cell.metadata.get("tags", []):
            cell.metadata.tags.append("hide-input")
    draw_covers(notebook)
    return notebook


def as_in_book(text: str, path: Path) -> str:
    """Markdown with the links of the book.

    Args:
        text: of a page, or of a part of one.
        path: of its file.
    """
    return LINK.sub(lambda link: book_link(link[1], link[2], path), text)


def book_link(text: str, target: str, path: Path) -> str:
    """A link of a notebook or page as its page in the book needs it.

    Args:
        text: of the link.
        target: where it leads.
        path: of the notebook or page.

    Returns:
        Markdown. Notebooks and site/book are pages, and the README is the first. Other files lie
        in the repository; as long as that has no address, only the text stays.
    """
    is_outside = re.match(r"\w+:|#", target)
    if is_outside or re.search(r"\.(ipynb|png)(#.*)?$", target):
        return f"[{text}]({target})"
    folder = path.parent.relative_to(ROOT).as_posix()
    file = posixpath.normpath(f"{folder}/{target}")
    if file.startswith("README.md"):
        return f"[{text}]({posixpath.relpath('index.md', folder)})"
    if file.startswith("site/book/"):
        return f"[{text}]({posixpath.relpath(file.removeprefix('site/book/'), folder)})"
    if not REPOSITORY:
        return text
    return f"[{text}]({REPOSITORY}/blob/main/{file})"


def write_reference(package: str) -> None:
    """Write a page of each module of a package, and one that lists them.

    Args:
        package: its name.
    """
    names = []
    for path in sorted((ROOT / package).glob("[!_]*.py")):
        name = f"{package}.{path.stem}"
        title = f"``{name}``"
        lines = [title, "=" * len(title), "", f".. automodule:: {name}", ""]
        (SOURCE / "reference" / f"{name}.rst").write_text("\n".join(lines), encoding="utf-8")
        names.append(name)
    title = f"``{package}``"
    lines = [title, "=" * len(title), "", f".. automodule:: {package}", "   :no-members:", ""]
    lines += [".. toctree::", "   :maxdepth: 1", ""]
    lines += [f"   {name}" for name in names]
    text = "\n".join([*lines, ""])
    (SOURCE / "reference" / f"{package}.rst").write_text(text, encoding="utf-8")


def broken_links(folder: Path) -> list[str]:
    """The links inside a site that lead nowhere.

    Args:
        folder: with pages of HTML.

    Returns:
        A line for each: the page, and where its link leads.
    """
    anchors = {}
    links = []
    for path in folder.rglob("*.html"):
        if "_static" in path.parts:  # templates of the theme
            continue
        page = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        anchors[path.resolve()] = {part["id"] for part in page.select("[id]")}
        for part in page.select("a[href], img[src], script[src], link[href], iframe[src]"):
            target = part.get("href") or part.get("src")
            if not re.match(r"\w+:", target):
                links.append((path, target))
    broken = []
    for path, target in links:
        file_name, _, anchor = target.partition("#")
        file_name = file_name.partition("?")[0]
        file = (path.parent / file_name).resolve() if file_name else path.resolve()
        is_page = file in anchors
        is_outside = folder.resolve() not in file.parents
        has_no_anchor = anchor and is_page and anchor not in anchors[file]
        if not file.is_file() or is_outside or has_no_anchor:
            broken.append(f"{path.relative_to(folder)}: no {target}")
    return broken


if __name__ == "__main__":
    sys.exit(main())
