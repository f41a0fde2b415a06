"""Warnings that point at the user's line, and those that are given once."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from types import FrameType

import torch

from safestep.errors import SafestepWarning

_INSIDE = tuple(f"{folder}/".replace("\\", "/") for folder in (Path(__file__).parents[1], Path(torch.__file__).parent))


class Once:
    """Says each thing once, as a SafestepWarning."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def __call__(self, about: str, text: str) -> None:
        """Say it, unless something was said about this before."""
        if about not in self._said:
            self._said.add(about)
            warn(text)


def warn(text: str) -> None:
    """Give a SafestepWarning at the line of the innermost caller outside safestep and torch.

    Where there is none, as in a thread of autograd's own, it is given at the caller's line.
    """
    # By hand: `skip_file_prefixes` came with Python 3.12.
    level = 1
    outside: FrameType | None = sys._getframe()
    while outside is not None and outside.f_code.co_filename.replace("\\", "/").startswith(_INSIDE):
        level, outside = level + 1, outside.f_back
    level, outside = 2 if outside is None else level, None  # a frame that is held holds all that the step held
    warnings.warn(text, SafestepWarning, stacklevel=level)
