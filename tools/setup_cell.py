"""What every notebook has in common: the first code cell and, with an address, badges.

python tools/setup_cell.py --check    # exit 1 when a notebook or the README differs
python tools/setup_cell.py --write    # `make badges`: write both into what differs

The address is `[tool.swys] repository` in pyproject.toml; while it is empty there is no badge.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
FOLDER = ROOT / "notebooks"
CORE = sorted(FOLDER.glob("0*.ipynb"))
EXTRAS = sorted((FOLDER / "extras").glob("*.ipynb"))
BADGES = re.compile(r"<!-- badges -->.*?<!-- /badges -->\n?", re.DOTALL)
TITLE = re.compile(r"\A# .*\n")

SOURCE = """\
# The same first cell in every notebook; its one source is tools/setup_cell.py.
import importlib.util
import os
import subprocess
import sys

# In a clone the package lies one or two folders up; it need not be installed.
clone = [folder for folder in ("..", "../..") if os.path.isdir(f"{folder}/swys_utils")]
sys.path += map(os.path.abspath, [*clone, "SeeWhatYouShrink"])
if importlib.util.find_spec("swys_utils") is None:  # as on Colab
    url = os.environ.get("SWYS_REPO_URL", "{repository}")
    setting = "os.environ['SWYS_REPO_URL'] = 'https://...'"
    assert url, f"first run {setting}, the address of this repository"
    subprocess.run(["git", "clone", "-q", "--depth", "1", url, "SeeWhatYouShrink"], check=True)
    %pip install -q -e ./SeeWhatYouShrink[export]
    importlib.invalidate_caches()
from swys_utils.data import notebook_setup

DATASET = os.environ.get("SWYS_DATASET") or "pneumoniamnist"  # or any other 2D MedMNIST set
# P, the profile, says how long a training may take and how many images are asked
data, P, device = notebook_setup(DATASET)"""


def address() -> str:
    """The repository's address, without a slash at its end; empty while nobody has given it."""
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    entry = re.search(r'^\[tool\.swys\]\nrepository = "(.*?)/?"', settings, re.MULTILINE)
    return entry[1] if entry else ""


def badges(repository: str, notebook: str = "") -> str:
    """Lines of Markdown between two comments.

    Args:
        repository: its address; without one there are no badges.
        notebook: the notebook that they open, its path from the root; empty for the README.
    """
    if not repository:
        return ""
    name = repository.removeprefix("https://github.com/")
    path = notebook or "notebooks/01_data.ipynb"
    colab = badge(
        "Open in Colab",
        "https://colab.research.google.com/assets/colab-badge.svg",
        f"https://colab.research.google.com/github/{name}/blob/main/{path}",
    )
    binder = badge(
        "Binder",
        "https://mybinder.org/badge_logo.svg",
        f"https://mybinder.org/v2/gh/{name}/main?urlpath=lab/tree/{path}",
    )
    workflow = f"{repository}/actions/workflows/ci.yml"
    if notebook:
        last = f"[all notebooks]({repository}#the-six-notebooks)"
    else:
        last = badge("CI", f"{workflow}/badge.svg", workflow)
    return "\n".join(["<!-- badges -->", colab, binder, last, "<!-- /badges -->", ""])


def badge(text: str, picture: str, target: str) -> str:
    """A picture that is a link, in Markdown.

    Args:
        text: what the picture says.
        picture: its address.
        target: where the link leads.
    """
    return f"[![{text}]({picture})]({target})"


def wanted(path: Path, repository: str) -> str | nbformat.NotebookNode:
    """A file as it has to be.

    Args:
        path: of a notebook, or of the README.
        repository: its address.

    Returns:
        Text for the README, else a notebook.
    """
    if path == README:
        return with_badges(README.read_text(encoding="utf-8"), badges(repository))
    notebook = nbformat.read(path, as_version=4)
    setup = next(cell for cell in notebook.cells if cell.cell_type == "code")
    setup.source = SOURCE.replace("{repository}", repository)
    setup.metadata["tags"] = ["setup", "hide-input"]  # folded in the book
    setup.metadata["jupyter"] = {"source_hidden": True}  # and in JupyterLab
    opening = notebook.cells[0]
    lines = badges(repository, path.relative_to(ROOT).as_posix())
    opening.source = with_badges(opening.source, lines)
    return notebook


def with_badges(text: str, lines: str) -> str:
    """Put badges below the title of a text, in place of those that it has.

    Args:
        text: Markdown that begins with a title.
        lines: the badges.
    """
    bare = BADGES.sub("", text)
    return TITLE.sub(lambda title: title[0] + lines, bare)


def main(mode: str) -> int:
    """Check all files, or write those that differ from what they have to be.

    Args:
        mode: "--check" or "--write".

    Returns:
        The exit code: 1 when a file differs and was not written.
    """
    repository = address()
    exit_code = 0
    for path in [*CORE, *EXTRAS, README]:
        new = wanted(path, repository)
        if isinstance(new, str):
            old = path.read_text(encoding="utf-8")
        else:
            old = nbformat.read(path, as_version=4)
        if new == old:
            continue
        if mode == "--check":
            print(f"{path.name}: differs; python tools/setup_cell.py --write")
            exit_code = 1
            continue
        print(f"{path.name}: written")
        if isinstance(new, str):
            path.write_text(new, encoding="utf-8")
        else:
            nbformat.write(new, path)
    return exit_code


if __name__ == "__main__":
    if sys.argv[1:] not in (["--check"], ["--write"]):
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
