"""Paired timing: contestants take turns within a round, and only times of the same round are compared."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)

Clock = Callable[[], float]
"""Seconds from some beginning; on an accelerator it first waits until the queued work is done."""


@dataclass(frozen=True, slots=True)
class Ratios:
    """What a contestant's time is to that of the base, over rounds.

    Attributes:
        median: of the ratios, dimensionless; 1 is as fast as the base.
        low: the first quartile.
        high: the third quartile.
        mean: of the ratios, where rare long steps count.
    """

    median: float
    low: float
    high: float
    mean: float


def take_turns(
    contestants: Mapping[Key, Callable[[], object]],
    rounds: int,
    prepare: Callable[[int], object],
    clock: Clock = time.perf_counter,
    seed: int = 0,
) -> Iterator[dict[Key, float]]:
    """Time every contestant once a round, right after each other, in an order drawn anew for each round.

    A machine that is slower for a while is slower for all of them, and nobody always comes after the same other.

    Args:
        contestants: what to time, by name.
        rounds: how many.
        prepare: called before each round with its number, untimed.
        clock: tells the time.
        seed: of the orders.

    Yields:
        The seconds of each contestant, one dictionary for each round.

    Example:
        >>> times = iter(range(100))
        >>> list(take_turns({"a": int, "b": int}, 1, lambda number: None, clock=lambda: next(times)))
        [{'a': 1, 'b': 1}]
    """
    dice, names = random.Random(seed), list(contestants)
    for number in range(rounds):
        prepare(number)
        seconds = {}
        for name in dice.sample(names, len(names)):
            begin = clock()
            contestants[name]()
            seconds[name] = clock() - begin
        yield {name: seconds[name] for name in names}


def paired(rounds: Sequence[Mapping[Key, float]], name: Key, base: Key) -> Ratios:
    """Return how a contestant's time compares to the base's of the same round.

    Example:
        >>> paired([{"a": 2.0, "b": 1.0}, {"a": 40.0, "b": 10.0}, {"a": 9.0, "b": 3.0}], "a", "b").median
        3.0

    Raises:
        ValueError: for no round at all.
    """
    if not rounds:
        raise ValueError("no rounds to compare: expected at least one")
    ratios = [times[name] / times[base] for times in rounds]
    low, median, high = quartiles(ratios)
    return Ratios(median, low, high, statistics.fmean(ratios))


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the first quartile, the median and the third quartile; of a single value, that value.

    Example:
        >>> quartiles([5.0, 1.0, 3.0, 2.0, 4.0])
        (2.0, 3.0, 4.0)
    """
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, median, high
