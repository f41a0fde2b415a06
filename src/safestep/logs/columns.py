"""The numbers of a report that a dashboard draws."""

from __future__ import annotations

import math

from safestep.records.report import StepReport

MEASURED = ("ratio", "applied_ratio", "radius")
"""What rests on a measurement of r."""
_DRAWN = ("scale", "would_scale", "step_length", "applied_length", "age", "exact")


def numbers(report: StepReport) -> dict[str, float]:
    """Return the numbers of a report by name, as floats; flags are 0 and 1.

    The learning rates are ``lr`` and ``effective_lr`` for the first parameter group, and ``lr/1``,
    ``effective_lr/1``, ... for the others. A target that there is none of has no column, nor has an extra that is no
    number. Where r was predicted, ``predicted_ratio`` stands in the place of all that rests on a measurement.
    Numbers that are not finite stay what they are.
    """
    ratios = ("predicted_ratio",) if report.predicted else MEASURED
    columns = {name: float(getattr(report, name)) for name in (*ratios, *_DRAWN)}
    if not math.isnan(report.target):
        columns["target"] = report.target
    for group, (lr, effective) in enumerate(zip(report.lrs, report.effective_lrs, strict=True)):
        suffix = f"/{group}" if group else ""
        columns[f"lr{suffix}"], columns[f"effective_lr{suffix}"] = lr, effective
    for name, value in report.extras.items():
        try:
            columns.setdefault(name, float(value))
        except (TypeError, ValueError):
            continue
    return columns
