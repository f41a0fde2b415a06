"""Cells as a table, on a console and in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.table import Table

Cells = tuple[str, Sequence[str], Sequence[Sequence[str]]]
"""A headline, headings, and the cells of every row."""


def on_screen(headings: Sequence[str], rows: Sequence[Sequence[str]], texts: Sequence[str] = ("",)) -> Table:
    """Return a table for a console.

    Args:
        headings: of the columns.
        rows: their cells.
        texts: headings of columns that hold words; the others hold numbers.
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in headings:
        table.add_column(heading, justify="left" if heading in texts else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def in_markdown(tables: Iterable[Cells], texts: Sequence[str] = ("",)) -> str:
    """Return tables, each below its headline in bold.

    Example:
        >>> print(in_markdown([("Two", ["", "n"], [["a", "1"], ["b", "2"]])]), end="")
        **Two**
        <BLANKLINE>
        |  | n |
        | --- | ---: |
        | a | 1 |
        | b | 2 |
    """
    parts = []
    for headline, headings, rows in tables:
        head = [headings, ["---" if heading in texts else "---:" for heading in headings]]
        parts += [f"**{headline}**", "\n".join(f"| {' | '.join(row)} |" for row in [*head, *rows])]
    return "\n\n".join(parts) + "\n"
