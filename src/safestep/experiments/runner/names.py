"""What to say about a name that does not exist."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches


def nearest(name: str, names: Sequence[str]) -> str:
    """Return the rest of a sentence on an unknown name: the nearest that exists, then all of them.

    Example:
        >>> "no experiment 'digits'" + nearest("digits", ["digits-sgd", "drift"])
        "no experiment 'digits'. Did you mean digits-sgd? There are: digits-sgd, drift"
    """
    close = get_close_matches(name, names, n=1, cutoff=0.4)
    return f".{f' Did you mean {close[0]}?' if close else ''} There are: {', '.join(names)}"
