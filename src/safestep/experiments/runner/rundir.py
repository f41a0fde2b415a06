"""The run directory: results.json and records.jsonl, whole at every moment, for one process at a time (POSIX).

A full disk or a kill costs the line being written, never one that was there. No file is changed in place: records are
appended, one line a write, and everything else is a new file put in the place of the old one.
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from safestep.errors import RunDirectoryError, SafestepError
from safestep.experiments.runner.record_checks import wrong_with_record, wrong_with_results
from safestep.records.report import json_line

RESULTS = "results.json"
RECORDS = "records.jsonl"
_LOCK = ".lock"

_PROBE_BYTES = 4096
_ELSEWHERE = "choose another directory with --out"
_KEPT = "what was finished so far is kept; make room and run the same command again"


class RunDirectory:
    """A directory that this process may write to, and no other, as long as the ``with`` block lasts.

    Args:
        path: made if it is missing, with its parents.

    Raises:
        RunDirectoryError: on entering, if it cannot be made or written to, or is in use. Nothing was changed then.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __enter__(self) -> RunDirectory:
        """Make the directory, lock it, and see that a file can be written."""
        fcntl = _fcntl()
        with _explained(self.path, _ELSEWHERE), ExitStack() as opened:
            if self.path.is_file():
                raise RunDirectoryError(f"{self.path} is a file, and a run needs a directory: {_ELSEWHERE}")
            self.path.mkdir(parents=True, exist_ok=True)
            lock = opened.enter_context((self.path / _LOCK).open("w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunDirectoryError(
                    f"{self.path} is in use by another run: wait for its end or {_ELSEWHERE}"
                ) from None
            with tempfile.TemporaryFile(dir=self.path) as file:
                file.write(b"\0" * _PROBE_BYTES)
                file.flush()
                os.fsync(file.fileno())
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Release the lock; a process that dies releases it too."""
        self._opened.close()

    def save(self, results: Mapping[str, Any]) -> None:
        """Write results.json."""
        self._replace(RESULTS, [json.dumps(results, indent=1, allow_nan=False, ensure_ascii=False), "\n"])

    def keep(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Make records.jsonl hold these records and no others."""
        self._replace(RECORDS, (json_line(record) + "\n" for record in records))

    def _replace(self, name: str, lines: Iterable[str]) -> None:
        new = self.path / f".{name}.new"
        with _explained(self.path, _KEPT):
            try:
                with new.open("w", encoding="utf-8") as file:
                    file.writelines(lines)
                    file.flush()
                    os.fsync(file.fileno())
                new.replace(self.path / name)
            except BaseException:
                new.unlink(missing_ok=True)
                raise


def append_records(path: Path, *records: Mapping[str, Any]) -> None:
    """Append records to records.jsonl, all of them or none; several processes may do so at once.

    Raises:
        RunDirectoryError: if they cannot be written; the file is as it was.
    """
    lines, fcntl = "".join(json_line(record) + "\n" for record in records).encode(), _fcntl()
    with _explained(path, _KEPT), (path / RECORDS).open("ab", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # so that a line cut short is taken back before another one follows it
        before = os.fstat(file.fileno()).st_size
        try:
            if file.write(lines) != len(lines):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except BaseException:
            with suppress(OSError):
                file.truncate(before)
            raise


def read_results(path: Path) -> dict[str, Any] | None:
    """Return results.json of a run directory, or None if there is no run in it.

    Raises:
        RunDirectoryError: if it cannot be read, or there are records without it.
    """
    try:
        results = json.loads((path / RESULTS).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        if (path / RECORDS).exists():
            raise RunDirectoryError(
                f"{path} holds {RECORDS} but no {RESULTS}, and so not what was run: move it away or {_ELSEWHERE}"
            ) from None
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise RunDirectoryError(f"cannot read {path / RESULTS} ({error}): move it away or {_ELSEWHERE}") from None
    if wrong := wrong_with_results(results):
        raise RunDirectoryError(
            f"{path / RESULTS} was not written by `safestep run` ({wrong}): mend it, move it away or {_ELSEWHERE}"
        )
    return dict(results)


def require_results(path: Path) -> dict[str, Any]:
    """Return results.json of a run directory.

    Raises:
        RunDirectoryError: if there is no run in it, or it cannot be read.
    """
    results = read_results(path)
    if results is None:
        there = "" if path.is_dir() else ", which does not exist" if not path.exists() else ", which is a file"
        raise RunDirectoryError(
            f"no run in {path}{there}: expected results.json, as `safestep run` writes it to its --out directory"
        )
    return results


def read_records(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the records of a run directory, and of every line that is none its number and what is wrong with it."""
    records, faults = [], []
    with suppress(FileNotFoundError, NotADirectoryError), (path / RECORDS).open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                record = json.loads(line)
                wrong = wrong_with_record(record)
            except (ValueError, RecursionError):
                wrong = "cut short"
            if wrong:
                faults.append(f"line {number}: {wrong}")
            else:
                records.append(record)
    return records, faults


@contextmanager
def readable(path: Path, what: str) -> Iterator[None]:
    """Tell an error that damaged records cause in the block as one of theirs, and what to do.

    Raises:
        RunDirectoryError: in the place of the error.
    """
    try:
        yield
    except SafestepError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise RunDirectoryError(
            f"{what} cannot be made of {path / RESULTS} and {path / RECORDS} ({type(error).__name__}: {error}): "
            "something there is missing or not what `safestep run` writes. Nothing was changed there; mend it by hand, "
            "or run again in another directory"
        ) from error


def _fcntl() -> Any:
    """Import what locks files, where there is something to lock: pages are read and drawn without."""
    try:
        import fcntl
    except ModuleNotFoundError:
        raise RunDirectoryError(
            "run directories need Linux or macOS: this system has no fcntl, which keeps two runs apart"
        ) from None
    return fcntl


@contextmanager
def _explained(path: Path, advice: str) -> Iterator[None]:
    """Turn an OSError in the block into a RunDirectoryError that says where, why and what to do."""
    try:
        yield
    except RunDirectoryError:
        raise
    except OSError as error:
        raise RunDirectoryError(f"cannot write to {path}: {error.strerror or error}; {advice}") from error
