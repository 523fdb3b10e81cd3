"""What keeps the packages small and readable: budgets, imports, tests, files. Nothing is run."""

import ast
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UTILS, STUDIES, TOOLS, SITE, TESTS = map(
    ROOT.joinpath, ["swys_utils", "swys_studies", "tools", "site", "tests"]
)
SOURCES = {
    path: path.read_text(encoding="utf-8")
    for folder in (UTILS, STUDIES, TOOLS, SITE)
    for path in folder.glob("*.py")
}
ORDER = re.findall(
    r"`(\w+)`", SOURCES[UTILS / "__init__.py"].split("named before it:")[1].split('"""')[0]
)


def test_folders_stay_within_their_budget():
    for folder, budget in {UTILS: 2200, STUDIES: 2200, TOOLS: 300, SITE: 240, TESTS: 2800}.items():
        counts = {
            path: len(path.read_text(encoding="utf-8").splitlines())
            for path in folder.rglob("*.py")
        }
        assert sum(counts.values()) <= budget, (
            f"{folder.name}: {sum(counts.values())} lines: {counts}"
        )


def test_modules_functions_and_classes_stay_short_without_escaping_the_formatter():
    limits, found = {ast.FunctionDef: 50, ast.ClassDef: 200}, []
    for path, source in SOURCES.items():
        if len(source.splitlines()) > 260 or re.search(r"#\s*fmt:\s*(skip|off)", source):
            found.append(
                f"{path.name}: {len(source.splitlines())} lines, or a line that is not formatted"
            )
        for node in ast.walk(ast.parse(source)):
            if type(node) in limits and node.end_lineno - node.lineno >= limits[type(node)]:
                found.append(f"{path.name}: {node.name} is longer than {limits[type(node)]} lines")
            if isinstance(node, ast.FunctionDef):
                names = {a.arg for a in ast.walk(node.args) if isinstance(a, ast.arg)} - {
                    "self",
                    "cls",
                }
                found += (
                    [f"{path.name}: {node.name} has {len(names)} parameters"]
                    if len(names) > 8
                    else []
                )
    assert not found, "\n".join(found)


def test_a_module_imports_only_earlier_ones_of_its_package_and_never_the_studies():
    modules = {path.stem: source for path, source in SOURCES.items() if path.parent == UTILS}
    assert set(ORDER) == set(modules) - {"__init__", "__main__"}
    for at, name in enumerate(ORDER):
        found = re.findall(r"^ *from \.(\w*) import (\w+)", modules[name], re.MULTILINE)
        imported = {module or what for module, what in found}
        assert imported <= set(ORDER[:at]), f"{name} imports {imported}"
        assert not re.search(r"^ *(from|import) swys_", modules[name], re.MULTILINE), name
    assert not re.search(r"^(from|import) swys_", modules["__main__"], re.MULTILINE), (
        "late, for a command"
    )


def test_every_public_name_of_the_thin_package_is_tested():
    tests = "\n".join(path.read_text(encoding="utf-8") for path in TESTS.rglob("*.py"))
    code = "\n".join(source for path, source in SOURCES.items() if path.parent == UTILS)
    names = re.findall(r"^(?:def|class) ([a-zA-Z]\w*)", code, re.MULTILINE)
    assert len(names) > 50 and not [name for name in names if not re.search(rf"\b{name}\b", tests)]


def test_no_pickle_and_no_huge_file_is_tracked():
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True
    ).stdout
    sizes = [
        path.stat().st_size
        for name in listed.decode().split("\0")
        if (path := ROOT / name).is_file()
    ]
    assert len(sizes) > 100 and max(sizes) <= 50e6 and sum(sizes) < 230e6
    assert not re.findall(r"\S+\.(?:pkl|pickle|pth?|ckpt|bin)\0", listed.decode())
