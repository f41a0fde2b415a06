"""Where a picture goes: a new file by default, whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path

from safestep.experiments.runner.settings import SettingError


def check_target(path: Path, option: str, suffixes: tuple[str, ...]) -> None:
    """Refuse a path that no picture can be written to, before the work: SettingError."""
    if path.is_dir():
        raise SettingError(f"{option} {path}: is a directory; expected the name of a file")
    if path.suffix.lower() not in suffixes:
        raise SettingError(f"{option} {path}: expected a name that ends in {', '.join(suffixes)}")
    there = next(parent for parent in path.absolute().parents if parent.exists())  # what is missing will be made
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise SettingError(f"{option} {path}: nothing can be written to {there}; expected a directory of yours")


def write_over(path: Path, write: Callable[[Path], object]) -> Path:
    """Let a file be written beside its place and move it there; an earlier one gives way."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".new-") as folder:
        new = Path(folder) / path.name
        write(new)
        new.replace(path)
    return path


def write_new(directory: Path, stem: str, suffix: str, write: Callable[[Path], object]) -> Path:
    """Let a file be written under a name that no file has: ``stem``, or ``stem-2``, ``stem-3``, ..."""
    directory.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        path = directory / f"{stem}{f'-{number}' if number > 1 else ''}{suffix}"
        with suppress(FileExistsError):
            path.touch(exist_ok=False)  # from here on the name is ours, also beside other processes
            break
    try:
        return write_over(path, write)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
