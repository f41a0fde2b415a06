"""A log that may still be written, read as it grows."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from typing import BinaryIO

from safestep.logs.reader import BROKEN, cells, json_row, no_log, report_of, row_of
from safestep.records.report import StepReport

_TAIL = 1 << 24
_MARK = 256
"""So many bytes before where the last look ended tell whether the file is still the one that was read."""


class Follower:
    """The latest steps of a log of JSON lines or CSV, each `look` reading what was added since the one before.

    A line that is still being written waits for its end. A file that is not there yet, or not any more, is looked for
    again. One that was emptied, replaced or written anew is read from its beginning; a step that comes again drops the
    earlier ones from it on, as in `safestep.logs.read`.

    Args:
        path: ``.csv`` is CSV, everything else JSON lines.
        keep: how many steps are kept.
        tail: bytes: of a file that is longer, the first look reads so much of its end.

    Attributes:
        steps: the latest of the file, oldest first.
        left_out: how many whole lines were no records, as far as the file was read.
        superseded: how many records were dropped since later ones of the file have their steps again, likewise.

    Example:
        >>> Follower("not-yet.jsonl").look()
        False
    """

    def __init__(self, path: str | Path, keep: int = 10_000, tail: int | None = None) -> None:
        self.path = Path(path)
        self.steps: deque[StepReport] = deque(maxlen=keep)
        self.left_out = self.superseded = 0
        self._tail = _TAIL if tail is None else tail
        self._standing: list[int] = []
        self._csv = self.path.suffix.lower() == ".csv"
        self._columns: list[str] = []
        self._place, self._before = 0, b""

    def look(self) -> bool:
        """Read what was added; return whether there was a whole line more.

        Raises:
            LogError: if the file has whole lines and none of them is a record of a step.
            OSError: if it is there and cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                more = self._read(file)
        except FileNotFoundError:
            return False
        if more and not self.steps and self.left_out:
            raise no_log(self.path)
        return more

    def _read(self, file: BinaryIO) -> bool:
        file.seek(self._place - len(self._before))
        if (self._place == 0 or file.read(len(self._before)) != self._before) and not self._begin(file):
            return False
        file.seek(self._place)
        data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._place += len(whole)
        self._before = (self._before + whole)[-_MARK:]
        for line in whole.splitlines(keepends=True):
            self._take(line)
        return bool(whole)

    def _begin(self, file: BinaryIO) -> bool:
        """Find where to begin; return False where CSV has no whole header yet."""
        self.left_out, self.superseded, self._place, self._before = 0, 0, 0, b""
        self._standing.clear()  # but no steps: a file that was moved away goes on under its name
        size = file.seek(0, os.SEEK_END)
        if self._csv:
            file.seek(0)
            header = file.readline()
            self._columns = cells(header.decode("utf-8", "replace"))
            if not header.endswith(b"\n"):
                return False
            self._place, self._before = len(header), header[-_MARK:]
        if size - self._place > self._tail:
            file.seek(size - self._tail)
            file.readline()
            self._place, self._before = file.tell(), b""
        return True

    def _take(self, line: bytes) -> None:
        if not line.strip():
            return
        try:
            report = report_of(row_of(self._columns, line.decode("utf-8", "replace")) if self._csv else json_row(line))
        except BROKEN:
            self.left_out += 1
            return
        while self._standing and self._standing[-1] >= report.step:
            self._standing.pop()
            self.superseded += 1
        self._standing.append(report.step)
        while self.steps and self.steps[-1].step >= report.step:
            self.steps.pop()
        self.steps.append(report)
