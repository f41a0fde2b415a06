"""Words for what came out: a number for each of several names, in one sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from safestep.experiments.report.tables import cell
from safestep.experiments.runner.experiment import Row, grouped
from safestep.records.report import number


def by(rows: Sequence[Row], key: str, names: Mapping[Any, str] | None = None) -> dict[str, list[Row]]:
    """Return rows in groups by what they have under a key: by its name in ``names``, or as it is."""
    groups = [(group[0][key], group) for group in grouped(rows, key)]
    return {(names or {}).get(value, str(value)): group for value, group in groups}


def each(groups: Mapping[str, Sequence[Row]], told: Callable[[Sequence[Row]], str]) -> str:
    """Return what is told of every group behind its name.

    Example:
        >>> rows = [{"law": "none", "diverged": True}, {"law": "secant", "diverged": False}]
        >>> each(by(rows, "law"), count("diverged"))
        'none 1 of 1, secant 0 of 1'
    """
    return ", ".join(f"{name} {told(rows)}" for name, rows in groups.items())


def count(key: str, of: str = "") -> Callable[[Sequence[Row]], str]:
    """Return what tells how many of some rows have a flag, or how many runs where rows count their runs ``of``."""
    return lambda rows: f"{sum(row[key] for row in rows)} of {sum(row[of] for row in rows) if of else len(rows)}"


def span(key: str, form: str) -> Callable[[Sequence[Row]], str]:
    """Return what tells from where to where a number lies over some rows, written as in tables."""

    def told(rows: Sequence[Row]) -> str:
        values = [number(row[key]) for row in rows]
        low, high = cell(min(values), form), cell(max(values), form)
        return low if low == high else f"{low} to {high}"

    return told
