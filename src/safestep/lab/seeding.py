"""What makes a run repeat itself: every generator seeded."""

from __future__ import annotations

import random

import torch

from safestep._torch.extras import need

LARGEST_SEED = 2**32 - 1
"""The largest seed that NumPy takes."""


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch.

    Args:
        seed: a whole number from 0 to 2^32 - 1.

    Raises:
        ValueError: for any other seed.
        MissingExtraError: if NumPy is not installed.

    Example:
        >>> seed_everything(7); first = torch.rand(1)
        >>> seed_everything(7); torch.equal(first, torch.rand(1))
        True
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= LARGEST_SEED:
        raise ValueError(f"seed {seed!r}: expected a whole number from 0 to {LARGEST_SEED}")
    random.seed(seed)
    need("numpy.random", "experiments").seed(seed)
    torch.manual_seed(seed)
