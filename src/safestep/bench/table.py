"""The rows of a benchmark as tables, on a console and in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby

from rich.table import Table

from safestep.bench import row_text
from safestep.bench.grid import in_markdown, on_screen
from safestep.bench.row_text import Record

COLUMNS: Mapping[str, Callable[[Record], str]] = {
    "": row_text.who,
    "overhead (quartiles)": row_text.overhead,
    "mean": lambda row: row_text.percent(row["ratio_mean"]),
    "ms a step": lambda row: "–" if row["ms_median"] is None else f"{row['ms_median']:.3g}",
    "µs added": lambda row: "–" if row.get("added_us") is None else f"{row['added_us']:.0f}",
    "peak memory": row_text.memory,
    "first steps": lambda row: row_text.percent(row["first_peak_ratio"]),
    "how measured": row_text.tiers,
}
"""Headings, and what a row shows below them. Peak memory is that of the steps after the first four."""
_TEXTS = ("", "how measured")
"""Columns of words; the others are numbers."""


def tables(rows: Sequence[Record]) -> Iterator[tuple[str, Table]]:
    """Return a headline and a table for each case: sizes, speed and peak of its plain step above, rows below."""
    for headline, cells in _cells(rows):
        yield headline, on_screen(list(COLUMNS), cells, _TEXTS)


def markdown(rows: Sequence[Record]) -> str:
    """Return the same as text for a page."""
    return in_markdown(((headline, list(COLUMNS), cells) for headline, cells in _cells(rows)), _TEXTS)


def _cells(rows: Sequence[Record]) -> Iterator[tuple[str, list[list[str]]]]:
    """Return the headline and the cells of each case; one that several axes have in common comes once."""
    told = set()
    for about, group in groupby(rows, key=lambda row: row["about"]):
        members = list(group)
        if about not in told:
            told.add(about)
            yield f"{about}{_plain(members[0])}", [[show(row) for show in COLUMNS.values()] for row in members]


def _plain(row: Record) -> str:
    """Return what the plain step, the first row of a case, costs."""
    parts = [] if row["ms_median"] is None else [f"{row['ms_median']:.3g} ms, {row['rows_per_ms']:.3g} rows a ms"]
    parts += [] if row["peak_bytes"] is None else [f"peak {row_text.size(row['peak_bytes'])}"]
    return f" · plain step {', '.join(parts)}" if parts else ""
