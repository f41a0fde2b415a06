"""Which values a parameter of a schedule may have: each check returns a plain number, or says what was expected."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import partial
from numbers import Real

from safestep.errors import ScheduleError


def number(value: object, name: str, expected: str, holds: Callable[[float], bool]) -> float:
    """Return a finite number for which ``holds`` as a float."""
    if not isinstance(value, bool) and isinstance(value, Real):
        try:
            as_float = float(value)
        except OverflowError:  # an int beyond the largest float
            as_float = math.inf
        if math.isfinite(as_float) and holds(as_float):
            return as_float
    raise ScheduleError(f"{name} = {value!r}: expected {expected}")


def whole(value: object, name: str, least: int = 1) -> int:
    """Return a whole number from ``least`` on as an int."""
    if hasattr(value, "__index__") and not isinstance(value, bool) and (as_int := operator.index(value)) >= least:
        return as_int
    raise ScheduleError(f"{name} = {value!r}: expected a whole number, at least {least}")


whole_from_0 = partial(whole, least=0)
above_0 = partial(number, expected="a finite number above 0", holds=lambda x: x > 0.0)
from_0 = partial(number, expected="a finite number, at least 0", holds=lambda x: x >= 0.0)
from_0_to_1 = partial(number, expected="a number from 0 to 1", holds=lambda x: 0.0 <= x <= 1.0)
above_0_to_1 = partial(number, expected="a number above 0, at most 1", holds=lambda x: 0.0 < x <= 1.0)
between_0_and_1 = partial(number, expected="a number between 0 and 1, neither of them", holds=lambda x: 0.0 < x < 1.0)
a_step = partial(number, expected="a step, a finite number from 0 on, or a tensor of them", holds=lambda x: x >= 0.0)
