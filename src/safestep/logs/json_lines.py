"""The sink that writes JSON lines."""

from __future__ import annotations

from safestep.logs.line_file import LineFile
from safestep.records.report import StepReport, json_line


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
        self._append(json_line(report.row()))
