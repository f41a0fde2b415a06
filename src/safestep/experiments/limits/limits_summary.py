"""What the runs of limits come to: gaps to the best plain run of the seed, chosen and held-out runs apart."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from safestep.experiments.limits.limits_plan import CAP, PIN, PIN_DECAY, PLAIN, TUNING
from safestep.experiments.runner.experiment import Row
from safestep.records.report import number, plain

R = TypeVar("R", bound=Row)

ALLOWED: Mapping[str, float] = {"loss": 0.02, "accuracy": 0.005}
"""A run this far behind the best plain one, in nats or as a share of the answers, counts as good as it."""
_COLUMNS = {"rates": (PLAIN, CAP), "pin": (PIN,), "decay": (PIN_DECAY,)}


def with_gaps(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Return rows with their ``gap`` to the best plain run of the same role, task, optimizer and seed.

    It is in nats or a share of the answers, positive for a run that ends worse; ``excess`` is the same in units of what
    is `ALLOWED`. ``bold`` says whether the rate is the best plain one or higher, or there is none. Rows without a plain
    run to compare with are left out.

    Example:
        >>> row = {"role": "tuning", "task": "digits-mlp", "optimizer": "sgd", "seed": 0, "judged": "accuracy",
        ...        "final_loss": 0.2}
        >>> (_, capped) = with_gaps([{**row, "policy": "plain", "rate": 1.0, "final_acc": 0.75},
        ...                          {**row, "policy": "cap", "rate": 3.0, "final_acc": 0.5}])
        >>> capped["gap"], capped["excess"], capped["bold"]
        (0.25, 50.0, True)
    """
    found = []
    for group in groups_of(rows, "role", "task", "optimizer", "seed").values():
        best = min((row for row in group if row["policy"] == PLAIN), key=score, default=None)
        if best is None:
            continue
        for row in group:
            gap = 0.0 if score(row) == score(best) else score(row) - score(best)
            bold = row["rate"] is None or row["rate"] >= best["rate"]
            found.append({**row, "gap": gap, "excess": gap / ALLOWED[row["judged"]], "bold": bold})
    return found


def over_limits(rows: Iterable[Row]) -> list[Row]:
    """Return a summary for every role, task, statistic and target: over optimizers, seeds, rates from the best up.

    ``rates_worst`` and ``rates_mean`` are gaps of plain or capped runs, ``pin_`` and ``decay_`` of those without a
    rate; ``within`` is the share of all these that is allowed; ``best`` marks the `best_targets` in tuning rows.
    """
    bold = [row for row in with_gaps(rows) if row["bold"]]
    best = best_targets(bold)
    summaries = []
    for (role, task, statistic, target), group in groups_of(bold, "role", "task", "statistic", "target").items():
        limit = PLAIN if statistic is None else f"{statistic} {target:.3g}"
        summary = {"label": f"{role}: {task}, {limit}", "role": role, "task": task, "statistic": statistic,
                   "target": target, "judged": group[0]["judged"], "runs": len(group)}  # fmt: skip
        for column, policies in _COLUMNS.items():
            chosen = [row for row in group if row["policy"] in policies]
            worst = max(chosen, key=lambda row: row["gap"], default=None)
            summary[f"{column}_worst"] = worst and worst["gap"]
            summary[f"{column}_at"] = worst and " ".join(filter(None, (worst["optimizer"], _times(worst["rate"]))))
            summary[f"{column}_mean"] = statistics.fmean(row["gap"] for row in chosen) if chosen else None
        summary["within"] = _within(group)
        summary["lost"] = sum(bool(row["lost"]) for row in group)
        summary["best"] = None if role != TUNING or statistic is None else best[statistic] == target
        summaries.append(summary)
    told: list[Row] = plain(summaries)
    return told


def best_targets(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return, of rows `with_gaps`, the target of every statistic at which most tuning runs are within what is allowed.

    Held-out rows have no say. Of several such targets it is the one with the smaller median gap.
    """
    tuning = [row for row in rows if row["role"] == TUNING and row["statistic"] is not None and row["bold"]]
    found: dict[str, tuple[tuple[float, float], float]] = {}
    for (statistic, target), group in groups_of(tuning, "statistic", "target").items():
        merit = _within(group), -statistics.median(row["excess"] for row in group)
        if statistic not in found or merit > found[statistic][0]:
            found[statistic] = merit, target
    return {statistic: target for statistic, (_, target) in found.items()}


def _within(rows: Sequence[Mapping[str, Any]]) -> float:
    return statistics.fmean(row["excess"] <= 1.0 for row in rows)


def score(row: Mapping[str, Any]) -> float:
    """Return what a run is judged by, as something that is better where it is smaller."""
    score = number(row["final_loss"]) if row["judged"] == "loss" else -number(row["final_acc"])
    return math.inf if math.isnan(score) else score


def _times(rate: float | None) -> str:
    return "" if rate is None else f"×{rate:g}"


def groups_of(rows: Iterable[R], *keys: str) -> dict[tuple[Any, ...], list[R]]:
    """Return rows in groups by the values of some keys, in order of first appearance."""
    groups: dict[tuple[Any, ...], list[R]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return groups
