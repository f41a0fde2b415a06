"""What is kept of an ensemble: the records that its pictures are drawn from, and the row of its last step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from safestep.descent import Distance, Ensemble
from safestep.experiments.noise.descent_plan import Descent, NoisyDescentSettings
from safestep.experiments.runner.experiment import Record, Row
from safestep.records.report import plain


def records_of(name: dict[str, Any], ensemble: Ensemble, distance: Distance) -> Iterator[Record]:
    """Yield the statistics at the recorded steps beside the law, the rate of every step, and the traces.

    Args:
        name: what tells the run from others: label, seed, schedule, steps.
        ensemble: what came out.
        distance: from the exact law.
    """
    found, law = ensemble.moments, distance.law
    # first_step tells the page that this is a piece of a run, see safestep.experiments.report.gaps
    yield plain(
        {
            "kind": "course",
            **name,
            "first_step": 0,
            "runs": ensemble.runs,
            "at": ensemble.at.tolist(),
            **_by_coordinate("mean", found.mean),
            **_by_coordinate("var", found.variance if ensemble.runs > 1 else law.variance),
            "mean_f": found.loss.tolist(),
            "quantiles_f": found.loss_quantiles.T.tolist(),
            "finite": found.finite.tolist(),
            **_by_coordinate("law_mean", law.mean),
            **_by_coordinate("law_var", law.variance),
            "law_mean_f": law.loss.tolist(),
            "worst_z": distance.worst.tolist(),
        }
    )
    yield plain({"kind": "rates", **name, "rate": ensemble.setting.rates().tolist()})
    for run, trace in enumerate(ensemble.traces):
        points = {f"x{i}": column.tolist() for i, column in enumerate(trace.T, 1)}
        yield plain({"kind": "trace", **name, "run": run, **points, "last_point": ensemble.last_point(run)})


def row_of(
    name: dict[str, Any], settings: NoisyDescentSettings, descent: Descent, ensemble: Ensemble, distance: Distance
) -> Row:
    """Return what a descent came to: its last step beside the law, and how far its rates reach.

    ``worst_z`` is the largest distance from the law at the last step, over the two means, the two variances and the
    mean of f, in standard errors; ``worst_z_any`` is that of all recorded steps, over ``comparisons`` numbers. The
    variances of a single run are 0. ``rate_sum`` is the sum of the rates so far, ``rate_sum_ever`` with all steps that
    could follow.
    """
    found, law = ensemble.moments, distance.law
    mean = found.mean[-1]
    variance = found.variance[-1] if ensemble.runs > 1 else law.variance[-1]
    statistics = 2 * len(mean) + 1
    row = {
        **name,
        "runs": ensemble.runs,
        **{f"mean_x{i}": value for i, value in enumerate(mean.tolist(), 1)},
        **{f"var_x{i}": value for i, value in enumerate(variance.tolist(), 1)},
        "mean_f": found.loss[-1].item(),
        "law_mean_x1": law.mean[-1, 0].item(),
        "law_mean_f": law.loss[-1].item(),
        "worst_z": distance.worst[-1].item(),
        "worst_z_any": distance.worst.max().item(),
        "comparisons": statistics * (len(ensemble.at) - 1) if descent.noise else 0,
        "mean_distance": mean.norm().item(),
        "last_rate": ensemble.rates[-1].item(),
        "rate_sum": ensemble.setting.rates().sum().item(),
        "rate_sum_ever": settings.rate * descent.schedule.sum(first=settings.first),
        "last_point": ensemble.last_point(),
        "diverged": bool(ensemble.lost),
    }
    kept: Row = plain(row)
    return kept


def _by_coordinate(name: str, values: Tensor) -> dict[str, list[float]]:
    return {f"{name}_x{i}": column.tolist() for i, column in enumerate(values.T, 1)}
