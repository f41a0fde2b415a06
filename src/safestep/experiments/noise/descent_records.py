"""What is kept of an ensemble: its statistics beside the law at the recorded steps, and the row of its last step."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor

from safestep.descent import Distance, Ensemble
from safestep.experiments.noise.descent_plan import Descent, NoisyDescentSettings
from safestep.experiments.runner.experiment import Row
from safestep.records.report import plain


def course_of(ensemble: Ensemble, distance: Distance) -> dict[str, Any]:
    """Return statistics and law by column, one value for each recorded step.

    ``worst_z`` is the largest distance from the law, over the two means, the two variances and the mean of f, in
    standard errors. The variances of a single run are 0.
    """
    moments, law = ensemble.moments, distance.law
    return {
        "at": ensemble.at.tolist(),
        **_by_coordinate("mean", moments.mean),
        **_by_coordinate("var", moments.variance if ensemble.runs > 1 else law.variance),
        "mean_f": moments.loss.tolist(),
        "quantiles_f": moments.loss_quantiles.T.tolist(),
        "finite": moments.finite.tolist(),
        **_by_coordinate("law_mean", law.mean),
        **_by_coordinate("law_var", law.variance),
        "law_mean_f": law.loss.tolist(),
        "worst_z": distance.worst.tolist(),
    }


def row_of(
    settings: NoisyDescentSettings, descent: Descent, ensemble: Ensemble, distance: Distance, course: dict[str, Any]
) -> Row:
    """Return what a descent came to: its last step beside the law, and how far its rates reach.

    ``worst_z_any`` is the largest distance from the law of all recorded steps, over ``comparisons`` numbers.
    ``rate_sum`` is the sum of the rates so far, ``rate_sum_ever`` with all steps that could follow.
    """
    last = ("mean_x1", "mean_x2", "var_x1", "var_x2", "mean_f", "law_mean_x1", "law_mean_f", "worst_z")
    row = {
        "runs": ensemble.runs,
        **{key: course[key][-1] for key in last},
        "worst_z_any": distance.worst.max().item(),
        "comparisons": 5 * (len(ensemble.at) - 1) if descent.noise else 0,
        "mean_distance": ensemble.moments.mean[-1].norm().item(),
        "last_rate": ensemble.rates[-1].item(),
        "rate_sum": ensemble.setting.rates().sum().item(),
        "rate_sum_ever": settings.rate * descent.schedule.sum(first=settings.first),
        "last_point": ensemble.last_point(),
        "diverged": bool(ensemble.lost),
    }
    return cast(Row, plain(row))


def _by_coordinate(name: str, values: Tensor) -> dict[str, list[float]]:
    return {f"{name}_x{i}": column.tolist() for i, column in enumerate(values.T, 1)}
