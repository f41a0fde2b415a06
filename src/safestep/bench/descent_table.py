"""The rows of `safestep bench descent` as tables, on a console and in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby

from safestep.bench import row_text
from safestep.bench.row_text import Record


def _number(value: float) -> str:
    """Return a number with three digits at least.

    Example:
        >>> _number(11.42), _number(2009.7)
        ('11.4', '2,010')
    """
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _quartiles(row: Record, name: str) -> str:
    return f"{_number(row[f'{name}_median'])} ({_number(row[f'{name}_low'])} to {_number(row[f'{name}_high'])})"


def _faster(column: str) -> Callable[[Record], str]:
    def told(row: Record) -> str:
        return f"{_quartiles(row, column)}, aim {row[f'{column}_aim']:,.0f}" if f"{column}_aim" in row else ""

    return told


_TIMES: Mapping[str, Callable[[Record], str]] = {
    "": lambda row: str(row["method"]),
    "ns a step (quartiles)": lambda row: _quartiles(row, "ns"),
    "times faster than floats": _faster("floats"),
    "than torch.optim run by run": _faster("alone"),
    "runs timed": lambda row: str(row["timed_runs"]),
    "apart without noise": lambda row: f"{row['noiseless_difference']:.1g}",
}
_PEAKS: Mapping[str, Callable[[Record], str]] = {
    "": lambda row: str(row["method"]),
    "peak memory": lambda row: row_text.size(row["peak_bytes"]),
}


def cells(rows: Sequence[Record]) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Return a headline, the headings and the cells of each table."""
    for about, group in groupby(rows, key=lambda row: row["about"]):
        members = list(group)
        columns = _PEAKS if "peak_bytes" in members[0] else _TIMES
        yield about, list(columns), [[show(row) for show in columns.values()] for row in members]
