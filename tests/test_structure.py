"""What keeps the code readable: sizes, density, imports that go one way. Nothing is run."""

import ast
import io
import re
import subprocess
import tokenize
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ["swys_utils", "swys_figures", "swys", "swys_studies"]  # in order of imports
PYTHON = [
    path for name in [*PACKAGES, "tools", "site", "tests"] for path in (ROOT / name).rglob("*.py")
]
NOT_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
    tokenize.ENCODING,
}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(path: Path) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(parsed(path)) if isinstance(node, ast.FunctionDef)]


def docstring_lines(tree: ast.Module) -> set[int]:
    lines: set[int] = set()
    for node in ast.walk(tree):
        has_docstring = isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module)
        if has_docstring and ast.get_docstring(node):
            docstring = node.body[0]
            lines.update(range(docstring.lineno, docstring.end_lineno + 1))
    return lines


def tokens_by_line(source: str) -> Counter:
    """Number of tokens on each line with code; docstrings and comments are left out.

    An f-string is one token, as it was before Python 3.12 looked into it.
    """
    skipped = docstring_lines(ast.parse(source))
    counts: Counter = Counter()
    depth = 0  # of f-strings within f-strings
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        line = token.start[0]
        kind = tokenize.tok_name[token.type]
        depth -= kind == "FSTRING_END"
        if depth == 0 and token.type not in NOT_CODE and line not in skipped:
            counts[line] += kind != "FSTRING_START"
        depth += kind == "FSTRING_START"
    return counts


def tokens_of(path: Path) -> list[int]:
    """Number of tokens on each line with code of a file."""
    return list(tokens_by_line(path.read_text(encoding="utf-8")).values())


def tokens_of_package(name: str) -> list[int]:
    """Number of tokens on each line with code, of all files below a folder."""
    counts: list[int] = []
    for path in sorted((ROOT / name).rglob("*.py")):
        counts += tokens_of(path)
    return counts


