"""The records of an instrumented run, to print and to draw."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from safestep.records.report import History, StepReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = {
    "loss": "loss",
    "weight error": "weight_error_fro",
    "‖g‖": "grad_norm",
    "C": "curvature_proxy",
    "λ_max": "hessian_lambda_max",
    "ηλ_max": "stability_margin_lambda_raw",
    "α": "alpha",
}
"""What a table shows, by its heading."""
_FIRST, _LAST = 6, 6


class RunHistory(History):
    """Every record of a run, oldest first: columns by name, a table when printed, a picture when plotted.

    Example:
        >>> print(RunHistory())
        no steps yet
    """

    def __init__(self) -> None:
        super().__init__()
        self._reports = deque()  # unbounded: a run is complete or it is no record

    @property
    def diverged(self) -> bool:
        """Whether the last step left or found something that is not finite."""
        return len(self) > 0 and bool(self[-1].extras.get("diverged", False))

    def plot(self, title: str = "") -> Figure:
        """Draw loss, weight error, gradient norm, curvatures, margin and alpha; see `safestep.plots.throttled_run`.

        Raises:
            MissingExtraError: if matplotlib is not installed.
        """
        from safestep.plots import throttled_run

        return throttled_run(self, title=title)

    def __str__(self) -> str:
        """Return how the run went in a line, and a table of its first and last steps."""
        if not len(self):
            return "no steps yet"
        losses = [_of(report, "loss") for report in self]
        peak = max(losses, key=lambda loss: math.inf if math.isnan(loss) else loss)
        end = f"diverged at step {self[-1].step}" if self.diverged else "finite throughout"
        acted = sum(report.scale != 1.0 for report in self)
        course = f"loss {losses[0]:.4g} at first, {peak:.4g} at most, {losses[-1]:.4g} at last"
        head = f"{len(self)} steps, {end}: {course}; α other than 1 in {acted} of them"
        reports = list(self)
        short = len(reports) <= _FIRST + _LAST
        shown = [reports] if short else [reports[:_FIRST], reports[-_LAST:]]
        rows = ["\n".join(_row(report) for report in part) for part in shown]
        names = f"{'step':>7}" + "".join(f"{name:>13}" for name in _COLUMNS)
        return "\n".join([head, names, f"\n{'...':>7}\n".join(rows)])

    def __repr__(self) -> str:
        return f"<RunHistory of {len(self)} steps{', diverged' if self.diverged else ''}>"


def _of(report: StepReport, column: str) -> float:
    return float(report.extras.get(column, math.nan))


def _row(report: StepReport) -> str:
    return f"{report.step:>7}" + "".join(f"{_of(report, column):>13.4g}" for column in _COLUMNS.values())
