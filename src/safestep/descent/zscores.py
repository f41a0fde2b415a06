"""How far an ensemble is from the exact law, in standard errors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from safestep.descent.ensemble import Ensemble
from safestep.descent.law import Law, exact_law
from safestep.descent.objective import DescentError

_ROUNDING = 64
"""Units in the last place that an ensemble may be off for its arithmetic alone, a step."""


@dataclass(frozen=True, eq=False)
class Distance:
    """Differences between an ensemble and its law, in standard errors, at ``k`` recorded steps.

    Attributes:
        law: the exact moments.
        mean: shape ``(k, d)``.
        variance: shape ``(k, d)``; 0 for one run, which has none.
        loss: shape ``(k,)``; 0 for one run under mini-batches, whose spread is not known.
    """

    law: Law
    mean: Tensor
    variance: Tensor
    loss: Tensor

    @property
    def worst(self) -> Tensor:
        """The largest of all in absolute value, at each recorded step, shape ``(k,)``."""
        return torch.cat([self.mean, self.variance, self.loss[:, None]], 1).abs().amax(1)


def distance(ensemble: Ensemble) -> Distance:
    r"""Compare an ensemble with the exact law.

    Equation:
        ``z = (found - law) / SE`` with, over ``N`` runs, ``SE = sqrt(v / N)`` for a mean, ``v sqrt(2 / (N - 1))`` for
        a variance and ``sqrt(Var f / N)`` for the loss, ``v`` and ``Var f`` those of the law. Where the points are
        not Gaussian (mini-batches) the variance's ``SE = sqrt((mu_4 - v^2 (N - 3) / (N - 1)) / N)`` and ``Var f`` are
        taken from the runs. To every ``SE`` the rounding of the arithmetic is added.

    Args:
        ensemble: of plain gradient descent on a quadratic, all runs from one point.

    Returns:
        The distances; inf where runs are not finite and the law is.

    Raises:
        DescentError: where there is no exact law, saying why.

    Note:
        Standard errors that are taken from the runs need runs: of fewer than some dozens, a distance on mini-batches
        says little.

    Example:
        >>> from safestep.descent import PLANE, Gaussian, simulate
        >>> bool(distance(simulate(PLANE, noise=Gaussian(), runs=2000)).worst.max() < 4.5)
        True
    """
    setting, found, runs = ensemble.setting, ensemble.moments, ensemble.runs
    if setting.no_law:
        raise DescentError(f"no exact law: {setting.no_law}. Expected torch.optim.SGD without further options")
    if setting.start.dim() != 1:
        raise DescentError("no exact law for runs that begin at different points: expected one start")
    law = exact_law(setting.objective, setting.rates(), noise=setting.noise, start=setting.start, at=ensemble.at)
    v = law.variance
    variance_error = v * (2 / max(1, runs - 1)) ** 0.5
    loss_error = law.loss_variance
    if loss_error is None:
        rest = (found.fourth - v.square() * (runs - 3) / max(1, runs - 1)).clamp(min=0)
        variance_error, loss_error = (rest / runs).sqrt(), found.loss_variance
    epsilon = torch.finfo(ensemble.last.dtype).eps * _ROUNDING * (1 + ensemble.at.double())
    scale = 1 + law.mean.abs().cummax(0).values

    def z(values: Tensor, exact: Tensor, error: Tensor, size: Tensor) -> Tensor:
        off = (values - exact) / (error + size)
        return torch.where(off.isnan(), torch.inf, off)

    return Distance(
        law,
        z(found.mean, law.mean, (v / runs).sqrt(), epsilon[:, None] * scale),
        torch.zeros_like(v) if runs == 1 else z(found.variance, v, variance_error, epsilon[:, None] * scale.square()),
        torch.zeros_like(law.loss)
        if runs == 1 and law.loss_variance is None
        else z(found.loss, law.loss, (loss_error.nan_to_num(0.0) / runs).sqrt(), epsilon * (1 + law.loss.abs())),
    )
