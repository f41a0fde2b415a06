"""The rows of a benchmark as text: what each contestant costs, in tables for a console and for a page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from rich.table import Table

from safestep.bench.contestants import AGAIN, IN_BOTH
from safestep.bench.grid import on_screen

Record = Mapping[str, Any]
"""One row of results.json."""


def who(row: Record) -> str:
    """Return whose row it is.

    Example:
        >>> who({"method": "exact", "situation": "capped"}), who({"method": "plain step", "situation": "inside"})
        ('exact, capped', 'plain step')
    """
    return f"{row['method']}, {row['situation']}" if row["method"] in IN_BOTH else str(row["method"])


def percent(ratio: float | None) -> str:
    """Return a ratio to the plain step as what it adds.

    Example:
        >>> percent(1.514), percent(0.996), percent(1.024), percent(None)
        ('+51 %', '−0.4 %', '+2.4 %', '–')
    """
    if ratio is None:
        return "–"
    value = 100 * (ratio - 1)
    text = f"{value:+.{0 if abs(value) >= 9.95 else 1}f} %"
    return "0.0 %" if text[1:] == "0.0 %" else text.replace("-", "−")


def byte_size(count: float) -> str:
    """Return a number of bytes.

    Example:
        >>> byte_size(21_300_000), byte_size(-4_000), byte_size(0), byte_size(3_100_000_000)
        ('21.3 MB', '−4.0 kB', '0.0 kB', '3.10 GB')
    """
    size = abs(count)
    text = (
        f"{count / 1e9:.2f} GB" if size >= 1e9 else f"{count / 1e6:.1f} MB" if size >= 1e6 else f"{count / 1e3:.1f} kB"
    )
    return text.replace("-", "−")


def _overhead(row: Record) -> str:
    if row["ratio_median"] is None:
        return "–"
    return f"{percent(row['ratio_median'])} ({percent(row['ratio_low'])} to {percent(row['ratio_high'])})"


def _memory(row: Record) -> str:
    if row["extra_peak_bytes"] is None:
        return "–"
    return f"{byte_size(row['extra_peak_bytes'])} ({percent(row['peak_ratio'])})"


def _ways(row: Record) -> str:
    """Return how the steps were measured, and the share of each way: ``skip 95 %, probe 5 %``."""
    if row["method"] == AGAIN:
        return "the error of this benchmark"
    steps = sum(row["methods"].values())
    ordered = sorted(row["methods"].items(), key=lambda item: -item[1])
    return ", ".join(f"{name.partition('/')[0]} {100 * count / steps:.0f} %" for name, count in ordered)


def _counts(found: Mapping[str, int]) -> str:
    """Return what was found how often, the most frequent first.

    Example:
        >>> _counts({"capped": 3, "inside": 297})
        '297 inside, 3 capped'
    """
    return ", ".join(f"{count} {name}" for name, count in sorted(found.items(), key=lambda item: -item[1]))


def _quartiles(row: Record, name: str) -> str:
    if f"{name}_median" not in row:
        return ""
    low, median, high = (row[f"{name}_{key}"] for key in ("low", "median", "high"))
    digits = ",.0f" if median >= 100 else ".3g"
    return f"{median:{digits}} ({low:{digits}} to {high:{digits}})"


Columns = Mapping[str, Callable[[Record], str]]
"""Headings, and what a row shows below them."""
COLUMNS: Columns = {
    "": who,
    "overhead (quartiles)": _overhead,
    "mean": lambda row: percent(row["ratio_mean"]),
    "ms a step": lambda row: "–" if row["ms_median"] is None else f"{row['ms_median']:.3g}",
    "µs added": lambda row: "–" if row.get("added_us") is None else f"{row['added_us']:.0f}",
    "peak memory": _memory,
    "first steps": lambda row: percent(row["first_peak_ratio"]),
    "how measured": _ways,
}
"""Of `safestep bench overhead`, `scale` and `fixed`. Peak memory is that of the steps after the first four."""
RUN: Columns = {
    "": who,
    "whole run": lambda row: percent(row["run_ratio"]),
    "a stretch (quartiles)": _overhead,
    "early": lambda row: percent(row["thirds"][0]),
    "middle": lambda row: percent(row["thirds"][1]),
    "late": lambda row: percent(row["thirds"][2]),
    "peak memory": _memory,
    "steps": lambda row: _counts(row["statuses"]),
    "how measured": lambda row: _counts(row["methods"]),
    "r (quartiles)": lambda row: _quartiles(row, "r"),
    "final loss": lambda row: f"{row['loss']:.4f}",
    "beside plain": lambda row: f"{row['loss_beside']:+.4f}".replace("-", "−"),
}
"""Of `safestep bench run`."""
_WORDS = ("", "steps", "how measured")
"""Columns of words; the others are numbers."""
DESCENT: Columns = {
    "": lambda row: str(row["method"]),
    "ns a step (quartiles)": lambda row: _quartiles(row, "ns"),
    "times faster than floats": lambda row: _quartiles(row, "floats"),
    "than torch.optim run by run": lambda row: _quartiles(row, "alone"),
    "runs timed": lambda row: str(row["timed_runs"]),
    "apart without noise": lambda row: f"{row['noiseless_difference']:.1g}",
}
"""Times of `safestep bench descent`."""
PEAKS: Columns = {"": lambda row: str(row["method"]), "peak memory": lambda row: byte_size(row["peak_bytes"])}
"""Its memory."""


def tables(rows: Sequence[Record]) -> Iterator[tuple[str, Table]]:
    """Return a headline and a table for each case; a case that several axes of a scale share comes once."""
    shown = set()
    for about, group in groupby(rows, key=lambda row: str(row["about"])):
        members = list(group)
        if about in shown:
            continue
        shown.add(about)
        first = members[0]
        kinds = {"thirds": RUN, "ratio_median": COLUMNS, "ns_median": DESCENT, "peak_bytes": PEAKS}
        columns = next(columns for key, columns in kinds.items() if key in first)
        cells = [[show(row) for show in columns.values()] for row in members]
        yield about + (_plain_step(first) if "ms_median" in first else ""), on_screen(list(columns), cells, _WORDS)


def _plain_step(row: Record) -> str:
    """Return what the plain step, the first row of a case, costs."""
    parts = [] if row["ms_median"] is None else [f"{row['ms_median']:.3g} ms, {row['rows_per_ms']:.3g} rows a ms"]
    parts += [] if row["peak_bytes"] is None else [f"peak {byte_size(row['peak_bytes'])}"]
    return f" · plain step {', '.join(parts)}" if parts else ""
