"""What the noise floors come to: a line for each noise and batch size, and sentences for the page."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from itertools import pairwise

from safestep.experiments.noise.floor_plan import WORDS, series
from safestep.experiments.runner.experiment import Row
from safestep.plots.frame import plain_number
from safestep.records.report import number, plain


def over_rates(rows: Sequence[Row]) -> list[Row]:
    """Return one summary for each noise and batch size, in the order of the rows.

    Args:
        rows: see `safestep.experiments.noise.noise_floor`.

    Returns:
        Summaries with the ``slope`` of the floor, floor / η, at the smallest rate, and that of the law; the largest
        rate that has a floor, this floor, and its law; the largest distance of a floor from its law, in standard
        errors; and the smallest rate at which a run diverged. Floors are means over the seeds. None where there is no
        such rate.
    """
    found: list[Row] = plain([_summary(group) for group in _grouped(rows, "series")])
    return found


def _grouped(rows: Sequence[Row], key: str) -> list[list[Row]]:
    groups: dict[object, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return list(groups.values())


def _summary(rows: Sequence[Row]) -> Row:
    by_rate = sorted(_grouped(rows, "rate"), key=lambda group: number(group[0]["rate"]))
    settled = [group for group in by_rate if math.isfinite(number(group[0]["law_floor"]))]
    lost = [group[0]["rate"] for group in by_rate if any(row["diverged"] for row in group)]
    off = [abs(number(row["floor_z"])) for group in settled for row in group if row["floor_z"] is not None]
    first, last = (settled[0], settled[-1]) if settled else ([], [])
    return {
        "label": rows[0]["series"],
        "noise": rows[0]["noise"],
        "batch": rows[0]["batch"],
        "ensembles": len(rows),
        "first_rate": first[0]["rate"] if first else None,
        "slope": _mean(first, "floor") / first[0]["rate"] if first else None,
        "law_slope": number(first[0]["law_floor"]) / first[0]["rate"] if first else None,
        "last_rate": last[0]["rate"] if last else None,
        "last_floor": _mean(last, "floor") if last else None,
        "last_law": last[0]["law_floor"] if last else None,
        "worst_floor_z": max(off, default=None),
        "diverged_from": lost[0] if lost else None,
    }


def _mean(rows: Sequence[Row], key: str) -> float:
    return statistics.fmean(number(row[key]) for row in rows)


def findings(rows: Sequence[Row]) -> list[str]:
    """Return what the rows say: how the floor depends on rate and batch size, where it ends, how far the law is."""
    return [*_by_rate(rows), *_by_batch(rows), *_by_draw(rows), *_noiseless(rows), *_limit(rows), *_distance(rows)]


def _by_rate(rows: Sequence[Row]) -> Iterator[str]:
    name = rows[0]["series"] if rows else ""
    settled = _settled(rows, name)
    chosen = [settled[place] for place in sorted({0, 1, len(settled) - 1})] if len(settled) > 1 else []
    for (low, first), (high, second) in pairwise(chosen):
        yield (
            f"{name}: from η = {low:g} to {high:g} the rate grows by the factor {high / low:.3g}, and the floor by "
            f"{_ratio(second, first)}."
        )


def _by_batch(rows: Sequence[Row]) -> Iterator[str]:
    same = [row for row in rows if row["noise"] == rows[0]["noise"]]
    small, large = (choose((row["batch"] for row in same), default=0) for choose in (min, max))
    few, many = (_settled(rows, series(rows[0]["noise"], batch)) if same else [] for batch in (small, large))
    if few and many and small < large:
        (rate, above), (_, below), words = few[0], many[0], WORDS[rows[0]["noise"]]
        yield (
            f"{words[:1].upper()}{words[1:]}, at η = {rate:g}: with a batch of {small} instead of {large} the floor is "
            f"higher by the factor {_ratio(above, below)}."
        )


def _by_draw(rows: Sequence[Row]) -> Iterator[str]:
    batch = max((row["batch"] for row in rows), default=0)
    together, apart = (_settled(rows, series(noise, batch)) for noise in ("replacement", "distinct"))
    if together and apart:
        (rate, some), (_, different) = together[0], apart[0]
        yield (
            f"At η = {rate:g} a batch of {batch} different samples has {_ratio(different, some)} times the floor of "
            f"{batch} samples drawn with replacement."
        )


def _noiseless(rows: Sequence[Row]) -> Iterator[str]:
    if quiet := [row for row in rows if number(row["law_floor"]) == 0]:
        left = plain_number(max(number(row["floor"]) for row in quiet))
        yield (
            f"A batch of all {quiet[0]['batch']} samples has no noise and no floor: "
            f"f ends at most {left} above its minimum."
        )


def _limit(rows: Sequence[Row]) -> Iterator[str]:
    none = sorted({row["rate"] for row in rows if math.isinf(number(row["law_floor"]))})
    lost = sorted({row["rate"] for row in rows if row["diverged"]})
    diverge = f"; runs diverge at η = {_listed(lost)}" if lost else ""
    if none:
        yield (
            f"There is no floor at η = {_listed(none)}: the limit is η = 2/h = 0.5, with h = 4 the larger of the two "
            f"curvatures{diverge}."
        )


def _distance(rows: Sequence[Row]) -> Iterator[str]:
    settled = [row for row in rows if row["floor_z"] is not None]
    if settled:
        off = max(abs(number(row["floor_z"])) for row in settled)
        every = max(number(row["worst_z"]) for row in settled)
        yield (
            f"The {len(settled)} floors are at most {off:.2f} standard errors from the law; with the means and "
            f"variances of x₁ and x₂, the worst of {5 * len(settled)} comparisons is {every:.2f}."
        )


def _settled(rows: Sequence[Row], name: str) -> list[tuple[float, list[Row]]]:
    # a batch of all samples has no noise, and a floor of 0 that nothing can be compared with
    chosen = [row for row in rows if row["series"] == name and 0 < number(row["law_floor"]) < math.inf]
    return sorted((number(group[0]["rate"]), group) for group in _grouped(chosen, "rate"))


def _ratio(above: Sequence[Row], below: Sequence[Row]) -> str:
    law = number(above[0]["law_floor"]) / number(below[0]["law_floor"])
    return f"{_mean(above, 'floor') / _mean(below, 'floor'):.3g} (law {law:.3g})"


def _listed(rates: Sequence[float]) -> str:
    return ", ".join(f"{rate:g}" for rate in rates)
