"""The objective as it is written on a command line: a name, curvatures, an expression, or a function in a file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from safestep.descent import PLANE, VALLEY, Beale, Objective, Quadratic, Rosenbrock, Saddle
from safestep.descent.objective import Point
from safestep.errors import UnknownNameError
from safestep.experiments.runner.names import nearest
from safestep.experiments.runner.settings import SettingError
from safestep.simulation.expression import KNOWN, read_expression
from safestep.simulation.userfile import read_function
from safestep.simulation.values import numbers, rows

NAMED: Mapping[str, Quadratic | Rosenbrock | Beale | Saddle] = {
    "plane": PLANE,
    "valley": VALLEY,
    "rosenbrock": Rosenbrock(),
    "beale": Beale(),
    "saddle": Saddle(),
}
"""Objectives that have a name."""
_FILE = re.compile(r"(?P<path>.+\.py):(?P<name>\w+)")


def read_objective(text: str, start: str = "") -> Objective:
    """Return the objective that a text tells, beginning at ``start``.

    Args:
        text: a name of `NAMED`; ``quadratic:2,4`` with curvatures or ``quadratic:3,1;1,2`` with a Hessian; an
            expression in x1, x2, ...; or ``file.py:function``.
        start: numbers separated by commas. Without, that of the named objective; others begin at (-5, -2) in two
            variables and at -1 in every one of another number.

    Raises:
        UnknownNameError: for a name that does not exist.
        SettingError: for what tells no objective.
        DescentError: for a Hessian that is none.

    Example:
        >>> read_objective("quadratic:2,4", "1,1")
        Quadratic(hessian=(2.0, 4.0), start=(1.0, 1.0), minimum=(0.0, 0.0), least=0.0)
    """
    begin = numbers(start, "start") if start else None

    def start_of(variables: int | None) -> Point:
        if begin is None:
            return PLANE.start if variables in {2, None} else (-1.0,) * (variables or 0)
        if variables not in {len(begin), None}:
            raise SettingError(f"start={start}: {len(begin)} numbers, expected {variables}, one a variable of {text}")
        return begin

    name, colon, rest = (part.strip() for part in text.partition(":"))
    if (named := NAMED.get(text.strip().lower())) is not None:
        several = isinstance(named, Rosenbrock) and begin is not None and len(begin) > 1
        return replace(named, start=named.start if begin is None else begin if several else start_of(named.dimension))
    if name.lower() == "quadratic" and colon:
        hessian = rows(rest, "quadratic")
        return Quadratic(hessian if len(hessian) > 1 else hessian[0], start_of(len(hessian[-1])))
    if file := _FILE.fullmatch(text.strip()):
        return read_function(Path(file["path"]).expanduser(), file["name"], start_of)
    if name.isidentifier() and not re.fullmatch(r"x[1-9]\d?", name):
        known = [*NAMED, "quadratic:2,4"]
        raise UnknownNameError(
            f"no objective {text!r}{nearest(name, known)}; or an expression of {KNOWN}; or FILE.py:FUNCTION"
        )
    return read_expression(text, start_of)
