"""Logs read back into records."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safestep._torch.warn_once import warn
from safestep.logs.row import report_of
from safestep.records.report import History, StepReport


def read(path: str | Path, *, superseded: bool = False) -> History:
    """Read a log of steps, JSON lines or CSV, into a history.

    A run that goes on from an older checkpoint counts some steps again. What the later life of the run wrote holds: a
    record drops those before it whose step is its own or a later one. (A new run that was given the log of an old one
    begins at 0 and so drops all of it; the file still holds both.)

    Args:
        path: the file; ``.csv`` is CSV, everything else JSON lines.
        superseded: keep the dropped records too, in the order of the file.

    Returns:
        The records, oldest first.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it has lines and none of them is a record of a step.

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
        except (KeyError, TypeError, ValueError):
            broken.append(line)
            continue
        while reports and not superseded and reports[-1].step >= report.step:
            reports.pop()
        reports.append(report)
    if broken and not reports:
        raise ValueError(f"{path} holds no record of a step: none of its {len(broken)} lines is one")
    if broken:
        where = ", ".join(map(str, broken[:3])) + (", ..." if len(broken) > 3 else "")
        warn(
            f"{path}: {len(broken)} of its lines, cut short or no record of a step, left out (line {where})",
        )
    history = History(limit=len(reports))
    for report in reports:
        history.append(report)
    return history


def _json_rows(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield number, json.loads(line)
            except ValueError:
                yield number, None


def _csv_rows(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        columns = _cells(file.readline())
        for number, line in enumerate(file, start=2):
            cells = _cells(line)
            yield number, dict(zip(columns, cells, strict=True)) if len(cells) == len(columns) else None


def _cells(line: str) -> list[str]:
    """Return the cells of one line; none of one that is not whole. A quote left open spoils no line after it."""
    try:
        return next(csv.reader([line]), []) if line.endswith(("\n", "\r")) else []
    except csv.Error:  # no text of a step is as long as that
        return []
