"""Which of many to keep: an even sample, of bounded size, of a sequence whose length nobody knows beforehand."""

from __future__ import annotations

_TURN = 0x9E3779B97F4A7C15
"""The odd number nearest to 2^64 divided by the golden ratio."""


def rank(index: int) -> int:
    r"""Return the rank of an element by its index alone; of any number of elements keep those of the lowest ranks.

    Equation:
        ``rank(i) = i floor(2^64 / phi) mod 2^64`` with the golden ratio ``phi``. The ``i < n`` whose rank lies below
        a threshold have at most three distances from one to the next (the three-distance theorem): wherever the
        sequence ends, those kept are spread evenly over it, and no generator is drawn from.

    Args:
        index: place in the sequence, from 0.

    Returns:
        A number in [0, 2^64), another one for each index below 2^64.

    Example:
        >>> sorted(sorted(range(1000), key=rank)[:8])
        [0, 89, 233, 322, 466, 610, 699, 843]

    Note:
        No sequence is safe from a rule that is known: one whose elements repeat at the distances above is sampled
        unevenly. The first element is always kept.

    Reference:
        V. T. Sos, "On the distribution mod 1 of the sequence n alpha", Ann. Univ. Sci. Budapest 1 (1958); D. Knuth,
        The Art of Computer Programming 3, section 6.4, Theorem S, for the multiplier.
    """
    return index * _TURN % (1 << 64)
