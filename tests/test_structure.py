"""What keeps the packages small and readable: budgets, imports, docstrings, files. Nothing is run."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
UTILS, STUDIES, TOOLS, SITE, TESTS = map(ROOT.joinpath, "swys_utils swys_studies tools site tests".split())
TREES = {
    path: ast.parse(path.read_text(encoding="utf-8"))
    for folder in (UTILS, STUDIES, TOOLS, SITE)
    for path in sorted(folder.glob("*.py"))
}
ORDER = re.findall(r"`(\w+)`", ast.get_docstring(TREES[UTILS / "__init__.py"]).split("named before it:")[1])
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
MACHINE_PATH = re.compile(r"(?<![\w.])/(work|tmp|root|home|Users|content)/\S*")


def lines_of(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def tracked_files() -> list[Path]:
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    return [path for name in names.decode().split("\0") if name and (path := ROOT / name).is_file()]


def public(tree: ast.Module) -> list:
    return [
        node
        for node in tree.body
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and not node.name.startswith("_")
    ]


def imports(path: Path, nodes=None) -> set[str]:
    """Modules, as `package.module`, that a module (or only these nodes of it) imports, late ones included."""
    found = set()
    for node in nodes or ast.walk(TREES[path]):
        if isinstance(node, ast.ImportFrom):
            name = f"{path.parent.name}.{node.module or ''}".rstrip(".") if node.level else node.module
            found |= {name} if "." in name else {f"{name}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize(
    "folder, budget",
    [(UTILS, 2200), (STUDIES, 2200), (TOOLS, 300), (SITE, 240), (TESTS, 3700)],
    ids=lambda x: str(x)[-12:],
)
def test_folders_stay_within_their_budget(folder, budget):
    counts = {path.relative_to(folder): lines_of(path) for path in folder.rglob("*.py")}
    assert sum(counts.values()) <= budget, f"{sum(counts.values())} lines: {counts}"


def test_modules_functions_and_classes_stay_short():
    found = [f"{path.name}: {lines_of(path)} lines" for path in TREES if lines_of(path) > 260]
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if not isinstance(node, (*FUNCTIONS, ast.ClassDef)):
                continue
            length = node.end_lineno - node.lineno + 1
            if length > (200 if isinstance(node, ast.ClassDef) else 50):
                found.append(f"{path.name}: {node.name} has {length} lines")
            if isinstance(node, FUNCTIONS):
                names = [a.arg for a in node.args.posonlyargs + node.args.args + node.args.kwonlyargs]
                if len(set(names) - {"self", "cls"}) > 8:
                    found.append(f"{path.name}: {node.name} has {len(names)} parameters")
    assert not found, "\n".join(found)


def test_no_line_escapes_the_formatter():
    escape = re.compile(r"#\s*fmt:\s*(skip|off)")
    assert not [path.name for path in TREES if escape.search(path.read_text(encoding="utf-8"))]


def test_every_module_is_named_in_the_reading_order():
    assert set(ORDER) == {path.stem for path in UTILS.glob("*.py")} - {"__init__", "__main__"}


def test_a_module_imports_only_earlier_ones():
    found = []
    for at, name in enumerate(ORDER):
        ours = {full for full in imports(UTILS / f"{name}.py") if full.startswith("swys_utils.")}
        found += [f"{name} imports {late}" for late in ours - {f"swys_utils.{early}" for early in ORDER[:at]}]
    assert not found


def test_the_thin_package_does_not_know_the_studies():
    def users(paths, nodes=None):
        return [p.name for p in paths if any(name.startswith("swys_studies") for name in imports(p, nodes))]

    assert users(path for path in TREES if path.parent == UTILS and path.name != "__main__.py") == []
    main = UTILS / "__main__.py"
    assert users([main], TREES[main].body) == [], "it is imported late, when a command needs it"


def test_public_functions_and_classes_have_docstrings():
    bare = [
        f"{p.name}: {node.name}"
        for p, t in TREES.items()
        for node in public(t)
        if not ast.get_docstring(node)
    ]
    assert not bare


def test_every_public_name_of_the_thin_package_is_tested():
    tests = "\n".join(path.read_text(encoding="utf-8") for path in TESTS.rglob("*.py"))
    names = [node.name for path, tree in TREES.items() if path.parent == UTILS for node in public(tree)]
    assert not [name for name in names if not re.search(rf"\b{name}\b", tests)]


def test_no_pickle_and_no_huge_file_is_tracked():
    files = tracked_files()
    assert not [
        path.name for path in files if path.suffix in (".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".bin")
    ]
    assert not [path.name for path in files if path.stat().st_size > 50e6]
    assert sum(path.stat().st_size for path in files) < 245e6


def test_notebooks_show_no_path_of_a_machine():
    found = []
    for path in (ROOT / "notebooks").rglob("*.ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            for output in cell.get("outputs", []):
                data = {kind: text for kind, text in output.get("data", {}).items() if "image/" not in kind}
                text = "".join(output.get("text", "")) + json.dumps(data)
                text = re.sub(r"base64,[^\"')]+", "", text)  # pictures can spell anything
                found += [f"{path.name}: {match.group()}" for match in MACHINE_PATH.finditer(text)]
    assert not found