def packs(tree: ast.Module) -> list[ast.Assign]:
    """Assignments that bind several separate values to several names; a swap is none."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Tuple):
            continue
        target = node.targets[0]
        if not isinstance(target, ast.Tuple):
            continue
        names = {ast.unparse(element) for element in target.elts}
        values = {ast.unparse(element) for element in node.value.elts}
        if names != values:
            found.append(node)
    return found


@pytest.mark.parametrize("path", PYTHON, ids=relative)
def test_a_module_has_at_most_400_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("path", PYTHON, ids=relative)
def test_a_function_has_at_most_50_lines(path):
    lengths = {node.name: node.end_lineno - node.lineno + 1 for node in functions(path)}
    assert {name: length for name, length in lengths.items() if length > 50} == {}


@pytest.mark.parametrize("path", PYTHON, ids=relative)
def test_a_function_has_at_most_8_parameters(path):
    counts = {}
    for node in functions(path):
        names = {argument.arg for argument in ast.walk(node.args) if isinstance(argument, ast.arg)}
        counts[node.name] = len(names - {"self", "cls"})
    assert {name: count for name, count in counts.items() if count > 8} == {}


@pytest.mark.parametrize("path", PYTHON, ids=relative)
def test_an_assignment_does_not_pack_separate_values(path):
    assert [f"line {node.lineno}: {ast.unparse(node)}" for node in packs(parsed(path))] == []


@pytest.mark.parametrize("path", PYTHON, ids=relative)
def test_nothing_escapes_the_formatter(path):
    assert not re.search(r"^\s*# fmt: *(skip|off)", path.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize(
    "statement",
    ["a, b = f(x), g(y)", "(a, b), c = x, y", "a, b = a + 1, b + 1"],
)
def test_a_pack_is_recognised(statement):
    assert packs(ast.parse(statement))


@pytest.mark.parametrize("statement", ["a, b = b, a", "a, b = pair", "for a, b in pairs: pass"])
def test_a_swap_or_an_unpacking_is_no_pack(statement):
    assert not packs(ast.parse(statement))


@pytest.mark.parametrize("name", [*PACKAGES, "tests"])
def test_a_line_has_at_most_9_5_tokens_on_average(name):
    counts = tokens_of_package(name)
    assert sum(counts) / len(counts) <= 9.5


@pytest.mark.parametrize("name", [*PACKAGES, "tests"])
def test_one_line_in_a_hundred_has_more_than_30_tokens(name):
    counts = tokens_of_package(name)
    assert sum(count > 30 for count in counts) <= 0.01 * len(counts)


def test_the_helper_stays_thin():
    """Packing cannot shrink tokens."""
    assert sum(tokens_of_package("swys_utils")) < 38_200


def reading_order() -> list[str]:
    """Modules of swys_utils in the order that its docstring gives."""
    docstring = ast.get_docstring(parsed(ROOT / "swys_utils" / "__init__.py"))
    return re.findall(r"`(\w+)`", docstring.split("named before it:")[1])


def imported_modules(path: Path) -> set[str]:
    """Absolute names of what a module of ours imports, wherever in the file."""
    package = path.parent.name
    names = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = f"{package}.{node.module or ''}".rstrip(".") if node.level else node.module
            names |= {base} if node.module else {f"{base}.{alias.name}" for alias in node.names}
    return names


def test_the_reading_order_names_every_module():
    modules = {path.stem for path in (ROOT / "swys_utils").glob("*.py")}
    assert sorted(reading_order()) == sorted(modules - {"__init__"})


@pytest.mark.parametrize("name", reading_order())
def test_a_module_of_the_helper_imports_only_earlier_ones(name):
    earlier = reading_order()[: reading_order().index(name)]
    imported = imported_modules(ROOT / "swys_utils" / f"{name}.py")
    ours = {module.split(".")[1] for module in imported if module.startswith("swys_utils.")}
    assert ours <= set(earlier)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_earlier_ones(package):
    allowed = PACKAGES[: PACKAGES.index(package) + 1]
    for path in (ROOT / package).glob("*.py"):
        imported = {module.split(".")[0] for module in imported_modules(path)}
        assert imported & set(PACKAGES) <= set(allowed), relative(path)


def graph_of(package: str) -> dict[str, set[str]]:
    """Module -> modules of the same package that it imports."""
    graph = {}
    for path in (ROOT / package).glob("*.py"):
        ours = {module for module in imported_modules(path) if module.startswith(f"{package}.")}
        graph[path.stem] = {module.split(".")[1] for module in ours}
    return graph


@pytest.mark.parametrize("package", ["swys", "swys_studies"])
def test_no_module_imports_itself_through_others(package):
    graph = graph_of(package)
    done: set[str] = set()
    while len(done) < len(graph):
        free = {name for name in graph if name not in done and graph[name] <= done}
        assert free, f"a circle among {sorted(set(graph) - done)}"
        done |= free


def public_names(package: str) -> list[str]:
    """Functions and classes of a package that other modules may use."""
    names = []
    for path in (ROOT / package).glob("*.py"):
        definitions = [node for node in parsed(path).body if hasattr(node, "name")]
        names += [node.name for node in definitions if not node.name.startswith("_")]
    return names


def names_used_by_tests() -> set[str]:
    """Every name and attribute in the code of the tests; comments and strings do not count."""
    used: set[str] = set()
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Name):
                used.add(node.id)
            elif isinstance(node, ast.Attribute):
                used.add(node.attr)
    return used


def test_every_public_name_of_the_helper_is_used_by_a_test():
    untested = set(public_names("swys_utils")) - names_used_by_tests()
    assert sorted(untested) == []


def tracked_files() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("needs a clone made by git")
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    paths = [ROOT / name for name in listed.split("\0") if name]
    return [path for path in paths if path.is_file()]


def test_no_tracked_file_is_larger_than_50_mb():
    assert max(path.stat().st_size for path in tracked_files()) <= 50e6


def test_the_tree_stays_below_230_mb():
    assert sum(path.stat().st_size for path in tracked_files()) < 230e6


def test_no_pickle_is_tracked():
    pickles = {".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".bin"}
    assert [path for path in tracked_files() if path.suffix in pickles] == []
