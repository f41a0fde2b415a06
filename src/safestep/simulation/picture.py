"""The picture of a simulation: traces over the contours of f, and beside them the loss over the steps."""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from safestep.descent import Ensemble, Objective, Quadratic, Silent, exact_law
from safestep.descent.objective import Point
from safestep.plots import LossBand, animate_trace, loss_over_steps, style, trace_contours
from safestep.plots.panel import panel, single_figure
from safestep.simulation.outcome import why_no_law


def draw(ensemble: Ensemble, label: str) -> Figure:
    """Draw the traces that were kept, in two variables, and the loss with the band of the runs and the exact law.

    Args:
        ensemble: what was simulated.
        label: what is written beside its curves.
    """
    plane = ensemble.setting.objective.dimension == 2
    figure = single_figure(style.WIDTH * (1 + plane))
    *left, right = figure.subplots(1, 1 + plane, squeeze=False).flat
    if plane:
        objective = ensemble.setting.objective
        traces = {label: ensemble.traces}
        trace_contours(_Values(objective), traces, minimum=_lowest(objective), start=_start(ensemble), ax=left[0])
    loss_over_steps([_band(ensemble, label)], ax=right)
    return figure


def animate(ensemble: Ensemble, label: str, path: Path) -> None:
    """Save the traces that were kept as an animation, .gif or .html."""
    objective = ensemble.setting.objective
    animate_trace(
        _Values(objective),
        {label: ensemble.traces},
        path,
        minimum=_lowest(objective),
        start=_start(ensemble),
        ax=panel(single_figure()),
    )


class _Values:
    """f on points of any shape: a function of the user's has been promised rows."""

    def __init__(self, objective: Objective) -> None:
        self._objective = objective

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        return self._objective.value(x.reshape(-1, x.shape[-1])).reshape(x.shape[:-1])


def _start(ensemble: Ensemble) -> Tensor | None:
    """Return the point where all runs begin; None if they begin at several."""
    return ensemble.setting.start if ensemble.setting.start.dim() == 1 else None


def _lowest(objective: Objective) -> Point | None:
    """Return where f is least, if that is known: a quadratic that bends down has no such place."""
    if isinstance(objective, Quadratic) and torch.linalg.eigvalsh(objective.matrix)[0] < 0:
        return None
    return objective.minimum


def _band(ensemble: Ensemble, label: str) -> LossBand:
    found, setting = ensemble.moments, ensemble.setting
    # a single noisy run is not its own mean
    meets = ensemble.runs > 1 or isinstance(setting.noise, Silent)
    law = None
    if meets and setting.start.dim() == 1 and not why_no_law(ensemble):
        law = exact_law(
            setting.objective, setting.rates(), noise=setting.noise, start=setting.start, at=ensemble.at
        ).loss.tolist()
    return LossBand(
        label,
        ensemble.at.tolist(),
        found.loss.tolist(),
        found.loss_quantiles[:, 0].tolist(),
        found.loss_quantiles[:, -1].tolist(),
        law,
    )
