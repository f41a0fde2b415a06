"""Files that grow by whole lines, JSON lines among them, and what a kill may have left at their end."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from io import FileIO
from pathlib import Path

from safestep._torch.warn_once import warn
from safestep.errors import LogError
from safestep.logs.follow import Follower
from safestep.logs.sink import Sink
from safestep.records.report import StepReport, json_line

_BLOCK = 1 << 16


class LineFile(Sink):
    """A file that is opened when the first line is due, and again after it was closed.

    Args:
        path: the file; made if missing, with its folder, appended to otherwise. It is the same file wherever the
            program goes later.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._there = self.path.absolute()
        self._file: FileIO | None = None
        self._size = 0  # in bytes, if nobody else writes to the file
        self._alone, self._begun_again = True, False

    def open(self) -> None:
        """Open the file, if it is not open; a line that was cut short in an earlier life is ended.

        A file that was moved away, replaced, emptied or written to by others since is opened anew.

        Raises:
            OSError: if the file cannot be written.
        """
        if self._changed():
            self.close()
        if self._file is None:
            self._opened()

    def close(self) -> None:
        """Close the file."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    def _opened(self) -> None:
        size, whole = _ends(self._there)
        self._there.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._there.open("ab", buffering=0)
        if whole < size:
            self._end(self._file, whole)
        self._size = os.fstat(self._file.fileno()).st_size

    def _end(self, file: FileIO, whole: int) -> None:
        file.write(b"\n")

    def _changed(self) -> bool:
        """Return whether the file is not as this sink left it; say once if somebody else writes to it."""
        if self._file is None or not stat.S_ISREG((mine := os.fstat(self._file.fileno())).st_mode):
            return False
        if mine.st_size > self._size and self._alone:
            self._alone = False
            warn(
                f"{self.path} is written to by somebody else too, such as another guard or run: safestep.logs.read "
                "takes their steps for those of one run and drops what seems repeated. Give each a file of its own",
            )
        try:
            return mine.st_size != self._size or not os.path.samestat(mine, self._there.stat())
        except FileNotFoundError:
            return True

    def _check_beginning(self, report: StepReport) -> None:
        """Say once if a run begins in this file behind the records of an earlier one."""
        if report.step or self._begun_again:
            return
        self.open()  # which tells whether somebody else is writing
        if not self._alone or not self._there.is_file():
            return
        earlier = Follower(self._there, keep=1, tail=_BLOCK)
        with contextlib.suppress(LogError):  # lines of something else, which a log may stand among
            earlier.look()
        if earlier.steps:
            self._begun_again = True
            warn(
                f"{self.path} holds the records of an earlier run, or of another guard, up to step "
                f"{earlier.steps[-1].step}, and a run begins behind them at step 0: safestep.logs.read, "
                "`safestep report` and `safestep watch` take the new records and leave those out. Give each run a "
                "file of its own, or move that one away; to go on with the earlier run, load its guard's state "
                "first: guard.load_state_dict(...)",
            )

    def _append(self, line: str) -> None:
        """Write a line in one piece, so that whatever happens between two lines finds whole ones."""
        self.open()
        data = line.encode() + b"\n"
        if self._file is not None and self._file.write(data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        self._size += len(data)


class JsonLines(LineFile):
    """A sink that appends each report to a file as one JSON line, complete up to the last whole line.

    Non-finite numbers are the texts "inf", "-inf" and "nan". `safestep.logs.read` reads the file.

    Args:
        path: the file; made if missing, appended to otherwise.

    Example:
        >>> JsonLines("runs/steps.jsonl")
        JsonLines('runs/steps.jsonl')
    """

    def __call__(self, report: StepReport) -> None:
        """Append a report."""
        self._check_beginning(report)
        self._append(json_line(report.row()))


def _ends(path: Path) -> tuple[int, int]:
    """Return the size of a file in bytes and where its last whole line ends; (0, 0) for what is no plain file."""
    if not path.is_file():
        return 0, 0
    with path.open("rb") as file:
        place = size = file.seek(0, os.SEEK_END)
        while place > 0:
            start = max(0, place - _BLOCK)
            file.seek(start)
            if (newline := file.read(place - start).rfind(b"\n")) >= 0:
                return size, start + newline + 1
            place = start
    return size, 0
