import ast
import re
from pathlib import Path

import swys_utils

FOLDER = Path(swys_utils.__file__).parent
ORDER = re.findall(r"`(\w+)`", swys_utils.__doc__.split("own:")[1])


def test_every_module_is_named_in_the_order():
    assert set(ORDER) == {path.stem for path in FOLDER.glob("*.py")} - {"__init__", "__main__"}


def test_imports_go_one_way():
    for position, name in enumerate(ORDER):
        tree = ast.parse((FOLDER / f"{name}.py").read_text())
        used = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 1}
        assert used <= set(ORDER[:position]), f"{name} imports {sorted(used - set(ORDER[:position]))}"


def test_public_functions_have_docstrings():
    for name in ORDER:
        for node in ast.parse((FOLDER / f"{name}.py").read_text()).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and len(node.body) > 3:
                assert ast.get_docstring(node), f"{name}.{node.name}"
