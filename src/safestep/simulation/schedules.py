"""A schedule as it is written on a command line: ``exponential:0.1``, ``warmup:5+cosine:45``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import reduce

from safestep.errors import ScheduleError, UnknownNameError
from safestep.experiments.runner.names import nearest
from safestep.experiments.runner.settings import SettingError
from safestep.schedules import (
    Constant,
    Cosine,
    Exponential,
    Inverse,
    PiecewiseConstant,
    Polynomial,
    Schedule,
    Staircase,
    WarmUp,
)
from safestep.simulation.values import value

_FORMS: Mapping[str, tuple[Callable[..., Schedule], str]] = {
    "constant": (Constant, "constant"),
    "inverse": (Inverse, "inverse:BETA"),
    "polynomial": (Polynomial, "polynomial:BETA,ALPHA"),
    "exponential": (Exponential, "exponential:LAMBDA"),
    "staircase": (Staircase, "staircase:EVERY,RATIO"),
    "piecewise": (lambda *drops: _piecewise(drops), "piecewise:STEP=FACTOR,STEP=FACTOR"),
    "cosine": (Cosine, "cosine:STEPS"),
    "warmup": (WarmUp, "warmup:STEPS"),
}
FORMS = ", ".join(form for _, form in _FORMS.values())
"""How each is written."""
_ENDLESS = "constant, inverse, polynomial, exponential and staircase have no end, and nothing can follow them"


def read_schedule(text: str) -> Schedule:
    """Return the schedule that a text tells.

    Args:
        text: names with their numbers after a colon; ``*`` multiplies two, ``+`` follows one by the next.

    Raises:
        UnknownNameError: for a schedule that does not exist.
        SettingError: for numbers that make none, and for what cannot be followed.

    Example:
        >>> read_schedule("warmup:5+cosine:45")
        Then(first=WarmUp(steps=5, start=0.0), second=Cosine(steps=45, floor=0.0), after=5)
        >>> read_schedule("piecewise:30=0.1,60=0.01").factors
        (1.0, 0.1, 0.01)
    """
    # a + or * before a letter: 1e+3 is a number
    parts = [_product(part) for part in re.split(r"\+(?=\s*[A-Za-z])", text)]
    if any(part.length is None for part in parts[:-1]):
        raise SettingError(f"schedule={text}: {_ENDLESS}; expected warmup, cosine or piecewise before a +")
    return reduce(lambda first, second: first.then(second), parts)


def _product(text: str) -> Schedule:
    factors: list[Schedule] = [_single(part.strip()) for part in text.split("*")]
    return reduce(lambda left, right: left * right, factors)


def _single(text: str) -> Schedule:
    name, colon, rest = text.partition(":")
    if name.lower() not in _FORMS:
        raise UnknownNameError(f"no schedule {name!r}{nearest(name.lower(), list(_FORMS))}")
    make, form = _FORMS[name.lower()]
    arguments = [part.strip() if "=" in part else value(part) for part in rest.split(",")] if colon else []
    try:
        return make(*arguments)
    except (ScheduleError, TypeError) as error:
        reason = str(error) if isinstance(error, ScheduleError) else "too few numbers, or too many"
        raise SettingError(f"schedule={text}: {reason}. Expected {form}") from None


def _piecewise(drops: tuple[str, ...]) -> Schedule:
    """Return the schedule that begins with the factor 1 and has another from each of some steps on."""
    if not drops or not all(isinstance(drop, str) and drop.count("=") == 1 for drop in drops):
        raise ScheduleError("expected a step and its new factor in each place")
    at, factors = zip(*(map(value, drop.split("=")) for drop in drops), strict=True)
    return PiecewiseConstant(at=at, factors=(1.0, *factors))
