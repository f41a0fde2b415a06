"""Where a picture goes: a new file by default, whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

from safestep.experiments.runner.settings import SettingError


def check_target(path: Path, option: str, suffixes: tuple[str, ...]) -> None:
    """Refuse a path that no picture can be written to, before the work.

    Raises:
        SettingError: for a directory, a name with another ending, or a place where nothing can be written.
    """
    if path.is_dir():
        raise SettingError(f"{option} {path}: is a directory; expected the name of a file")
    if path.suffix.lower() not in suffixes:
        raise SettingError(f"{option} {path}: expected a name that ends in {', '.join(suffixes)}")
    there = next(parent for parent in path.absolute().parents if parent.exists())  # what is missing will be made
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise SettingError(f"{option} {path}: nothing can be written to {there}; expected a directory of yours")


def write_over(path: Path, write: Callable[[Path], object]) -> Path:
    """Let a file be written beside its place and move it there; the directory is made where it is missing.

    Args:
        path: of the file; one that is there gives way.
        write: is called with the path to write to, which has the same ending.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".new-") as folder:
        new = Path(folder) / path.name
        write(new)
        new.replace(path)
    return path


def write_new(directory: Path, stem: str, suffix: str, write: Callable[[Path], object]) -> Path:
    """Let a file be written under a name that no file has: ``stem``, or ``stem-2``, ``stem-3``, ...

    Args:
        directory: made where it is missing.
        stem: of the name.
        suffix: of the name, with its dot.
        write: see `write_over`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for path in _names(directory, stem, suffix):
        with suppress(FileExistsError):
            path.open("x").close()  # from here on the name is ours
            break
    try:
        return write_over(path, write)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _names(directory: Path, stem: str, suffix: str) -> Iterator[Path]:
    yield directory / f"{stem}{suffix}"
    for number in count(2):
        yield directory / f"{stem}-{number}{suffix}"
