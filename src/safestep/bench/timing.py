"""Paired timing: contestants take turns within a round, and only times of the same round are compared."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)

Clock = Callable[[], float]
"""Seconds from some beginning; on an accelerator it first waits until the queued work is done."""


@dataclass(frozen=True, slots=True)
class Quartiles:
    """First quartile, median and third quartile of some numbers, and their mean, where rare large ones count."""

    low: float
    median: float
    high: float
    mean: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Quartiles:
        """Return those of at least one number.

        Example:
            >>> Quartiles.of([5.0, 1.0, 3.0, 2.0, 4.0])
            Quartiles(low=2.0, median=3.0, high=4.0, mean=3.0)

        Raises:
            ValueError: for no number at all.
        """
        if not values:
            raise ValueError("no rounds to compare: expected at least one")
        several = values if len(values) > 1 else [*values, *values]
        low, median, high = statistics.quantiles(several, n=4, method="inclusive")
        return cls(low, median, high, statistics.fmean(values))

    def columns(self, name: str) -> dict[str, float]:
        """Return ``name_low``, ``name_median``, ``name_high`` and ``name_mean``."""
        return {f"{name}_{key}": value for key, value in asdict(self).items()}


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


def paired(rounds: Sequence[Mapping[Key, float]], name: Key, base: Key) -> Quartiles:
    """Return how a contestant's time compares to the base's of the same round; 1 is as fast.

    Example:
        >>> paired([{"a": 2.0, "b": 1.0}, {"a": 40.0, "b": 10.0}, {"a": 9.0, "b": 3.0}], "a", "b").median
        3.0
    """
    return Quartiles.of([times[name] / times[base] for times in rounds])
