"""The step t, checked: a number or a tensor of numbers, finite and at least 0."""

from __future__ import annotations

import math
from numbers import Real

import torch
from torch import Tensor

from safestep.errors import ScheduleError


def step(t: object) -> float:
    """Return a step as a float.

    Raises:
        ScheduleError: if it is no finite number from 0 on.
    """
    if not isinstance(t, bool) and isinstance(t, Real):
        try:
            number = float(t)
        except OverflowError:  # an int beyond the largest float
            number = math.inf
        if 0.0 <= number < math.inf:
            return number
    raise ScheduleError(f"t = {t!r}: expected a step, a finite number from 0 on, or a tensor of them")


def steps(t: Tensor) -> Tensor:
    """Return a tensor of steps in float64.

    Raises:
        ScheduleError: if it is no tensor of numbers, or holds one that is negative or not finite.
    """
    if t.dtype == torch.bool or t.is_complex():
        raise ScheduleError(f"t is a tensor of {t.dtype}: expected steps, whole or floating numbers")
    wide = t.to(torch.float64)
    fits = (wide >= 0.0) & (wide < math.inf)
    if not fits.all():
        raise ScheduleError(f"t holds {float(wide[~fits][0])!r}: expected steps, finite numbers from 0 on")
    return wide
