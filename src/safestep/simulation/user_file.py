"""A function in a Python file of the user's: ``FILE.py:FUNCTION``."""

from __future__ import annotations

import functools
import runpy
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safestep.descent import DescentError
from safestep.errors import SafestepError, UnknownNameError, first_line
from safestep.experiments.runner.names import nearest
from safestep.experiments.runner.settings import SettingError


def read_function(text: str, failure: type[SafestepError] = DescentError) -> Callable[..., Any] | None:
    """Run a file and return a function of its; None where the text names no file.

    Errors of the function, too, become a ``failure`` that says on which line of the file they were raised. Modules
    beside the file can be imported.

    Raises:
        SettingError: if the file cannot be run, or the name is none of a function.
        UnknownNameError: if there is no such name in it.
    """
    file, _, name = text.strip().rpartition(":")
    if not file.endswith(".py"):
        return None
    path = Path(file).expanduser()
    if not path.is_file():
        raise SettingError(f"{text}: {path} is no Python file: expected FILE.py:FUNCTION")
    try:
        with _beside(path):
            members = runpy.run_path(str(path), run_name=f"_{path.stem}")
    except (Exception, SystemExit) as error:
        raise SettingError(f"{path} cannot be run{_line(error, path)}: {first_line(error)}") from error
    if name not in members:
        functions = [key for key, member in members.items() if callable(member) and not key.startswith("_")]
        raise UnknownNameError(f"no function {name!r} in {path}{nearest(name, functions)}")
    if not callable(members[name]):
        raise SettingError(f"{text} is {members[name]!r}: expected a function")
    function: Callable[..., Any] = members[name]

    @functools.wraps(function)  # keeps its signature
    def called(*arguments: Any) -> Any:
        try:
            with _beside(path):
                return function(*arguments)
        except Exception as error:
            said = " ".join(str(error).split("\n", 2)[:2]).strip()  # torch names what is missing in the second line
            raise failure(f"{text} failed{_line(error, path)}: {type(error).__name__}: {said[:300]}") from error

    return called


@contextmanager
def _beside(path: Path) -> Iterator[None]:
    """Let modules in the folder of a file be imported."""
    folder = str(path.absolute().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _line(error: BaseException, path: Path) -> str:
    """Return the last line of the file that an error passed through."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f" in line {lines[-1]}" if lines else ""
