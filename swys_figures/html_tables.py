"""Rows as a table of HTML, for widgets."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence


def html_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows as a table.

    Args:
        rows: mappings with the same keys, the names of the columns.
    """
    head = "".join(f"<th scope='col'>{html.escape(key)}</th>" for key in rows[0])
    lines = [f"<tr>{head}</tr>"]
    for row in rows:
        cells = "".join(f"<td>{html.escape(value)}</td>" for value in row.values())
        lines.append(f"<tr>{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"
