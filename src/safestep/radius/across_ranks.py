"""One reading for all ranks: each measures on its own part of the batch, then they agree."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from safestep.errors import MeasurementError, NothingToMeasureError, RanksError
from safestep.radius.radius import Radius, State
from safestep.recording.proposal import Proposal
from safestep.records.reading import Reading

Known = TypeVar("Known")

_ANOTHER = (
    "another rank could not measure this step, see its output: the step is not taken on any rank (or, under a policy "
    "that only watches, reported as unmeasured)"
)


def measured(radius: Radius, proposal: Proposal, state: State) -> tuple[Reading, State]:
    """Return the reading of a radius for all ranks: its own answer, or else the largest r of any."""
    if proposal.forwards.peers.alone or radius.agrees_across_ranks:
        return radius.measure(proposal, state)
    return largest(proposal, lambda: radius.measure(proposal, state), state)


def largest(proposal: Proposal, measure: Callable[[], tuple[Reading, Known]], known: Known) -> tuple[Reading, Known]:
    """Measure here, and return the reading with the largest r of any rank, in one reduction.

    Args:
        proposal: the step, which all ranks take, and the forwards of this one.
        measure: measures on this rank; r = -inf says that there is nothing to measure on here.
        known: what is known if there is nothing to measure on here.

    Raises:
        Exception: what ``measure`` raises here.
        MeasurementError: if another rank could not measure.
        RanksError: if the ranks do not take the same step.
    """
    step, peers = proposal.step, proposal.forwards.peers
    if peers.alone:
        return measure()
    reading, later = Reading(step.index, 0.0, "other ranks"), known
    idle: NothingToMeasureError | None = None
    error: Exception | None = None
    finite = math.isfinite(step.length)
    if finite:
        try:
            reading, later = measure()
        except NothingToMeasureError as nothing:
            idle = nothing
        except Exception as failed:  # out of memory too: the others must not wait
            error = failed
    target = _target(proposal)
    length = step.length if finite else 0.0
    flags = (not finite or math.isnan(reading.ratio), reading.uphill, not reading.exact, error is not None)
    ratio = -math.inf if idle is not None or math.isnan(reading.ratio) else reading.ratio
    found = peers.maxima([ratio, *map(float, flags), target, -target, length, -length])
    ratio, unknown, uphill, rough, failures, most, least, longest, shortest = found
    if error is not None:
        raise error
    if failures:
        raise MeasurementError(_ANOTHER)
    _check_targets(-least, most)
    if not unknown:
        peers.check_lengths(-shortest, longest)
    if ratio == -math.inf and not unknown:
        raise idle or NothingToMeasureError(_ANOTHER)
    reading = replace(reading, ratio=math.nan if unknown else ratio, uphill=bool(uphill), exact=not rough)
    return reading, later


def mean(proposal: Proposal, measure: Callable[[], Sequence[float]], size: int) -> list[float]:
    """Measure here, and return the mean over the ranks of each number, as data-parallel training averages gradients.

    A rank without a sample counts as zeros, as its gradients do.

    Args:
        proposal: the step, which all ranks take, and the forwards of this one.
        measure: measures on this rank.
        size: how many numbers it returns, at most eight.

    Raises:
        Exception: what ``measure`` raises here.
        MeasurementError: if another rank could not measure.
        RanksError: if the same step has different lengths on the ranks.
    """
    step, peers = proposal.step, proposal.forwards.peers
    if peers.alone:
        return list(measure())
    values: Sequence[float] = [0.0 if math.isfinite(step.length) else math.nan] * size
    idle: NothingToMeasureError | None = None
    error: Exception | None = None
    try:
        if math.isfinite(step.length):
            values = measure()
    except NothingToMeasureError as nothing:
        idle = nothing
    except Exception as failed:  # out of memory too: the others must not wait
        error = failed
    length = step.length if math.isfinite(step.length) else math.nan  # nan is no distance
    target = _target(proposal)
    told = [length, length * length, target, target * target]
    failures, empty, *pairs = peers.sums([float(error is not None), float(idle is not None), *told, *values])
    (shortest, longest), (least, most), sums = _ends(pairs[:2], peers.count), _ends(pairs[2:4], peers.count), pairs[4:]
    if error is not None:
        raise error
    if failures:
        raise MeasurementError(_ANOTHER)
    peers.check_lengths(shortest, longest)
    _check_targets(least, most)
    if empty == peers.count:
        raise idle or NothingToMeasureError(_ANOTHER)
    return [value / peers.count for value in sums]


def _target(proposal: Proposal) -> float:
    return -1.0 if math.isnan(proposal.target) else proposal.target


def _ends(sums: Sequence[float], count: int) -> tuple[float, float]:
    """Return the mean of what was added up, less and more its standard deviation: the same on all ranks."""
    middle = sums[0] / count
    apart = math.sqrt(max(0.0, sums[1] / count - middle * middle))
    return middle - apart, middle + apart


def _check_targets(least: float, most: float) -> None:
    if not math.isclose(least, most, rel_tol=1e-6):  # as far as sums of squares tell
        raise RanksError(
            f"the policies of the ranks aim at different targets ({least:g} to {most:g}): give all the same, and the "
            "same schedule of learning rates"
        )


def averaged(proposal: Proposal, measure: Callable[[], tuple[Reading, Known]], known: Known) -> tuple[Reading, Known]:
    """Measure here, and return the reading with the mean over the ranks of r, as `mean` does.

    Args:
        proposal: the step, which all ranks take, and the forwards of this one.
        measure: measures on this rank.
        known: what is known if there is nothing to measure on here.
    """
    peers = proposal.forwards.peers
    if peers.alone:
        return measure()
    reading, later = Reading(proposal.step.index, 0.0, "other ranks"), known

    def numbers() -> list[float]:
        nonlocal reading, later
        reading, later = measure()
        return [reading.ratio, float(not reading.exact), reading.standard_error**2, reading.kl]

    ratio, rough, variance, kl = mean(proposal, numbers, 4)
    error = math.sqrt(variance / peers.count)
    return replace(reading, ratio=ratio, exact=rough == 0.0, standard_error=error, kl=kl), later
