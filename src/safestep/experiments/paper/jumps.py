"""Where a loss jumps by itself, and whether r is larger at the steps before than at others."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import product

_WINDOW, _TIMES, _LEAST = 10, 2.0, 0.1
"""A loss is high at this many times the median of so many before, and at least so many nats above it."""
LEADS = (1, 5)
"""Steps whose largest r counts as that before a jump: the step that the jump follows, and up to four before it."""


def jumps(losses: Sequence[float]) -> tuple[list[int], list[int]]:
    """Return the steps after which the loss jumps, and those after which it does not.

    The step t leads from ``losses[t]``, of its own batch, to ``losses[t + 1]``, of the next one. After a jump the
    steps on which the loss is still high are neither.

    Example:
        >>> found, ordinary = jumps([1.0] * 11 + [3.0, 3.0, 1.0])
        >>> found, ordinary
        ([10], [9, 12])
    """
    found, ordinary, high = [], [], False
    for step in range(_WINDOW - 1, len(losses) - 1):
        usual = statistics.median(losses[step - _WINDOW + 1 : step + 1])
        before, high = high, losses[step + 1] >= max(_TIMES * usual, usual + _LEAST)
        if high and not before:
            found.append(step)
        elif not high:
            ordinary.append(step)
    return found, ordinary


def largest_before(ratios: Sequence[float], steps: Sequence[int], lead: int) -> list[float]:
    """Return the largest r of so many steps up to each of some.

    Example:
        >>> largest_before([1.0, 5.0, 2.0, 3.0], [3, 1], 2)
        [3.0, 5.0]
    """
    return [max(ratios[max(0, step - lead + 1) : step + 1]) for step in steps]


def chance_above(ratios: Sequence[float], others: Sequence[float]) -> float | None:
    """Return how often one of some is above one of others, ties counting half: 0.5 where r tells nothing.

    Example:
        >>> chance_above([2.0, 4.0], [1.0, 3.0]), chance_above([], [1.0])
        (0.75, None)
    """
    pairs = [(one > other) + 0.5 * (one == other) for one, other in product(ratios, others)]
    return statistics.fmean(pairs) if pairs else None
