"""The statistics of a step that are compared, each with its target: every radius of the study is made here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from safestep.radius import CurvatureRadius, Radius, SoftmaxRadius, Tightest

_LARGEST = SoftmaxRadius(method="exact")
_MEDIAN = SoftmaxRadius(method="exact", quantile=0.5)


@dataclass(frozen=True)
class Statistic:
    """What a step is measured by, and the one target of the held-out runs.

    The target may be changed after a look at tuning runs, never after one at held-out runs. These are of small studies
    that went before; no full tuning run has confirmed them yet.
    """

    radius: Radius
    chosen: float


STATISTICS: Mapping[str, Statistic] = {
    "largest": Statistic(_LARGEST, 1.0),
    "median": Statistic(_MEDIAN, 0.12),
    "curvature": Statistic(CurvatureRadius(), 0.2),
    "pair": Statistic(Tightest({CurvatureRadius(): 0.2, _MEDIAN: 0.25}), 1.0),
}
"""Every statistic by its name in settings."""
