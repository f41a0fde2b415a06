"""Which gradients a backward left in ``.grad``, and whether they are still there."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from safestep.distributed.dtensor import piece

Mark = tuple[list[int], list[int]]
"""Identities and version counters of the stored gradients; no pair for each, which would be work for the collector."""


class Stored:
    """Watches the stored gradients from backward to backward.

    Args:
        gradients: returns those that are stored at present.
    """

    def __init__(self, gradients: Callable[[], list[Tensor]]) -> None:
        self._gradients = gradients
        self._left: Mark = [], []

    def mark(self) -> Mark:
        """Return what tells whether anything is written to them from now on."""
        gradients = self._gradients()
        return [id(gradient) for gradient in gradients], [gradient._version for gradient in gradients]

    def left(self, before: Mark) -> bool:
        """Return whether the backward that ends here stored gradients, rather than handing them to the caller.

        Args:
            before: the mark at its beginning.
        """
        self._left = self.mark()
        return self._left != before

    def gone(self, now: Mark) -> bool:
        """Return whether what the last backward stored was dropped, or set to zero.

        Args:
            now: the present mark.
        """
        return not now[0] or (now != self._left and not any(map(_any, self._gradients())))


def _any(gradient: Tensor) -> bool:
    held = piece(gradient)
    return bool((held.coalesce().values() if held.is_sparse else held).any())
