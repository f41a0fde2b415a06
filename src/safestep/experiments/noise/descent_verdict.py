"""What the noisy descents come to over their seeds, and in sentences for the page."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence

from safestep.experiments.noise.descent_plan import NO_NOISE
from safestep.experiments.runner.experiment import Row
from safestep.plots.frame import plain_number
from safestep.records.report import number, plain

_MEANS = ("mean_x1", "mean_x2", "var_x1", "var_x2", "mean_f", "law_mean_x1", "law_mean_f", "mean_distance")
_LARGEST = ("worst_z", "worst_z_any")
_SAME = ("label", "schedule", "steps", "last_rate", "rate_sum", "rate_sum_ever")


def over_seeds(rows: Sequence[Row]) -> list[Row]:
    """Return one summary for every label, in the order of the rows.

    Args:
        rows: see `safestep.experiments.noise.descent_records.row_of`.

    Returns:
        Summaries with the number of ``seeds``, the means of means and variances, the largest distances from the law,
        the sum of ``comparisons``, and whether any seed ``diverged``.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["label"], []).append(row)
    found: list[Row] = plain([_summary(group) for group in groups.values()])
    return found


def _summary(rows: Sequence[Row]) -> Row:
    return {
        **{key: rows[0][key] for key in _SAME},
        "seeds": len(rows),
        "runs": sum(row["runs"] for row in rows),
        **{key: statistics.fmean(number(row[key]) for row in rows) for key in _MEANS},
        **{key: max(number(row[key]) for row in rows) for key in _LARGEST},
        "comparisons": sum(row["comparisons"] for row in rows),
        "last_point": rows[0]["last_point"],
        "diverged": any(row["diverged"] for row in rows),
    }


def findings(rows: Sequence[Row]) -> list[str]:
    """Return what the rows say: where each schedule leads, and how far all of them are from the law."""
    summaries = over_seeds(rows)
    return [*_quiet(summaries), *_schedules(summaries), *_lowest(summaries), *_lost(summaries), *_distance(summaries)]


def _quiet(summaries: Sequence[Row]) -> Iterator[str]:
    for row in summaries:
        if row["schedule"] == NO_NOISE:
            yield (
                f"Without noise, {row['steps']} steps end {_say(row['mean_distance'])} from the minimum: "
                f"{row['last_point']}."
            )


def _schedules(summaries: Sequence[Row]) -> Iterator[str]:
    constant = next((row for row in summaries if row["schedule"] == "constant"), None)
    if constant and not constant["diverged"]:
        settled = number(constant["var_x1"]) + number(constant["var_x2"]) > number(constant["mean_distance"]) ** 2
        yield (
            f"At a constant rate the mean is {_say(constant['mean_distance'])} from the minimum after "
            f"{constant['steps']} steps{', but single runs keep moving about it' if settled else ''}: the mean of f is "
            f"{_say(constant['mean_f'])}, its law {_say(constant['law_mean_f'])}."
        )
    exponential = [row for row in summaries if row["schedule"] == "exponential" and not row["diverged"]]
    if len(exponential) == 2:
        short, long = exponential
        left = number(short["rate_sum_ever"]) - number(short["rate_sum"])
        # too early if more of f comes from the way that is left than from the noise
        stalled = number(long["mean_x1"]) ** 2 > number(long["var_x1"])
        verdict = "stops too early" if stalled else "gets there"
        yield (
            f"The exponential rate {verdict}: the mean of x₁ is {_signed(short['mean_x1'])} after "
            f"{short['steps']} steps and {_signed(long['mean_x1'])} after {long['steps']} (law "
            f"{_signed(long['law_mean_x1'])}). All its rates for ever add up to {_say(long['rate_sum_ever'])}, and "
            f"after step {short['steps']} only {_say(left)} of that is left."
        )


def _lowest(summaries: Sequence[Row]) -> Iterator[str]:
    rows = {row["schedule"]: row for row in summaries if row["schedule"] != "exponential"}
    constant, polynomial = rows.get("constant"), rows.get("polynomial")
    if constant and polynomial and not (constant["diverged"] or polynomial["diverged"]):
        times = number(constant["mean_f"]) / number(polynomial["mean_f"])
        compared = f"{times:.2g} times below the constant rate" if times > 1 else "not below the constant rate"
        unbounded = math.isinf(number(polynomial["rate_sum_ever"]))
        reach = ", and the sum of its rates has no bound: it can still get anywhere" if unbounded else ""
        yield (
            f"Polynomial decay ends with mean f = {_say(polynomial['mean_f'])} (law {_say(polynomial['law_mean_f'])}), "
            f"{compared} after as many steps{reach}."
        )


def _lost(summaries: Sequence[Row]) -> Iterator[str]:
    if lost := [row["label"] for row in summaries if row["diverged"]]:
        yield f"Runs diverged under: {', '.join(lost)}."


def _distance(summaries: Sequence[Row]) -> Iterator[str]:
    noisy = [row for row in summaries if row["comparisons"]]
    if noisy:
        last, ever = (max(number(row[key]) for row in noisy) for key in _LARGEST)
        ensembles = sum(row["seeds"] for row in noisy)
        yield (
            f"At the last step, the means, variances and mean f of {ensembles} ensembles are at most {last:.2f} "
            f"standard errors from the exact law ({5 * ensembles} comparisons); at all recorded steps at most "
            f"{ever:.2f} ({sum(row['comparisons'] for row in noisy)} comparisons, many of them correlated)."
        )


def _say(value: object) -> str:
    return plain_number(number(value))


def _signed(value: object) -> str:
    return f"{number(value):.3f}".replace("-", "−")
