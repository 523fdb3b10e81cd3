"""Numbers in the tables of README.md and FINDINGS.md."""

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
