"""The outcome of a simulation in words: last points, statistics over the runs, and how far they are from the law."""

from __future__ import annotations

from rich import box
from rich.table import Table

from safestep.descent import Ensemble, Quadratic, QuadraticSum, distance

FEW = 8
"""Of so many runs at most each last point is told."""
_MOST_VARIABLES = 6
"""Of more variables the table tells the loss alone."""


def outcome(ensemble: Ensemble) -> str:
    """Return lines on where the runs ended.

    Example:
        >>> from safestep.descent import PLANE, simulate
        >>> print(outcome(simulate(PLANE, steps=20)))
        epoch 20, x1: -0.057646, x2: -0.000073
    """
    points = [
        ensemble.last_point(run) + (" (diverged)" if ensemble.diverged[run] else "")
        for run in range(ensemble.runs if ensemble.runs <= FEW else 0)
    ]
    summary = str(ensemble) if ensemble.runs > 1 else ensemble.trouble
    return "\n".join(filter(None, [*points, summary]))


def why_no_law(ensemble: Ensemble) -> str:
    """Return why the exact law of an ensemble is not known, or an empty text."""
    objective = ensemble.setting.objective
    if not isinstance(objective, (Quadratic, QuadraticSum)):
        return "f is not known to be a quadratic"
    return ensemble.setting.no_law


def law_table(ensemble: Ensemble) -> Table:
    """Return the last moments of an ensemble of several runs beside the exact law, see `why_no_law`."""
    found, apart, variables = ensemble.moments, distance(ensemble), ensemble.last.shape[1]
    law = apart.law
    rows = []
    if variables <= _MOST_VARIABLES:
        rows = [(f"mean x{i + 1}", found.mean[-1, i], law.mean[-1, i], apart.mean[-1, i]) for i in range(variables)]
        rows += [
            (f"variance x{i + 1}", found.variance[-1, i], law.variance[-1, i], apart.variance[-1, i])
            for i in range(variables)
        ]
    rows.append(("mean f", found.loss[-1], law.loss[-1], apart.loss[-1]))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("", "simulated", "exact law", "standard errors apart"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for name, ours, exact, z in rows:
        table.add_row(name, f"{ours.item():.6g}", f"{exact.item():.6g}", f"{z.item():+.2f}")
    return table
