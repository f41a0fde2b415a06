"""A function in a Python file of the user's as an objective: ``file.py:function``."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from safestep.descent import DescentError, Function
from safestep.descent.objective import Point
from safestep.errors import UnknownNameError, first_line
from safestep.experiments.runner.names import nearest
from safestep.experiments.runner.settings import SettingError


def read_function(path: Path, name: str, start_of: Callable[[int | None], Point]) -> Function:
    """Return the objective of a function, after its file has been run.

    Args:
        path: of the file.
        name: of a function of one tensor ``x`` of shape ``(runs, d)``, or of ``x1, x2, ...``, one argument a variable;
            in torch operations.
        start_of: from the number of variables, None where the function does not tell, to where a descent begins.

    Raises:
        SettingError: if the file cannot be run, or what it calls ``name`` is no such function.
        UnknownNameError: if there is no such name in it.
    """
    found = _members(path)
    if name not in found:
        functions = [key for key, member in found.items() if callable(member) and not key.startswith("_")]
        raise UnknownNameError(f"no function {name!r} in {path}{nearest(name, functions)}")
    function = found[name]
    try:
        parameters = [*inspect.signature(function).parameters.values()]
    except (TypeError, ValueError):
        raise SettingError(f"{path}:{name} is {function!r}: expected a function of x, or of x1, x2, ...") from None
    wanted = [
        p.name for p in parameters if p.default is p.empty and p.kind in {p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD}
    ]
    if not wanted:
        raise SettingError(f"{path}:{name} has no argument: expected a function of x, or of x1, x2, ...")
    told = _told(function, path, name)
    if len(wanted) == 1 and wanted != ["x1"]:
        return Function(told, start_of(None))
    return Function.of_coordinates(told, start_of(len(wanted)))


def _members(path: Path) -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location(f"_objective_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise SettingError(f"objective: {path} is no Python file: expected FILE.py:FUNCTION")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise SettingError(f"{path} cannot be run{_place(error, path)}: {first_line(error)}") from error
    return vars(module)


def _told(function: Callable[..., Tensor], path: Path, name: str) -> Callable[..., Tensor]:
    """Return a function whose errors say where in the file they came from."""

    def f(*x: Tensor) -> Tensor:
        try:
            return function(*x)
        except Exception as error:
            shape = (
                f"{len(x)} tensors of shape {tuple(x[0].shape)}" if len(x) > 1 else f"x of shape {tuple(x[0].shape)}"
            )
            raise DescentError(f"{path}:{name} failed at {shape}{_place(error, path)}: {first_line(error)}") from error

    return f


def _place(error: BaseException, path: Path) -> str:
    """Return the last line of the file that an error passed through."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).resolve() == path.resolve()
    ]
    return f" in line {lines[-1]}" if lines else ""
