"""Numbers as they are written on a command line: one, several after commas, rows of them after semicolons."""

from __future__ import annotations

import math
from typing import Any

from safestep.experiments.runner.settings import SettingError

_WORDS = {"true": True, "false": False, "none": None}


def numbers(text: str, what: str) -> tuple[float, ...]:
    """Return finite numbers that are separated by commas.

    Example:
        >>> numbers("-5, -2e1", "start")
        (-5.0, -20.0)

    Raises:
        SettingError: for anything else.
    """
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = (math.nan,)
    if not all(map(math.isfinite, found)):
        raise SettingError(f"{what}={text}: expected finite numbers separated by commas")
    return found


def rows(text: str, what: str) -> tuple[tuple[float, ...], ...]:
    """Return the rows of a matrix, which are separated by semicolons.

    Example:
        >>> rows("3,1;1,2", "quadratic")
        ((3.0, 1.0), (1.0, 2.0))

    Raises:
        SettingError: for anything else, and for rows of different lengths.
    """
    found = tuple(numbers(row, what) for row in text.split(";"))
    if len({len(row) for row in found}) > 1:
        raise SettingError(f"{what}={text}: expected rows of one length")
    return found


def value(text: str) -> Any:
    """Return a Python value: true, false, none, a number, or a tuple of these; anything else stays a text.

    Example:
        >>> value("0.9"), value("3"), value("true"), value("0.9, 0.999"), value("none"), value("mean")
        (0.9, 3, True, (0.9, 0.999), None, 'mean')
    """
    if "," in text:
        return tuple(value(part) for part in text.split(","))
    word = text.strip()
    if word.lower() in _WORDS:
        return _WORDS[word.lower()]
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word
