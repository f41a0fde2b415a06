"""What each status means, in the words that `watch`, the page and docs/looking-at-a-run.md have for it."""

from __future__ import annotations

from collections.abc import Iterable

from safestep.records.reading import Status
from safestep.records.report import StepReport

MEANINGS = {
    Status.INSIDE: "within its target, taken as the optimizer made it",
    Status.CAPPED: "beyond its target, shortened to it",
    Status.PINNED: "set to the target, longer or shorter than the optimizer made it",
    Status.THROTTLED: "scaled by the throttle",
    Status.HELD: "uphill on its own batch (r = inf): not taken, though the optimizer's moments advance; fine if rare",
    Status.WATCHED: "measured and left alone",
    Status.UNBOUNDED: "changes no prediction (r = 0), taken as the optimizer made it",
    Status.UNMEASURED: "could not be measured and was left alone; its message says why",
    Status.NONFINITE: "the step or its r is not finite; left alone, as the policy only watches",
    Status.UNDONE: "the step or its r was not finite: the parameters were put back",
    Status.SKIPPED: "the gradients were not finite: the optimizer was kept from stepping",
    Status.STILL: "the optimizer moved nothing (a rate of 0, or a gradient scaler's skip)",
}


def meanings(reports: Iterable[StepReport]) -> dict[str, str]:
    """Return what the statuses that occur mean, in the order above.

    Example:
        >>> meanings([])
        {}
    """
    found = {report.status for report in reports}
    return {str(status): words for status, words in MEANINGS.items() if status in found}
