"""Sums up the latest steps of a guard: what a trainer's own log has of them beside its loss."""

from __future__ import annotations

import math
from itertools import islice
from statistics import fmean

from safestep.records.report import History


def recent(history: History, steps: int) -> dict[str, float]:
    """Return r, scale and cap share of the latest steps, under the names they have in a trainer's log.

    * ``safestep/ratio``: the largest r that is finite; left out where none is known.
    * ``safestep/scale``: the mean of the scales that were applied.
    * ``safestep/cap_share``: the share of the steps that were shortened, held, undone or skipped, in [0, 1].

    Args:
        history: of the guard.
        steps: how many steps to look back, at most as many as the history keeps.

    Returns:
        The numbers; none of a history without steps.

    Example:
        >>> recent(History(), 10)
        {}
    """
    reports = [*islice(reversed(history), max(0, steps))]
    if not reports:
        return {}
    scales = [report.scale for report in reports]
    ratios = [report.known_ratio for report in reports if math.isfinite(report.known_ratio)]
    numbers = {"ratio": max(ratios)} if ratios else {}
    # A pinned step may be lengthened.
    numbers |= {"scale": fmean(scales), "cap_share": sum(scale < 1.0 for scale in scales) / len(scales)}
    return {f"safestep/{name}": number for name, number in numbers.items()}
