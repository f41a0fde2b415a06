"""What came out of noisy-descent and noise-floor, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from safestep.experiments.noise.descent_plan import NO_NOISE
from safestep.experiments.report.tables import cell
from safestep.experiments.runner.experiment import Row
from safestep.records.report import number


def descent_findings(summary: Sequence[Row]) -> list[str]:
    """Return which schedule ends lowest and highest after as many steps, and how far from the law any ensemble is."""
    noisy = [row for row in summary if row["schedule"] != NO_NOISE]
    steps = min((row["steps"] for row in noisy), default=0)
    ends = sorted((number(row["mean_f"]), row["schedule"]) for row in noisy if row["steps"] == steps)
    if not ends:
        return []
    best, worst = (f"{cell(mean, '#.3g')} with the schedule {label}" for mean, label in (ends[0], ends[-1]))
    off, farthest = max((number(row["worst_z"]), row["label"]) for row in summary)
    return [
        f"The mean of f after {steps} steps is lowest, {best}, and highest, {worst}.",
        f"The simulation is at most {cell(off, '.1f')} standard errors off the exact law ({farthest}).",
    ]


def floor_findings(summary: Sequence[Row]) -> list[str]:
    """Return what a floor is in units of the rate, how far from the law any is, and which rates have none."""
    settled = [row for row in summary if row.get("slope") is not None]
    told = []
    if settled:
        floors = [f"{cell(number(row['slope']), '#.3g')} ({row['label']})" for row in settled[:2]]
        off = [number(row["worst_floor_z"]) for row in settled if row["worst_floor_z"] is not None]
        told.append(f"At a small rate the floor is so many times the rate: {', '.join(floors)}.")
        if off:
            told.append(f"Floors are at most {cell(max(off), '.1f')} standard errors off the law.")
    if lost := [number(row["diverged_from"]) for row in summary if row["diverged_from"] is not None]:
        told.append(f"The lowest rate at which runs diverged: {min(lost):g}.")
    return told
