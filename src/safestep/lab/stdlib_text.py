"""Text to learn characters from: modules of Python's own standard library, a few old ones or all of them."""

from __future__ import annotations

import string
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from safestep.errors import SafestepError

CHARACTERS = "\n" + "".join(sorted(set(string.printable) - set(string.whitespace) | {" "}))
"""The alphabet, whatever the files hold: printable ASCII and the end of a line. The place is the class."""
TRAINING = ("bisect", "colorsys", "fnmatch", "glob", "heapq", "queue", "random", "sched", "shlex", "statistics",
            "string")  # fmt: skip
"""What is learned: modules that hardly change between versions of Python."""
HELD_OUT = ("textwrap",)
"""What is kept for the test: a module of its own, of which no line is learned."""
_EVERY = 10
"""Of the whole library one module in so many is kept for the test."""


class StandardLibraryError(SafestepError, OSError):
    """The source of the standard library is not there as files."""


def load_text(folder: Path | None = None) -> tuple[Tensor, Tensor]:
    """Return the text of some modules of the standard library, and of one that is kept for the test.

    Args:
        folder: where the modules are; the standard library of the running Python by default.

    Returns:
        Both texts as classes of `CHARACTERS`, int64, shape ``(characters,)``. Other versions of Python bring slightly
        other ones.

    Raises:
        StandardLibraryError: if the files are not there (a Python that has its library in an archive).

    Example:
        >>> train, held_out = load_text()
        >>> len(held_out) > 10_000, int(train.max()) < len(CHARACTERS)
        (True, True)
    """
    folder = folder or _library()
    train, held_out = (_read([folder / f"{module}.py" for module in modules]) for modules in (TRAINING, HELD_OUT))
    return train, held_out


def load_library(folder: Path | None = None) -> tuple[Tensor, Tensor]:
    """Return the text of the whole standard library, packages too, and that of every tenth module, kept for the test.

    Tests of the library, and what was installed beside it, are left out. Other versions of Python bring other texts.

    Args:
        folder: where the modules are; the standard library of the running Python by default.

    Returns:
        Both texts as classes of `CHARACTERS`, int64, shape ``(characters,)``: some ten and two million.

    Raises:
        StandardLibraryError: if there are fewer than ten modules, or they cannot be read.
    """
    folder = folder or _library()
    without = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
    files = [file for file in sorted(folder.rglob("*.py")) if without.isdisjoint(file.relative_to(folder).parts)]
    if len(files) < _EVERY:
        raise StandardLibraryError(f"expected the standard library's source in {folder}, saw {len(files)} modules")
    held_out = files[::_EVERY]
    return _read(sorted(set(files) - set(held_out))), _read(held_out)


def _library() -> Path:
    return Path(sysconfig.get_paths()["stdlib"])


def _read(files: Sequence[Path]) -> Tensor:
    try:
        return classes("\n".join(file.read_text(encoding="utf-8", errors="replace") for file in files))
    except OSError as error:
        raise StandardLibraryError(
            f"cannot read {error.filename} of the standard library ({error.strerror}): expected Python's source as "
            "files; run this with a Python that has them"
        ) from None


def classes(text: str) -> Tensor:
    """Return the class of every character, shape ``(characters,)``; a character outside the alphabet counts as "?".

    Example:
        >>> "".join(CHARACTERS[k] for k in classes("a b – c"))
        'a b ? c'
    """
    place = {character: k for k, character in enumerate(CHARACTERS)}
    return torch.tensor([place.get(character, place["?"]) for character in text], dtype=torch.int64)


def windows(text: Tensor, starts: Sequence[int] | Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Return pieces of a text and, for every character of them, the one that follows it.

    Args:
        text: classes, shape ``(characters,)``.
        starts: where the pieces begin, each at most ``characters - length - 1``.
        length: characters in a piece, at least 1.

    Returns:
        Inputs and labels, each of shape ``(pieces, length)``.

    Example:
        >>> [part.tolist() for part in windows(torch.arange(9), [0, 5], 3)]
        [[[0, 1, 2], [5, 6, 7]], [[1, 2, 3], [6, 7, 8]]]
    """
    places = torch.as_tensor(starts)[:, None] + torch.arange(length)
    return text[places], text[places + 1]
