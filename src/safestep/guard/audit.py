"""Audits a guard: measures a share of the applied steps again, exactly, and tells how far beyond target they went."""

from __future__ import annotations

import math
from collections.abc import Mapping

from safestep.errors import MeasurementError
from safestep.radius import Radius
from safestep.radius.across_ranks import measured
from safestep.radius.radius import State
from safestep.recording.forwards import Forwards
from safestep.recording.proposal import Proposal
from safestep.recording.step import Step
from safestep.records.report import StepReport

COLUMN = "audited_ratio"
"""The column of the records that holds the exact r of the applied step."""

_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


class Audit:
    r"""The exact r of applied steps beside the target they were kept to. Made by ``guard.audit()``.

    Equation:
        ``excess = r(s p) / target`` with the exact r of what was written to the parameters, ``s p``. Where a policy has
        no target, 1 takes its place.

    Args:
        radius: measures exactly.
        fraction: the share of the steps to audit, in (0, 1]. Which ones depends on their number alone: no random
            generator is touched, and training goes on bit for bit as it would without an audit.

    Attributes:
        excesses: ``r / target`` of the audited steps by their number, oldest first.
        unmeasured: how many audited steps could not be measured exactly.

    Raises:
        ValueError: for a fraction outside (0, 1].

    Note:
        Under ``SoftmaxRadius(sync="never")`` training does change: an audit wants the numbers of each step, so that the
        guard waits for them as under ``"auto"``, and that is what is audited.

        An audit costs what an exact measurement costs, on the steps it looks at. Steps that were undone or skipped
        moved nothing and are not audited. r is exact as far as `safestep.SoftmaxRadius` says of its exact method.
    """

    def __init__(self, radius: Radius, fraction: float = 1.0) -> None:
        if not 0.0 < fraction <= 1.0:
            raise ValueError(f"fraction={fraction!r}: expected a share of the steps in (0, 1]")
        self.fraction = fraction
        self.excesses: dict[int, float] = {}
        self.unmeasured = 0
        self._radius = radius
        self._state: State = None

    def __call__(self, step: Step, forwards: Forwards, report: StepReport) -> Mapping[str, float]:
        """Audit a step that was just applied, if its turn has come; the guard calls it."""
        # Multiples of the golden ratio spread evenly: every stretch of steps has its share.
        if not (report.step + 1) * _GOLDEN % 1.0 < self.fraction or report.scale == 0.0:
            return {}
        try:
            proposal = Proposal(step.applied(), forwards, report.target, fresh_share=report.fresh_share)
            reading, self._state = measured(self._radius, proposal, self._state)
        except MeasurementError:
            self.unmeasured += 1
            return {COLUMN: math.nan}
        target = 1.0 if math.isnan(report.target) else report.target
        self.excesses[report.step] = reading.ratio / target
        return {COLUMN: reading.ratio}

    @property
    def count(self) -> int:
        """How many steps were audited."""
        return len(self.excesses)

    @property
    def worst(self) -> float:
        """The largest exact r of an applied step, in units of its target; nan before the first audit."""
        # nan counts as worst of all, and would not under max alone
        return max(self.excesses.values(), key=lambda excess: (math.isnan(excess), excess), default=math.nan)

    def share_above(self, limit: float) -> float:
        """Return the share of the audited steps whose r is above ``limit`` times the target; nan before the first."""
        above = sum(not excess <= limit for excess in self.excesses.values())  # nan is above
        return above / self.count if self.count else math.nan

    def __str__(self) -> str:
        """Return one readable line."""
        if not self.excesses:
            return "audit: no step audited yet"
        above = f"{self.share_above(1.05):.2%} above 1.05 target, worst {self.worst:.4g} target"
        text = f"audit of {self.count} steps: {above}"
        return f"{text}; {self.unmeasured} could not be measured" if self.unmeasured else text

    def __repr__(self) -> str:
        return f"<{self}>"
