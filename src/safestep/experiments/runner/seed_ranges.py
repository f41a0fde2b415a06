"""Seeds as one writes them: ``7``, ``0,1,2``, ``0-199``."""

from __future__ import annotations

from collections.abc import Sequence

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
    found: dict[int, None] = {}
    for part in text.split(","):
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        ends = (first, last) if dash else (first, first)
        usable = all(end.isdecimal() and int(end) <= LARGEST_SEED for end in ends)
        if not usable or not 0 <= int(ends[1]) - int(ends[0]) < _MOST:
            raise SettingError(
                f"seeds={text}: expected whole numbers from 0 to {LARGEST_SEED} or ranges such as 0-199, "
                "separated by commas"
            )
        found |= dict.fromkeys(range(int(ends[0]), int(ends[1]) + 1))
    return list(found)


def written_seeds(seeds: Sequence[int]) -> str:
    """Return seeds as `read_seeds` reads them: four or more in a row as a range.

    Example:
        >>> written_seeds([7, 0, 1, 2, 3, 9, 10])
        '7,0-3,9,10'
    """
    runs: list[list[int]] = []
    for seed in seeds:
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 3 else ",".join(map(str, run)) for run in runs)
