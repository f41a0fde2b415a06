"""Seeds as one writes them: ``7``, ``0,1,2``, ``0-199``."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from safestep.experiments.runner.settings import SettingError
from safestep.lab.seeding import LARGEST_SEED

_MOST = 100_000
"""More seeds than anyone means."""


def read_seeds(text: str) -> list[int]:
    """Return the seeds of a text, each once, in its order.

    Args:
        text: whole numbers and ranges ``first-last``, separated by commas.

    Raises:
        SettingError: for anything else.

    Example:
        >>> read_seeds("7,0-3,2")
        [7, 0, 1, 2, 3]
    """
    seeds: dict[int, None] = {}
    for part in text.split(","):
        first, dash, last = part.partition("-")
        try:
            low, high = int(first), int(last if dash else first)
        except ValueError:
            low, high = 0, -1
        if not 0 <= low <= high <= LARGEST_SEED or high - low >= _MOST:
            raise SettingError(
                f"seeds={text}: expected whole numbers from 0 to {LARGEST_SEED} or ranges such as 0-199, "
                "separated by commas"
            )
        seeds |= dict.fromkeys(range(low, high + 1))
    return list(seeds)


def written_seeds(seeds: Sequence[int]) -> str:
    """Return seeds as `read_seeds` reads them: four or more in a row as a range.

    Example:
        >>> written_seeds([7, 0, 1, 2, 3, 9, 10])
        '7,0-3,9,10'
    """
    runs = [[seed for _, seed in run] for _, run in groupby(enumerate(seeds), lambda pair: pair[1] - pair[0])]
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 3 else ",".join(map(str, run)) for run in runs)
