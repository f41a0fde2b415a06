"""What a schedule is made of, checked: numbers within their range, or an error that says what was expected."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from numbers import Real
from typing import NamedTuple

from safestep.errors import ScheduleError


class Range(NamedTuple):
    """Which finite numbers a parameter may be."""

    words: str
    holds: Callable[[float], bool]


ABOVE_0 = Range("a finite number above 0", lambda x: x > 0.0)
FROM_0 = Range("a finite number, at least 0", lambda x: x >= 0.0)
BETWEEN = Range("a number between 0 and 1, neither of them", lambda x: 0.0 < x < 1.0)
SHARE = Range("a number from 0 to 1", lambda x: 0.0 <= x <= 1.0)


def number(value: object, name: str, wanted: Range, advice: str = "") -> float:
    """Return a parameter as a float.

    Raises:
        ScheduleError: if it is no finite number in the range.
    """
    if not isinstance(value, bool) and isinstance(value, Real):
        try:
            as_float = float(value)
        except OverflowError:  # an int beyond the largest float
            as_float = math.inf
        if math.isfinite(as_float) and wanted.holds(as_float):
            return as_float
    raise ScheduleError(f"{name} = {value!r}: expected {wanted.words}" + (f"; {advice}" if advice else ""))


def whole(value: object, name: str, least: int = 1, advice: str = "") -> int:
    """Return a parameter as an int.

    Raises:
        ScheduleError: if it is no whole number, or less than ``least``.
    """
    if hasattr(value, "__index__") and not isinstance(value, bool):
        as_int = operator.index(value)
        if as_int >= least:
            return as_int
    raise ScheduleError(
        f"{name} = {value!r}: expected a whole number, at least {least}" + (f"; {advice}" if advice else "")
    )


def keep(schedule: object, **parameters: object) -> None:
    """Write checked parameters into a frozen schedule that is being made."""
    for name, value in parameters.items():
        object.__setattr__(schedule, name, value)
