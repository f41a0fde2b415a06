"""The sink that thins out what another one gets."""

from __future__ import annotations

import math
from collections.abc import Callable

from safestep.errors import AttachError
from safestep.logs.sink import Sink, as_sink
from safestep.records.reading import Status
from safestep.records.report import StepReport

LOST = frozenset({Status.UNDONE, Status.SKIPPED, Status.HELD, Status.NONFINITE, Status.UNMEASURED})
"""What becomes of a step that nobody should miss."""
_LASTING = frozenset({Status.NONFINITE, Status.UNMEASURED})


def is_lost(report: StepReport) -> bool:
    """Return whether a step is one that nobody should miss: not taken, not finite, or not measured.

    Steps whose r is infinite under a policy that only watches (uphill on their own batch) are of them.
    """
    return report.status in LOST or math.isinf(report.known_ratio)


class Every(Sink):
    """Passes every n-th report on to another sink, and those between that nobody should miss.

    These reports are passed on, in the order of the steps:

    * the first, and each whose step is a multiple of ``n``;
    * each step that was undone, skipped or held, or whose r is infinite. What a policy that only watches leaves alone
      (not finite, not measured) may last for ever: the first of each such series;
    * of the others, the step that went furthest beyond its target (r = 1 where there is none) since the last report of
      the first kind. It is passed on late: with the next report, or on closing. A kill loses it.

    Args:
        n: a whole number of at least 1; 1 passes everything on.
        sink: what the reports go to.

    Raises:
        AttachError: for an ``n`` that is no such number, or a sink that cannot be called.

    Example:
        >>> steps = []
        >>> sparse = Every(100, lambda report: steps.append(report.step))
        >>> import torch, safestep
        >>> model = torch.nn.Linear(4, 3)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        >>> guard = safestep.attach(model, optimizer, log=sparse)
        >>> for _ in range(201):
        ...     torch.nn.functional.cross_entropy(model(torch.ones(1, 4)), torch.tensor([0])).backward()
        ...     optimizer.step()
        ...     optimizer.zero_grad()
        >>> steps
        [0, 100, 200]

    Note:
        Columns of diagnostics that speak at some steps only, and of ``guard.audit(fraction)``, are thinned out as well.
    """

    def __init__(self, n: int, sink: Sink | Callable[[StepReport], object]) -> None:
        self.n, self.sink = check_every(n), as_sink(sink, f"Every({n}, {sink!r})")
        self.each_rank = self.sink.each_rank
        self._furthest: StepReport | None = None
        self._before: Status | None = None

    def __call__(self, report: StepReport) -> None:
        """Pass a report on, or keep it until a longer step or a regular one follows."""
        before, self._before = self._before, report.status
        if self._furthest is not None and self._furthest.step >= report.step:
            self._furthest = None  # the run went back to an older state, and this step is no part of it any more
        lasts = report.status in _LASTING and before is report.status
        if before is None or report.step % self.n == 0 or (is_lost(report) and not lasts):
            self._pass_on()
            self.sink(report)
        elif not lasts and _excess(report) > (_excess(self._furthest) if self._furthest is not None else 1.0):
            self._furthest = report

    def open(self) -> None:
        """Open the other sink."""
        self.sink.open()

    def close(self) -> None:
        """Pass on what was kept, and close the other sink."""
        try:
            self._pass_on()
        finally:
            self.sink.close()

    def __repr__(self) -> str:
        return f"Every({self.n}, {self.sink!r})"

    def _pass_on(self) -> None:
        furthest, self._furthest = self._furthest, None
        if furthest is not None:
            self.sink(furthest)


def check_every(n: object, name: str = "n") -> int:
    """Return a number of steps.

    Raises:
        AttachError: if it is not a whole number of at least 1.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise AttachError(f"{name}={n!r}: expected every how many steps to log, a whole number of at least 1")
    return n


def _excess(report: StepReport) -> float:
    return report.known_ratio if math.isnan(report.target) else report.known_ratio / report.target
