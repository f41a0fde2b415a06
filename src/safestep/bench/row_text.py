"""How a row is told: who it is, its overhead and its memory, for tables and figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safestep.bench.contestants import AGAIN, METHODS

Record = Mapping[str, Any]


def who(row: Record) -> str:
    """Return whose row it is.

    Example:
        >>> who({"method": "exact", "situation": "capped"}), who({"method": "plain step", "situation": "inside"})
        ('exact, capped', 'plain step')
    """
    return f"{row['method']}, {row['situation']}" if row["method"] in METHODS else str(row["method"])


def percent(ratio: float | None) -> str:
    """Return a ratio to the plain step as what it adds.

    Example:
        >>> percent(1.514), percent(0.996), percent(1.024), percent(None)
        ('+51 %', '−0.4 %', '+2.4 %', '–')
    """
    if ratio is None:
        return "–"
    value = 100 * (ratio - 1)
    digits = 0 if abs(value) >= 9.95 else 1
    text = f"{abs(value):.{digits}f}"
    sign = "" if float(text) == 0 else "+" if value > 0 else "−"
    return f"{sign}{text} %"


def overhead(row: Record) -> str:
    """Return what a step takes beyond the plain one: the median, and the quartiles in brackets.

    Example:
        >>> overhead({"ratio_median": 1.51, "ratio_low": 1.482, "ratio_high": 1.55})
        '+51 % (+48 % to +55 %)'
    """
    if row["ratio_median"] is None:
        return "–"
    return f"{percent(row['ratio_median'])} ({percent(row['ratio_low'])} to {percent(row['ratio_high'])})"


def size(count: float | None) -> str:
    """Return a number of bytes.

    Example:
        >>> size(21_300_000), size(-4_000), size(0), size(3_100_000_000)
        ('21.3 MB', '−4.0 kB', '0', '3.10 GB')
    """
    if count is None:
        return "–"
    sign, count = "−" if count < 0 else "", abs(count)
    if count >= 1e9:
        return f"{sign}{count / 1e9:.2f} GB"
    if count >= 1e6:
        return f"{sign}{count / 1e6:.1f} MB"
    return f"{sign}{count / 1e3:.1f} kB" if count else "0"


def memory(row: Record) -> str:
    """Return what the peak gains over that of the plain step, in bytes and as a share."""
    if row["extra_peak_bytes"] is None:
        return "–"
    return f"{size(row['extra_peak_bytes'])} ({percent(row['peak_ratio'])})"


def tiers(row: Record) -> str:
    """Return how the steps were measured, and the share of each way if there were several.

    Example:
        >>> tiers({"method": "tiered", "methods": {"skip/train": 76, "probe/train": 4}})
        'skip 95 %, probe 5 %'
    """
    methods: Mapping[str, int] = row["methods"]
    total = sum(methods.values())
    if row["method"] == AGAIN:
        return "the error of this benchmark"
    if len(methods) < 2:
        return next((name.partition("/")[0] for name in methods), "")
    ordered = sorted(methods.items(), key=lambda item: -item[1])
    return ", ".join(f"{name.partition('/')[0]} {100 * count / total:.0f} %" for name, count in ordered)
