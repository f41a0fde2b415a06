"""The outcome of runs as tables of texts: the same for the screen and for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from safestep.experiments.runner.experiment import Column, Experiment, Row, seeds_of

_HUGE = 1e5
"""Numbers from here on are written in scientific notation."""


@dataclass(frozen=True)
class OutcomeTable:
    """Rows or summaries of results.json, and the columns they are shown in."""

    columns: Sequence[Column]
    rows: Sequence[Row]

    @property
    def cells(self) -> list[list[str]]:
        """The text of every cell, row by row."""
        return [[cell(row.get(column.key), column.form) for column in self.columns] for row in self.rows]


def run_table(experiment: Experiment[Any] | None, results: Mapping[str, Any]) -> OutcomeTable:
    """Return a table with one row a run; without an experiment, of another version, it has every column."""
    rows = results["rows"]
    columns = experiment.columns if experiment else _columns_of(rows)
    if len(seeds_of(rows)) > 1:
        columns = (*columns[:1], Column("seed", "seed"), *columns[1:])
    return OutcomeTable(columns, rows)


def summary_table(experiment: Experiment[Any] | None, results: Mapping[str, Any]) -> OutcomeTable | None:
    """Return the table of summaries over the seeds; None where the rows of a single seed tell more."""
    summary = results.get("summary", [])
    always = experiment is not None and experiment.summary_always
    if not summary or not (always or len(seeds_of(results["rows"])) > 1):
        return None
    return OutcomeTable(experiment.summary_columns if experiment else _columns_of(summary), summary)


def _columns_of(rows: Sequence[Row]) -> tuple[Column, ...]:
    """Return a column for everything that is in some rows, the label first; seeds have no column here."""
    keys = dict.fromkeys(key for row in rows for key in row if key != "seed")
    return tuple(Column(key, key.replace("_", " ")) for key in sorted(keys, key=lambda key: key != "label"))


def cell(value: Any, form: str = "") -> str:
    """Return a value of a row as text.

    Args:
        value: as the experiment, or results.json, has it.
        form: how its column writes numbers, as ``".3f"`` (digits after the point) or ``"#.3g"`` (digits that count);
            huge ones, and those that would look like 0, are written otherwise.

    Example:
        >>> cell(0.25, ".3f"), cell(4.25e9, ".3f"), cell(2e-7, ".3f"), cell(True), cell(None), cell("inf")
        ('0.250', '4.25e+09', '2e-07', 'yes', '–', 'inf')
        >>> cell(5.0, "#.3g"), cell(0.0875312, "#.3g"), cell(123.4, "#.3g"), cell(81234.5, "#.3g")
        ('5.00', '0.0875', '123', '81234')
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        text = f"{value:{form or '.4g'}}"
        looks_like_zero = value != 0 and not text.strip("-0.%")
        if looks_like_zero or abs(value) >= _HUGE:
            return f"{value:.3g}"
        # "123." and "1.23e+04": no digit before the point is left out for want of room after it
        return f"{value:.0f}" if form.startswith("#") and (text[-1] == "." or "e+" in text) else text
    return str(value)
