"""Which combinations are tried: in the quick form a third, in which everything occurs; with SAFESTEP_LONG=1 all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from itertools import product
from typing import Any

LONG = bool(os.environ.get("SAFESTEP_LONG"))
"""Whether to run every combination."""
DIAGONAL = int(os.environ.get("SAFESTEP_DIAGONAL", "0"))
"""Which third is tried otherwise, 0, 1 or 2; `make test-processors` goes through them."""


def crossed(*kinds: Iterable[Any], always: Callable[..., bool] = lambda *one: False) -> list[tuple[Any, ...]]:
    """Return combinations of things of several kinds, the first varying most slowly.

    In the quick form every third, on diagonals: so each thing meets a third of those of another kind, and its
    neighbours meet the other two thirds.

    Args:
        kinds: the things, kind by kind.
        always: from one of each to whether that combination belongs to the quick form whatever the diagonal.
    """
    numbered = product(*(enumerate(kind) for kind in kinds))
    return [
        things
        for indices, things in (zip(*one, strict=True) for one in numbered)
        if LONG or sum(indices) % 3 == DIAGONAL or always(*things)
    ]
