"""Text to learn characters from: a few old modules of Python's own standard library, as every Python brings them."""

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
    folder = folder or Path(sysconfig.get_paths()["stdlib"])
    try:
        train, held_out = (
            classes("\n".join((folder / f"{module}.py").read_text(encoding="utf-8") for module in modules))
            for modules in (TRAINING, HELD_OUT)
        )
    except OSError as error:
        raise StandardLibraryError(
            f"cannot read {error.filename} of the standard library ({error.strerror}): expected Python's source as "
            "files; run this with a Python that has them"
        ) from None
    return train, held_out


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
