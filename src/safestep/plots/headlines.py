"""Words that the page of an experiment joins."""

from __future__ import annotations

from collections.abc import Sequence


def sentence(text: str) -> str:
    """Return a text with a capital first letter, the rest as it is."""
    return text[:1].upper() + text[1:]


def named_list(labels: Sequence[str]) -> str:
    """Join labels, naming a shared first word once.

    Example:
        >>> named_list(["fixed 0.5", "fixed 5.0", "pin"])
        'fixed 0.5, 5.0 and pin'
    """
    words, before = [], ""
    for label in labels:
        first, _, rest = label.partition(" ")
        words.append(rest if rest and first == before else label)
        before = first
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
