"""The objective as it is written on a command line: a name, curvatures, or a function in a file."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from safestep.descent import PLANE, VALLEY, Beale, Function, Objective, Quadratic, Rosenbrock, Saddle
from safestep.errors import UnknownNameError
from safestep.experiments.runner.names import nearest
from safestep.experiments.runner.settings import SettingError
from safestep.simulation.options import numbers, rows
from safestep.simulation.user_file import read_function

NAMED: Mapping[str, Quadratic | Rosenbrock | Beale | Saddle] = {
    "plane": PLANE,
    "valley": VALLEY,
    "rosenbrock": Rosenbrock(),
    "beale": Beale(),
    "saddle": Saddle(),
}
"""Objectives that have a name."""


def read_objective(text: str, start: str = "") -> Objective:
    """Return the objective that a text names, beginning at ``start``.

    Args:
        text: a name of `NAMED`; ``quadratic:2,4`` with curvatures or ``quadratic:3,1;1,2`` with a Hessian; or
            ``FILE.py:FUNCTION``, of one tensor ``x`` of shape ``(runs, d)``, or of ``x1, x2, ...``, one a variable.
        start: numbers separated by commas. Without, that of the named objective; others begin at (-5, -2) in two
            variables and at -1 in every one of another number.

    Raises:
        UnknownNameError: for a name that does not exist.
        SettingError: for what is no objective.
        DescentError: for a Hessian that is none.

    Example:
        >>> read_objective("quadratic:2,4", "1,1")
        Quadratic(hessian=(2.0, 4.0), start=(1.0, 1.0), minimum=(0.0, 0.0), least=0.0)
    """
    begin = numbers(start, "start") if start else None

    def start_of(variables: int) -> tuple[float, ...]:
        if begin is not None and len(begin) != variables:
            raise SettingError(f"start={start}: {len(begin)} numbers, expected {variables}, one a variable of {text}")
        return begin or (PLANE.start if variables == 2 else (-1.0,) * variables)

    if (function := read_function(text)) is not None:
        variables = _variables(function, text)
        if variables == ["x1"] or len(variables) > 1:
            return Function.of_coordinates(function, start_of(len(variables)))
        return Function(function, begin or PLANE.start)
    name, _, rest = (part.strip() for part in text.partition(":"))
    if name.lower() == "quadratic":
        hessian = rows(rest, "quadratic")
        return Quadratic(hessian if len(hessian) > 1 else hessian[0], start_of(len(hessian[-1])))
    named = NAMED.get(text.strip().lower())
    if named is None:
        known = [*NAMED, "quadratic:2,4"]
        raise UnknownNameError(f"no objective {text!r}{nearest(text, known)}; or FILE.py:FUNCTION")
    if begin is None:
        return named
    any_number = isinstance(named, Rosenbrock) and len(begin) > 1
    return replace(named, start=begin if any_number else start_of(named.dimension))


def _variables(function: Callable[..., Any], text: str) -> list[str]:
    """Return the names of a function's arguments that have no default."""
    positional = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    parameters = inspect.signature(function).parameters.values()
    names = [one.name for one in parameters if one.default is one.empty and one.kind in positional]
    if not names:
        raise SettingError(f"{text} has no argument: expected a function of x, or of x1, x2, ...")
    return names
