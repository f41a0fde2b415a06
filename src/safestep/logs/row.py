"""Parses one row of a log file back into a report."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from safestep.records.reading import Status
from safestep.records.report import COLUMNS, LATER, StepReport, number


def report_of(row: object) -> StepReport:
    """Return the report that a row is of; its numbers, flags and lists may be texts.

    Logs of earlier versions had predictions of r in the column of r: they are moved to where they belong.

    Raises:
        KeyError: if a column is missing.
        ValueError: if a cell is not what its column holds.
        TypeError: likewise, or if ``row`` is no mapping.
    """
    if not isinstance(row, Mapping):
        raise TypeError(f"expected the row of a report, saw {type(row).__name__}")
    values = {
        f.name: _READ[str(f.type)](row[f.name])
        for f in fields(StepReport)
        if f.name != "extras" and not (f.name in LATER and row.get(f.name, "") == "")
    }
    if not LATER & values.keys() and values["age"] > 0:
        values |= {"predicted_ratio": values["ratio"], "ratio": math.nan, "radius": math.nan}
        values["applied_ratio"] = math.nan if values["scale"] > 0.0 else 0.0
    extras = {name: _extra(value) for name, value in row.items() if name not in COLUMNS and value != ""}
    return StepReport(**values, extras=extras)


def _flag(value: Any) -> bool:
    if str(value) not in {"True", "False"}:
        raise ValueError(f"{value!r}: expected a flag")
    return str(value) == "True"


def _whole(value: Any) -> int:
    return int(value) if isinstance(value, str) else operator.index(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r}: expected a text")
    return value


def _numbers(value: Any) -> tuple[float, ...]:
    return tuple(map(number, value.split() if isinstance(value, str) else value))


def _extra(value: Any) -> float:
    return _flag(value) if str(value) in {"True", "False"} else number(value)


_READ: dict[str, Callable[[Any], Any]] = {
    "int": _whole,
    "float": number,
    "bool": _flag,
    "str": _text,
    "Status": Status,
    "tuple[float, ...]": _numbers,
}
"""How a cell is read, by the annotation of its field."""
