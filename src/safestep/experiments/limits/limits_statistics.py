"""The statistics of a step that are compared, each with its target: every radius of the study is made here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from safestep.radius import CurvatureRadius, Radius, SoftmaxRadius
from safestep.radius.row_sample import Sample

_SAMPLE: Sample = "some"


@dataclass(frozen=True)
class Statistic:
    """What a step is measured by, and the one target of the held-out runs.

    The target may be changed after a look at tuning runs, never after one at held-out runs. That of the default was
    chosen on seeds 0 and 1 of text-gpt and digits-mlp; the others are of small studies that went before. Without a
    radius it is the one that `attach` takes for the optimizer.
    """

    radius: Radius | None
    chosen: float


STATISTICS: Mapping[str, Statistic] = {
    "largest": Statistic(SoftmaxRadius(), 1.0),
    "mean": Statistic(SoftmaxRadius(over="mean", sample=_SAMPLE), 0.12),
    "curvature": Statistic(CurvatureRadius(sample=_SAMPLE), 0.2),
    "curvature-whole": Statistic(CurvatureRadius(), 0.2),
    "default": Statistic(None, 1.0),
}
"""Every statistic by its name in settings; all but ``curvature-whole`` are measured on some rows of each batch."""
