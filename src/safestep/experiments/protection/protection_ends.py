"""How runs end under a cheap method, against the exact cap from the same beginnings."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from safestep.experiments.runner.experiment import Row
from safestep.records.report import number

EXACT = "exact"
"""The method that the others are compared with."""
_JUDGES = {"accuracy": ("final_acc", -1.0), "loss": ("final_loss", 1.0)}
"""The column a run is judged by, and the sign that makes more of it worse."""


@dataclass(frozen=True)
class Comparison:
    """How one setting of a method ends, against the exact cap from the same beginnings.

    Attributes:
        setting: workload, rate and disturbance, as labels say them.
        judged: "accuracy" or "loss".
        worse: mean over the seeds; positive is worse than the exact cap, inf where a run diverged that there did not.
        error: standard error of that mean; nan for one seed.
        seeds: how many were compared.
    """

    setting: str
    judged: str
    worse: float
    error: float
    seeds: int


def comparisons(rows: Sequence[Row], method: str) -> list[Comparison]:
    """Return every setting of a method that the exact cap has runs of, too.

    Args:
        rows: of results.json.
        method: as rows name it.

    Example:
        >>> row = {"label": "digits SGD 0.5, exact", "method": "exact", "judged": "accuracy", "seed": 7,
        ...        "final_acc": 0.75, "workload": "digits-sgd", "rate": 0.5, "disturbance": "none"}
        >>> other = {**row, "label": "digits SGD 0.5, probe", "method": "probe", "final_acc": 0.5}
        >>> [(found.setting, found.worse) for found in comparisons([row, other], "probe")]
        [('digits SGD 0.5', 0.25)]
    """
    exact = {(*_setting(row), row["seed"]): row for row in rows if row["method"] == EXACT}
    differences: dict[tuple[Any, ...], list[float]] = {}
    rows_of: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        twin = exact.get((*_setting(row), row["seed"]))
        if row["method"] == method and twin is not None:
            rows_of[_setting(row)] = row
            column, sign = _JUDGES[row["judged"]]
            differences.setdefault(_setting(row), []).append(_worse(sign, number(row[column]), number(twin[column])))
    return [
        Comparison(
            setting=rows_of[setting]["label"].removesuffix(f", {method}"),
            judged=rows_of[setting]["judged"],
            worse=statistics.fmean(values),
            error=_error(values),
            seeds=len(values),
        )
        for setting, values in differences.items()
    ]


def _setting(row: Row) -> tuple[Any, ...]:
    return row["workload"], row["rate"], row["disturbance"]


def _worse(sign: float, ours: float, theirs: float) -> float:
    if math.isfinite(ours) and math.isfinite(theirs):
        return sign * (ours - theirs)
    return 0.0 if not math.isfinite(theirs) else math.inf  # not a number: diverged


def _error(values: Sequence[float]) -> float:
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return math.nan
    return statistics.stdev(values) / math.sqrt(len(values))
