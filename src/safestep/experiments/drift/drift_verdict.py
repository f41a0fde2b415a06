"""What the drift runs of many seeds come to, and how far they are from theory, in sentences for the page."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence

from safestep.experiments.runner.experiment import Row
from safestep.records.report import number, plain

_LOW = "steps_to_1e-4"


def over_seeds(rows: Sequence[Row]) -> list[Row]:
    """Return one summary for every label, in the order of the rows.

    Args:
        rows: outcomes, see `safestep.experiments.drift.drift_outcome.outcome`, each with ``label``, ``run``, ``law``,
            ``gain`` and ``seed``.

    Returns:
        Summaries with how many ``seeds`` and ``diverged``; the largest ``peak_over_first`` and ``highest_rise``; the
        median, least and largest number of steps to a loss of 1e-4 (a seed that never got there counts as inf); the
        median of the steps above the limit. And the largest relative distances from theory, where a law promises
        something: of each factor between losses from the second step on (``growth_off``, run B), of the second alpha
        and of that of step 50 (``second_off``, ``settled_off``, secant law); None elsewhere.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["label"], []).append(row)
    found: list[Row] = plain([_summary(group) for group in groups.values()])
    return found


def _summary(rows: Sequence[Row]) -> Row:
    first = rows[0]
    taken = [math.inf if row[_LOW] is None else float(row[_LOW]) for row in rows]
    secant = first["law"] == "secant"
    return {
        **{key: first[key] for key in ("label", "run", "law", "gain")},
        "seeds": len(rows),
        "diverged": sum(bool(row["diverged"]) for row in rows),
        "peak_over_first": _most(rows, "peak_over_first"),
        "highest_rise": _most(rows, "highest_rise"),
        "growth_off": _off(rows, "growth_theory", "growth_low", "growth_high") if first["run"] == "B" else None,
        "second_off": _off(rows, "alpha_theory", "alpha_second") if secant else None,
        "settled_off": _off(rows, "settled_theory", "alpha_settled") if secant else None,
        "steps_median": statistics.median(taken),
        "steps_range": f"{_count(min(taken))} to {_count(max(taken))}",
        "above_limit_median": float(statistics.median(row["steps_above_limit"] for row in rows)),
        "held": sum(row["steps_held"] for row in rows),
    }


def _most(rows: Sequence[Row], key: str) -> float:
    values = [number(row[key]) for row in rows]
    return max(math.inf if math.isnan(value) else value for value in values)


def _off(rows: Sequence[Row], theory: str, *keys: str) -> float:
    """Return the largest relative distance from theory; nan is as far as can be."""
    found = [abs(number(row[key]) / number(row[theory]) - 1.0) for row in rows for key in keys]
    return max(math.inf if math.isnan(value) else value for value in found)


def _count(steps: float) -> str:
    return "never" if math.isinf(steps) else f"{steps:.0f}"


def findings(rows: Sequence[Row]) -> list[str]:
    """Return how the runs of each label ended."""
    return [sentence for summary in over_seeds(rows) for sentence in _said(summary)]


def _said(summary: Row) -> Iterator[str]:
    seeds, lost = summary["seeds"], summary["diverged"]
    peak = number(summary["peak_over_first"])
    label = summary["label"]
    if summary["run"] == "B":
        off = number(summary["growth_off"])
        yield (
            f"{label}, no throttle: {_diverges(seeds, lost)}. From the second step on the loss grows by the factor of "
            f"theory, (1 − ηγ²λ)² a step, to within {_percent(off)}."
        )
    elif summary["run"] == "C":
        jump = (
            "the loss is never above its first value"
            if peak <= 1.0
            else f"the loss rises to {peak:.4g} times its first value{' at most' if seeds > 1 else ''}"
        )
        median = number(summary["steps_median"])
        steps = "does not get below 10⁻⁴" if math.isinf(median) else f"takes {median:.0f} steps to get below 10⁻⁴"
        yield f"{label}: {_diverges(seeds, lost)}; {jump}; it {steps}{_range(summary)}."
    else:
        yield f"{label}: {_diverges(seeds, lost)}."
    if summary["law"] == "secant" and not math.isinf(number(summary["settled_off"])):
        yield (
            f"{label}: the second α is χ/(ηγ²λ) to within {_percent(number(summary['second_off']))}; at step 50 it is "
            f"2/(ηγ²(λ_max + λ_min)) to within {_percent(number(summary['settled_off']))}."
        )


def _diverges(seeds: int, lost: int) -> str:
    if seeds == 1:
        return "diverges" if lost else "does not diverge"
    return f"{lost} of {seeds} seeds diverge"


def _range(summary: Row) -> str:
    return f" (median; {summary['steps_range']})" if summary["seeds"] > 1 else ""


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
