"""A value of a row as the text of a cell on the page."""

from __future__ import annotations

from typing import Any

from safestep.records.report import number

_HUGE = 1e4
"""Numbers from here on are written as powers of ten, and so are those that would look like 0."""
_TEXTS = {"inf", "-inf", "nan"}


def cell(value: Any, form: str = "") -> str:
    """Return a value of a row as text.

    Args:
        value: as the experiment, or results.json, has it.
        form: how its column writes numbers, as in a format specification.

    Example:
        >>> cell(0.9622, ".3f"), cell(1.85e30, ".3f"), cell(2e-7, ".3f"), cell("inf", ".3f"), cell(None), cell(True)
        ('0.962', '2·10³⁰', '2·10⁻⁷', '∞', '–', 'diverged')
    """
    from safestep.plots.frame import plain_number  # here: a screen should not wait for matplotlib before it is needed

    if value is None:
        return "–"
    if isinstance(value, bool):  # the one flag of a row
        return "diverged" if value else "no"
    if isinstance(value, str) and value in _TEXTS:
        value = number(value)
    if isinstance(value, float):
        text = f"{value:{form}}" if form and abs(value) < _HUGE else ""
        return text if text and (value == 0 or text.strip("-0.%")) else plain_number(value)
    return str(value)
