"""The code of the how-to pages and of the pages for teachers, as a reader copies it."""

import re
import shlex
from pathlib import Path

import pytest

from swys import cli

BOOK = Path(__file__).resolve().parents[1] / "site" / "book"
PAGES = sorted([*BOOK.glob("how_to/*.md"), *BOOK.glob("teachers/*.md")])
BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NO_CODE = {"index"}  # pages that only lead to others

pytestmark = pytest.mark.slow


def blocks(path: Path) -> list[tuple[str, str]]:
    """Language and text of the blocks that are run."""
    return BLOCK.findall(path.read_text(encoding="utf-8"))


def run_commands(text: str) -> None:
    """Run the lines of a shell block; each is a call of swys."""
    for line in text.splitlines():
        program, *arguments = shlex.split(line, comments=True)
        assert program == "swys"
        assert cli.main(arguments) == 0, line


def runnable() -> list[Path]:
    return [path for path in PAGES if blocks(path)]


@pytest.mark.parametrize("path", runnable(), ids=lambda path: path.stem)
def test_the_code_of_the_page_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for language, text in blocks(path):
        if language == "bash":
            run_commands(text)
        else:
            exec(compile(text, path.name, "exec"), names)


@pytest.mark.parametrize("path", sorted(BOOK.glob("how_to/*.md")), ids=lambda path: path.stem)
def test_a_how_to_page_has_code(path):
    assert path.stem in NO_CODE or blocks(path)


@pytest.mark.parametrize("page", sorted(BOOK.rglob("*.md")), ids=lambda path: path.stem)
def test_links_of_a_page_work_in_a_clone(page):
    links = re.findall(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    inside = [link.split("#")[0] for link in links if not link.startswith(("http", "#"))]
    assert [link for link in inside if not (page.parent / link).exists()] == []
