"""The columns that diagnostics add to the record of a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from safestep._torch.warn_once import Once
from safestep.guard.audit import Audit
from safestep.recording.forwards import Forwards
from safestep.recording.step import Step
from safestep.records.report import StepReport

Diagnostic = Callable[[Step, Forwards, StepReport], Mapping[str, float]]
"""Adds columns to a record: called after each measured step with the step, its forwards, and the report so far."""


class Columns:
    """Asks the diagnostics of a guard about each step; one that fails is said once and left out.

    Args:
        diagnostics: of the user.
        say: warns, once about each thing.
    """

    def __init__(self, diagnostics: tuple[Diagnostic, ...], say: Once) -> None:
        self.diagnostics, self._say = diagnostics, say

    @property
    def wanted(self) -> bool:
        """Whether somebody asks for the numbers of each step."""
        return bool(self.diagnostics)

    @property
    def need_displacement(self) -> bool:
        """Whether somebody may ask for ``p`` after the step was rescaled; an audit asks for what was applied."""
        return any(not isinstance(diagnostic, Audit) for diagnostic in self.diagnostics)

    def add(self, step: Step, forwards: Forwards, report: StepReport) -> StepReport:
        """Return the report with the columns."""
        extras: dict[str, float] = {}
        for diagnostic in self.diagnostics:
            try:
                columns = diagnostic(step, forwards, report).items()
                # A tensor or an array's number is no cell of a log, and would be held by the history.
                extras |= {name: value if isinstance(value, (bool, int)) else float(value) for name, value in columns}
            except Exception as error:
                topic = f"diagnostic {id(diagnostic)}"
                self._say(topic, f"diagnostic {diagnostic!r} failed and is left out: {error!r}")
        return replace(report, extras=extras) if extras else report
