"""The rows of `safestep bench descent` as tables, on a console and in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby

from safestep.bench import words
from safestep.bench.words import Record


def _faster(column: str) -> Callable[[Record], str]:
    def told(row: Record) -> str:
        low, middle, high = (f"{row[f'{column}_{part}']:.3g}" for part in ("low", "median", "high"))
        aim = row[f"{column}_aim"]
        return f"{middle} ({low} to {high})" + (f", aim {aim:.0f}" if aim is not None else "")

    return told


_TIMES: Mapping[str, Callable[[Record], str]] = {
    "": lambda row: str(row["method"]),
    "ns a step (quartiles)": lambda row: f"{row['ns_median']:.3g} ({row['ns_low']:.3g} to {row['ns_high']:.3g})",
    "times faster than floats": _faster("floats"),
    "than torch.optim": _faster("one_by_one"),
    "runs timed": lambda row: str(row["timed_runs"]),
    "without noise apart": lambda row: f"{row['noiseless_difference']:.1g}",
}
_PEAKS: Mapping[str, Callable[[Record], str]] = {
    "": lambda row: str(row["method"]),
    "peak memory": lambda row: words.size(row["peak_bytes"]),
}


def cells(rows: Sequence[Record]) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Return a headline, the headings and the cells of each table."""
    for about, group in groupby(rows, key=lambda row: row["about"]):
        members = list(group)
        columns = _PEAKS if "peak_bytes" in members[0] else _TIMES
        yield about, list(columns), [[show(row) for show in columns.values()] for row in members]
