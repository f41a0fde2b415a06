"""A file that grows by whole lines, and what a kill may have left at its end."""

from __future__ import annotations

import errno
import os
from io import FileIO
from pathlib import Path

_BLOCK = 1 << 16


class LineFile:
    """A file that is opened when the first line is due, and again after it was closed.

    Args:
        path: the file; made if missing, appended to otherwise.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file: FileIO | None = None

    def open(self) -> None:
        """Open the file, if it is not open; a line that was cut short in an earlier life is ended.

        Raises:
            OSError: if the file cannot be written.
        """
        if self._file is None:
            size, whole = ends(self.path)
            self._file = self.path.open("ab", buffering=0)
            if whole < size:
                self._end(self._file, whole)

    def close(self) -> None:
        """Close the file."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    def _end(self, file: FileIO, whole: int) -> None:
        file.write(b"\n")

    def _append(self, line: str) -> None:
        """Write a line in one piece, so that whatever happens between two lines finds whole ones."""
        self.open()
        data = line.encode() + b"\n"
        if self._file is not None and self._file.write(data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))


def ends(path: Path) -> tuple[int, int]:
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
