"""Training runs over seeds: what a typical run does, and how far the others are from it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import cast

from safestep.experiments.runner.experiment import Row, grouped
from safestep.records.report import number, plain


def over_seeds(rows: Sequence[Row]) -> list[Row]:
    """Return one summary for every label: how many seeds, how many diverged, the accuracy and medians of the rest.

    The standard deviation of the accuracy (divisor n - 1) is "nan" for one seed, its interquartile range 0. Diverged
    runs count with what they reached; a peak r of nan counts as infinite. A row that lacks a number is left out of its
    statistic, "nan" where all do.

    Example:
        >>> row = {"label": "pin", "optimizer": "SGD", "policy": "pin", "base_lr": None, "peak_r": 1.0,
        ...        "final_cap_fraction": 1.0, "diverged": False}
        >>> (summary,) = over_seeds([{**row, "final_acc": 0.5}, {**row, "final_acc": 0.75}])
        >>> summary["seeds"], summary["final_acc_mean"], summary["final_acc_iqr"]
        (2, 0.625, 0.125)
    """
    return [_summary(group) for group in grouped(rows)]


def _summary(rows: Sequence[Row]) -> Row:
    accuracies = _numbers(rows, "final_acc") or [math.nan]
    several = len(accuracies) > 1
    low, _, high = statistics.quantiles(accuracies, n=4, method="inclusive") if several else accuracies * 3
    summary: Row = {
        **{key: rows[0].get(key) for key in ("label", "optimizer", "policy", "base_lr")},
        "seeds": len(rows),
        "diverged": sum(bool(row.get("diverged")) for row in rows),
        "final_acc_mean": statistics.fmean(accuracies),
        "final_acc_std": statistics.stdev(accuracies) if several else math.nan,
        "final_acc_median": statistics.median(accuracies),
        "final_acc_iqr": high - low,
        "peak_r_median": _median(rows, "peak_r"),
        "final_mean_lr_median": _median(rows, "final_mean_lr"),
        "final_cap_fraction_median": _median(rows, "final_cap_fraction"),
    }
    return cast(Row, plain(summary))


def _median(rows: Sequence[Row], key: str) -> float:
    values = [math.inf if math.isnan(value) else value for value in _numbers(rows, key)]
    return statistics.median(values) if values else math.nan


def _numbers(rows: Sequence[Row], key: str) -> list[float]:
    return [number(row[key]) for row in rows if row.get(key) is not None]
