"""The sink that writes CSV."""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections.abc import Iterable
from io import FileIO
from pathlib import Path
from typing import Any

from safestep.errors import AttachError
from safestep.logs.line_file import LineFile
from safestep.records.report import COLUMNS, LATER, StepReport, cell


class Csv(LineFile):
    """A sink that appends each report to a file as one row, one line a row, complete up to the last whole line.

    The header is written once. Lists are joined by spaces, line breaks in texts become spaces, and a cell is empty
    where a diagnostic was silent. The first time one brings a new column, the file is written anew with that column at
    the right; until the new file is whole the old one stays as it was. `safestep.logs.read` reads the file. Half a row
    that a kill left at the end is cut off when the file is opened; a file that is no such log is an `AttachError` then,
    and stays as it is.

    Args:
        path: the file; made if missing, else appended to under the header it has.

    Example:
        >>> Csv("runs/steps.csv")
        Csv('runs/steps.csv')
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self._columns: list[str] = []

    def __call__(self, report: StepReport) -> None:
        """Append a report."""
        self._check_beginning(report)
        self.open()  # first: the columns are those of the file as it is now
        row = {cell(name): value for name, value in report.row().items()}
        known = set(self._columns)
        new = [name for name in (*COLUMNS, *row) if name not in known]
        if new:
            self._widen(list(dict.fromkeys(new)))
        self._append(_text(cell(row.get(name, "")) for name in self._columns))

    def _opened(self) -> None:
        self._columns = _header(self._there)
        super()._opened()

    def _end(self, file: FileIO, whole: int) -> None:
        file.truncate(whole)  # a row that breaks off looks like a row to whoever reads CSV

    def _widen(self, new: list[str]) -> None:
        """Add columns at the right, with empty cells in the rows that are there."""
        columns = [*self._columns, *new]
        if not self._columns:
            self._append(_text(columns))
        else:
            path = self._there.resolve()
            wider = path.with_name(f".{path.name}.new")
            try:
                with path.open("rb") as before, wider.open("wb") as after:
                    next(before)
                    after.write(_text(columns).encode() + b"\n")
                    after.writelines(line.rstrip(b"\r\n") + b"," * len(new) + b"\n" for line in before)
                    after.flush()
                    os.fsync(after.fileno())
                shutil.copymode(path, wider)
                wider.replace(path)
            except BaseException:
                wider.unlink(missing_ok=True)
                raise
            self.close()
            self.open()
        self._columns = columns


def _header(path: Path) -> list[str]:
    """Return the columns of a file; none if there is no whole line in it."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        first = file.readline()
    ours = _text(COLUMNS)
    if not first.endswith("\n") and (ours.startswith(first) or first.startswith(ours)):
        return []  # empty, or a header of ours that a kill cut short
    columns = next(csv.reader([first]), [])
    if missing := [name for name in COLUMNS if name not in columns and name not in LATER]:
        raise AttachError(
            f"{path} exists, and its first line is not the header of a log of steps (no column {', '.join(missing)}): "
            "choose another file, or move that one away"
        )
    return columns


def _text(cells: Iterable[Any]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(cells)
    return out.getvalue()
