"""Cells as a table, on a console and in Markdown."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

_WIDE = 10_000
"""More letters than any row of a table has."""


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


def in_markdown(tables: Iterable[tuple[str, Table]]) -> str:
    """Return tables as text for a page, each below its headline in bold.

    Example:
        >>> print(in_markdown([("Two", on_screen(["", "n"], [["a", "1"], ["b", "20"]]))]), end="")
        **Two**
        <BLANKLINE>
        |   |  n |
        |---|----|
        | a |  1 |
        | b | 20 |
        <BLANKLINE>
    """
    page = Console(file=io.StringIO(), width=_WIDE, color_system=None, markup=False, highlight=False, emoji=False)
    with page.capture() as text:
        for headline, table in tables:
            table.box, table.show_edge, table.pad_edge, table.padding = box.MARKDOWN, True, True, (0, 1)
            page.print(f"**{headline}**", table)  # the edges above and below the table are empty lines
    return "\n".join(line.rstrip() for line in text.get().splitlines()) + "\n"
