"""How many examples a property gets where the usual number is too dear or too few."""

from __future__ import annotations

from hypothesis import settings

USUAL = 50
"""Examples of a property in `make test`; `make test-processors` takes ten times as many (tests/conftest.py)."""


def examples(count: int) -> settings:
    """Return a decorator that takes this many where others take `USUAL`, and more where they take more."""
    return settings(max_examples=count * settings().max_examples // USUAL)
