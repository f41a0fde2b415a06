"""What attach(log=...) was given: paths and sinks, on the rank that writes, one failing without the others."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import torch

from safestep._torch.warn_once import Once
from safestep.errors import AttachError
from safestep.logs.csv_file import Csv
from safestep.logs.every import Every, check_every
from safestep.logs.line_file import JsonLines
from safestep.logs.sink import Sink, as_sink
from safestep.records.report import StepReport

_OTHERS = frozenset({".html", ".json", ".md", ".parquet", ".pkl", ".tsv", ".txt", ".xls", ".xlsx", ".yaml", ".yml"})
"""Suffixes of other formats than the two: whoever gives one expects neither."""
_PACKED = frozenset({".gz", ".bz2", ".xz", ".zst", ".zip"})

Log: TypeAlias = str | Path | Sink | Callable[[StepReport], object]
"""A path, by its suffix a CSV file or one of JSON lines, or a sink, or a function."""


class Sinks:
    """The sinks of a guard.

    Args:
        log: a path, a sink, several of them, or none.
        every: how many steps lie between two records, see `Every`.

    Raises:
        AttachError: for a log that is none of these, or a number of steps that is no whole number of at least 1.
    """

    def __init__(self, log: Log | Sequence[Log] | None = None, every: int = 1) -> None:
        check_every(every, "log_every")
        logs = [] if log is None else list(log) if isinstance(log, (list, tuple)) else [log]
        sinks = [_sink(one) for one in logs]
        self._sinks = sinks if every == 1 else [Every(every, sink) for sink in sinks]
        self._say, self._process = Once(), os.getpid()

    def open(self) -> None:
        """Open what this rank writes to, so that a file that cannot be written is told before training.

        Raises:
            Exception: what opening raises. Every sink is closed then.
        """
        try:
            for sink in self._here():
                sink.open()
        except BaseException:
            self.close()
            raise

    def __call__(self, report: StepReport) -> None:
        """Write a report where this rank writes; a sink that fails is dropped, the others go on."""
        for sink in self._here():
            try:
                sink(report)
            except Exception as error:
                # A full disk must not end a training run; the history still holds the latest steps.
                self._sinks = [other for other in self._sinks if other is not sink]
                self._say(f"{id(sink)}", f"the log {sink!r} failed and stops at step {report.step}: {error!r}")
                _close(sink)

    def close(self) -> None:
        """Close every sink that can be closed; what fails then is said. A process that was forked off closes none."""
        if os.getpid() != self._process:
            return  # TensorBoard would wait for a thread that is not there, and `Every` write a record twice
        for sink in self._sinks:
            if (error := _close(sink)) is not None:
                self._say(f"{id(sink)}", f"the log {sink!r} failed when it was closed: {error!r}")

    def _here(self) -> list[Sink]:
        """Return the sinks of this rank; asked each time, as processes may find each other after the attachment."""
        ranks = torch.distributed
        alone = not self._sinks or not (ranks.is_available() and ranks.is_initialized())
        return [sink for sink in self._sinks if alone or sink.each_rank or ranks.get_rank() == 0]


def _sink(log: object) -> Sink:
    if not isinstance(log, (str, Path)):
        return as_sink(log, f"log={log!r}")
    path, suffix = Path(log), Path(log).suffix.lower()
    if not str(log).strip() or path == Path():
        raise AttachError(f"log={str(log)!r}: expected the name of a file, such as 'steps.csv'; log=None keeps none")
    if path.is_dir():
        raise AttachError(f"log={str(log)!r}: is a directory; expected the name of a file in it, such as 'steps.csv'")
    if suffix in _PACKED:
        raise AttachError(f"log={str(log)!r}: logs are written as plain text; leave off {path.suffix}")
    if suffix in _OTHERS:
        raise AttachError(
            f"log={str(log)!r}: expected a name that ends in .csv (a table) or .jsonl (JSON lines); to write the "
            f"latter under this name: log=safestep.JsonLines({str(log)!r})"
        )
    return Csv(path) if suffix == ".csv" else JsonLines(path)


def _close(sink: Sink) -> Exception | None:
    try:
        sink.close()
    except Exception as error:
        return error
    return None
