"""The outcome of a simulation in words: last points, statistics over the runs, and how far they are from the law."""

from __future__ import annotations

from rich.table import Table

from safestep.bench.grid import on_screen
from safestep.descent import Ensemble, QuadraticSum, distance
from safestep.descent.quadratic import Quadratic

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
    found, apart = ensemble.moments, distance(ensemble)
    law = apart.law
    variables = ensemble.last.shape[1]
    rows = [
        (f"{name} x{i + 1}", ours[-1, i], exact[-1, i], z[-1, i])
        for name, ours, exact, z in (
            ("mean", found.mean, law.mean, apart.mean),
            ("variance", found.variance, law.variance, apart.variance),
        )
        for i in range(variables if variables <= _MOST_VARIABLES else 0)
    ]
    rows.append(("mean f", found.loss[-1], law.loss[-1], apart.loss[-1]))
    cells = [[name, f"{ours.item():.6g}", f"{exact.item():.6g}", f"{z.item():+.2f}"] for name, ours, exact, z in rows]
    return on_screen(["", "simulated", "exact law", "standard errors apart"], cells)
