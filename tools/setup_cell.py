"""What every notebook has in common, from one source: the first code cell and, with an address, badges.

python tools/setup_cell.py --check    # exit 1 when a notebook or the README differs
python tools/setup_cell.py --write    # `make badges`: both into every notebook, and badges into the README

The address is `[tool.swys] repository` in pyproject.toml; while it is empty there is no badge anywhere.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks"
CORE = sorted(FOLDER.glob("0*.ipynb"))
EXTRAS = sorted((FOLDER / "extras").glob("*.ipynb"))
BADGES = re.compile(r"<!-- badges -->.*?<!-- /badges -->\n?", re.DOTALL)

SOURCE = """\
# The same first cell in every notebook; its one source is tools/setup_cell.py.
import importlib.util
import os
import subprocess
import sys

clone = [folder for folder in ("..", "../..") if os.path.isdir(f"{folder}/swys_utils")]  # not installed
sys.path += map(os.path.abspath, [*clone, "SeeWhatYouShrink"])
if importlib.util.find_spec("swys_utils") is None:  # as on Colab
    url = os.environ.get("SWYS_REPO_URL", "{repository}")
    assert url, "first run os.environ['SWYS_REPO_URL'] = 'https://...', the address of this repository"
    subprocess.run(["git", "clone", "-q", "--depth", "1", url, "SeeWhatYouShrink"], check=True)
    %pip install -q -e ./SeeWhatYouShrink[export]
    importlib.invalidate_caches()
from swys_utils.data import notebook_setup

DATASET = os.environ.get("SWYS_DATASET") or "pneumoniamnist"  # or the name of any other 2D MedMNIST set
data, P, device = notebook_setup(DATASET)"""


def address() -> str:
    """The repository's address, without a slash at its end; empty while nobody has given it."""
    found = re.search(
        r'^\[tool\.swys\]\nrepository = "(.*?)/?"',
        (ROOT / "pyproject.toml").read_text(),
        re.MULTILINE,
    )
    return found[1]


def badges(repository: str, notebook: str = "") -> str:
    """Lines of Markdown between two comments, for a notebook (its path from the root) or for the README."""
    if not repository:
        return ""
    name = repository.removeprefix("https://github.com/")
    opened = f"blob/main/{notebook or 'notebooks/01_data.ipynb'}"
    colab = f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/{name}/{opened})"
    binder = f"[![Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/{name}/main?urlpath=lab/tree/{opened[10:]})"
    state = f"[![CI]({repository}/actions/workflows/ci.yml/badge.svg)]({repository}/actions/workflows/ci.yml)"
    lines = [
        colab,
        binder,
        f"[all notebooks]({repository}#the-six-notebooks)" if notebook else state,
    ]
    return "\n".join(["<!-- badges -->", *lines, "<!-- /badges -->", ""])


def wanted(path: Path, repository: str) -> str | nbformat.NotebookNode:
    """The file at ``path`` as it has to be."""
    if path.suffix == ".md":
        text = BADGES.sub("", path.read_text(encoding="utf-8"))
        return re.sub(r"\A(# .*\n)", rf"\1{badges(repository)}", text)
    notebook = nbformat.read(path, as_version=4)
    setup = next(cell for cell in notebook.cells if cell.cell_type == "code")
    setup.source, setup.metadata["tags"] = SOURCE.replace("{repository}", repository), ["setup"]
    opening = notebook.cells[0]
    here = path.relative_to(ROOT).as_posix()
    opening.source = re.sub(
        r"\A(# .*\n)", rf"\1{badges(repository, here)}", BADGES.sub("", opening.source)
    )
    return notebook


def main(mode: str) -> int:
    """Check or write; returns 1 when a file differs from what it has to be."""
    failed, repository = 0, address()
    for path in [*CORE, *EXTRAS, ROOT / "README.md"]:
        new = wanted(path, repository)
        old = (
            path.read_text(encoding="utf-8")
            if path.suffix == ".md"
            else nbformat.read(path, as_version=4)
        )
        if new == old:
            continue
        print(
            f"{path.name}: "
            + ("written" if mode == "--write" else "differs; python tools/setup_cell.py --write")
        )
        if mode == "--check":
            failed = 1
        elif path.suffix == ".md":
            path.write_text(new, encoding="utf-8")
        else:
            nbformat.write(new, path)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]) if sys.argv[1:] in (["--check"], ["--write"]) else __doc__)
