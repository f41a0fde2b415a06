"""The sink for Weights & Biases."""

from __future__ import annotations

import math
from typing import Any

from safestep._torch.extras import need
from safestep.logs.columns import MEASURED, numbers
from safestep.logs.sink import Sink
from safestep.records.report import StepReport


class WandB(Sink):
    """A sink that logs each report to a W&B run, on a step of its own.

    The columns are ``safestep/ratio``, ``safestep/status`` and so on, drawn over ``safestep/step``, the guard's step.

    W&B drops whatever is logged for a step below the run's current one, and every plain ``run.log(...)`` raises that
    step. So this sink commits nothing: a report waits in the row that the loop's next ``run.log(...)`` completes, and
    only where the loop wrote none since the last report does it take a row of its own. A loop that logs after each
    optimizer step, with ``step=`` or without, finds its own rows numbered as without a guard.

    Args:
        run: the run; without one ``wandb.run``, as it is when a report comes: the sink may be made before
            ``wandb.init()``.
        prefix: the first part of every column; two guards that share a run need one each.
        own_rows: False never takes a row of its own, for loops that pass a ``step=`` which rises more slowly than
            the optimizer steps, such as an epoch: of several reports between two rows of the loop the last one stays.

    Raises:
        MissingExtraError: if wandb is not installed.

    Example:
        >>> import wandb
        >>> run = wandb.init(mode="disabled")
        >>> WandB(run, prefix="student")
        WandB(prefix='student')

    Note:
        Numbers that are not finite are logged as they are. W&B keeps them in its tables and leaves them out of its
        charts; ``safestep/status`` tells what became of such a step. In mode ``"shared"`` a run has no step, and each
        report is a row.
    """

    def __init__(self, run: Any = None, *, prefix: str = "safestep", own_rows: bool = True) -> None:
        self.prefix, self.own_rows = prefix, own_rows
        self._wandb = need("wandb", "wandb") if run is None else None
        self._given, self._known = run, None
        self._row: int | None = None

    def __call__(self, report: StepReport) -> None:
        """Log a report."""
        run = self._given if self._wandb is None else self._wandb.run
        if run is None:
            raise ValueError("no W&B run: call wandb.init() before the first step, or pass WandB(run)")
        step = f"{self.prefix}/step"
        if run is not self._known:
            run.define_metric(step, hidden=True)
            run.define_metric(f"{self.prefix}/*", step_metric=step)
            self._known, self._row = run, None
        known = numbers(report)
        if not self.own_rows:  # the row may hold an earlier report, of which nothing must stay
            known = dict.fromkeys(("predicted_ratio", *MEASURED), math.nan) | known
        columns = {f"{self.prefix}/{name}": value for name, value in known.items()}
        texts = {f"{self.prefix}/status": str(report.status), f"{self.prefix}/message": report.message}
        if run.settings.mode == "shared":
            run.log({step: report.step, **columns, **texts})
            return
        if self.own_rows:
            self._next_row(run)
        run.log({step: report.step, **columns, **texts}, commit=False)

    def _next_row(self, run: Any) -> None:
        """See to it that the row which waits for its commit holds no earlier report."""
        run.log({}, commit=False)  # of a run that is over, this raises where `step` would wait half a minute
        row = run.step
        if row == self._row:
            run.log({}, commit=True)
            row += 1
        self._row = row

    def __repr__(self) -> str:
        return f"WandB(prefix={self.prefix!r})"
