"""Warnings that are given once."""

from __future__ import annotations

import warnings

from safestep.errors import SafestepWarning


class Once:
    """Says each thing once, as a SafestepWarning."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def __call__(self, about: str, text: str) -> None:
        """Say it, unless something was said about this before."""
        if about not in self._said:
            self._said.add(about)
            warnings.warn(text, SafestepWarning, stacklevel=3)
