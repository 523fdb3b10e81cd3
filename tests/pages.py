"""Numbers in the tables of README.md and FINDINGS.md."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ROOT / "checkpoints" / "pneumoniamnist"
NUMBER = re.compile(r"(?<![\w.])[+-]?\d*\.?\d+")


def page(name: str) -> str:
    """The text of a page of the repository's first folder."""
    return (ROOT / name).read_text(encoding="utf-8")


def numbers_in(text: str) -> list[float]:
    return [float(number) for number in NUMBER.findall(text)]


def row_beside(begin: str, text: str) -> list[float]:
    """The numbers of the row of a table that begins so, right of its first cell."""
    (row,) = re.findall(rf"^\| {re.escape(begin)} \| (.*) \|$", text, re.MULTILINE)
    return numbers_in(row)


def ring_tinys(kind: str, patch: int = 7) -> list[dict]:
    """The six shipped Tinys of a kind, by seed: a side of patches in px, X-rays with one ring."""
    content = json.loads((SHIPPED / "planted.json").read_text("utf-8"))
    asked = (kind, "vit_tiny", patch, "corner")
    found = []
    for unit in content["units"]:
        described = tuple(unit[key] for key in ("kind", "model", "patch", "mark"))
        if described == asked:
            found.append(unit)
    found.sort(key=lambda unit: unit["seed"])
    assert [unit["seed"] for unit in found] == list(range(6))
    return found
