"""Logs read back into records."""

from __future__ import annotations

import csv
import json
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from textwrap import shorten
from typing import Any

from safestep._torch.warn_once import warn
from safestep.errors import LogError
from safestep.records.reading import Status
from safestep.records.report import COLUMNS, LATER, History, StepReport, number

_FIRST = 4096
"""So many bytes of the first line are looked at to say what a file is that is no log."""
_MARK = "\ufeff"
BROKEN = (KeyError, TypeError, ValueError, OverflowError)
"""What a line raises that is no record."""


def read(path: str | Path, *, superseded: bool = False) -> History:
    """Read a log of steps, JSON lines or CSV, into a history.

    A run that goes on from an older checkpoint counts some steps again. What the later life of the run wrote holds: a
    record drops those before it whose step is its own or a later one. (A new run that was given the log of an old one
    begins at 0 and so drops all of it, which its guard says; the file still holds both.)

    Args:
        path: the file; ``.csv`` is CSV, everything else JSON lines.
        superseded: keep the dropped records too, in the order of the file.

    Returns:
        The records, oldest first.

    Raises:
        OSError: if the file cannot be read.
        LogError: if it has lines and none of them is a record of a step; also a ``ValueError``.

    Warns:
        SafestepWarning: for lines that are no records, such as a last one that a kill cut short; they are left out.

    Example:
        >>> import tempfile
        >>> history = History()
        >>> path = history.to_csv(Path(tempfile.mkdtemp()) / "steps.csv")
        >>> read(path)
        <History of 0 steps>
    """
    path = Path(path)
    reports: list[StepReport] = []
    broken: list[int] = []
    for line, row in (_csv_rows if path.suffix.lower() == ".csv" else _json_rows)(path):
        try:
            report = report_of(row)
        except BROKEN:
            broken.append(line)
            continue
        reports.append(report)
    if broken and not reports:
        raise no_log(path)
    if broken:
        where = ", ".join(map(str, broken[:3])) + (", ..." if len(broken) > 3 else "")
        warn(
            f"{path}: {len(broken)} of its lines, cut short or no record of a step, left out (line {where})",
        )
    if not superseded:
        reports = standing(reports)
    history = History(limit=len(reports))
    for report in reports:
        history.append(report)
    return history


def standing(reports: Iterable[StepReport]) -> list[StepReport]:
    """Return the reports that hold: one that comes later drops those of its step and of later ones.

    Example:
        >>> standing([])
        []
    """
    kept: list[StepReport] = []
    for report in reports:
        while kept and kept[-1].step >= report.step:
            kept.pop()
        kept.append(report)
    return kept


def _json_rows(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open("rb") as file:
        for place, line in enumerate(file, start=1):
            if line.strip():
                yield place, json_row(line)


def _csv_rows(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        columns = cells(file.readline())
        for place, line in enumerate(file, start=2):
            yield place, row_of(columns, line)


def json_row(line: bytes) -> Any:
    """Return a line of JSON as a row; None for one that is no JSON. A mark that an editor put before the first goes."""
    try:
        return json.loads(line.decode("utf-8", "replace").removeprefix(_MARK))
    except (ValueError, RecursionError):
        return None


def row_of(columns: Sequence[str], line: str) -> dict[str, str] | None:
    """Return a line of CSV as a row; None for one that is not whole."""
    values = cells(line)
    return dict(zip(columns, values, strict=True)) if len(values) == len(columns) else None


def no_log(path: Path) -> LogError:
    """Return the error of a file none of whose lines is a record of a step: what is in it, and what should be."""
    with path.open("rb") as file:
        first = file.readline(_FIRST).decode("utf-8", "replace").removeprefix(_MARK)
    try:
        columns = cells(first) if path.suffix.lower() == ".csv" else list(json.loads(first))
    except (TypeError, ValueError, RecursionError):
        columns = []
    missing = [name for name in COLUMNS if name not in columns and name not in LATER]
    if columns:
        seen = f"its first line has the columns {_brief(', '.join(map(str, columns)), 80)}"
        seen += f", and not {_brief(', '.join(missing), 60)}" if missing else ", and no line has values that fit them"
    elif first.endswith("\n"):
        seen = f"its first line is {_brief(first, 60)!r}"
    else:
        seen = f"its only line is cut short or endless: {_brief(first, 60)!r}"
    return LogError(
        f"{path} holds no record of a step: {seen}. Expected a .csv or .jsonl file as `safestep.attach(..., log=...)` "
        "writes it: give that file"
    )


def cells(line: str) -> list[str]:
    """Return the cells of one line; none of one that is not whole. A quote left open spoils no line after it."""
    try:
        return next(csv.reader([line.removeprefix(_MARK)]), []) if line.endswith(("\n", "\r")) else []
    except csv.Error:  # no text of a step is as long as that
        return []


def _brief(text: str, width: int) -> str:
    short = shorten(text, width)
    return short if short != "[...]" else f"{text[:width]} [...]"  # of words, or else of letters


def report_of(row: Any) -> StepReport:
    """Return the report that a row is of; its numbers, flags and lists may be texts.

    Logs of earlier versions had predictions of r in the column of r: they are moved to where they belong.

    Raises:
        KeyError: if a column is missing.
        ValueError: if a cell is not what its column holds.
        TypeError: likewise, or if ``row`` is no mapping.
    """
    if not isinstance(row, dict):
        raise TypeError(f"expected the row of a report, saw {type(row).__name__}")
    values = {
        f.name: _CELLS[str(f.type)](row[f.name])
        for f in fields(StepReport)
        if f.name != "extras" and not (f.name in LATER and row.get(f.name, "") == "")
    }
    if "predicted_ratio" not in values and values["age"] > 0:
        values |= {"predicted_ratio": values["ratio"], "ratio": math.nan, "radius": math.nan}
        values["applied_ratio"] = math.nan if values["scale"] > 0.0 else 0.0
    flags = {"True", "False"}
    extras = {
        name: _flag(value) if str(value) in flags else number(value)
        for name, value in row.items()
        if name not in COLUMNS and value != ""
    }
    return StepReport(**values, extras=extras)


def _flag(value: Any) -> bool:
    if str(value) not in {"True", "False"}:
        raise ValueError(f"{value!r}: expected a flag")
    return str(value) == "True"


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r}: expected a text")
    return value


_CELLS: dict[str, Callable[[Any], Any]] = {
    "int": lambda value: int(value) if isinstance(value, str) else operator.index(value),
    "float": number,
    "bool": _flag,
    "str": _text,
    "Status": Status,
    "tuple[float, ...]": lambda value: tuple(map(number, value.split() if isinstance(value, str) else value)),
}
"""How a cell is read, by the annotation of its field."""
