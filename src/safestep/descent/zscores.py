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
        ``z = (statistic - law) / SE`` with, over ``N`` runs, ``SE = sqrt(v / N)`` for a mean, ``v sqrt(2 / (N - 1))``
        for a variance and ``sqrt(Var f / N)`` for the loss, ``v`` and ``Var f`` those of the law. Where the points
        are not Gaussian (mini-batches) the variance's ``SE = sqrt((mu_4 - v^2 (N - 3) / (N - 1)) / N)`` and ``Var f``
        are taken from the runs. To every ``SE`` the rounding of the arithmetic is added.

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
    setting, moments, runs = ensemble.setting, ensemble.moments, ensemble.runs
    if setting.no_law:
        raise DescentError(f"no exact law: {setting.no_law}. Expected torch.optim.SGD without further options")
    if setting.start.dim() != 1:
        raise DescentError("no exact law for runs that begin at different points: expected one start")
    law = exact_law(setting.objective, setting.rates(), noise=setting.noise, start=setting.start, at=ensemble.at)
    v, one, others = law.variance, runs == 1, max(1, runs - 1)
    if law.loss_variance is not None:
        variance_error, loss_variance = v * (2 / others) ** 0.5, law.loss_variance
    else:
        variance_error = ((moments.fourth - v.square() * (runs - 3) / others).clamp(min=0) / runs).sqrt()
        loss_variance = moments.loss_variance.nan_to_num(0.0)
    epsilon = torch.finfo(ensemble.last.dtype).eps * _ROUNDING * (1 + ensemble.at.double())
    reach = 1 + law.mean.abs().cummax(0).values

    def z(statistic: Tensor, exact: Tensor, error: Tensor, rounding: Tensor) -> Tensor:
        off = (statistic - exact) / (error + rounding)
        return torch.where(off.isnan(), torch.inf, off)

    mean = z(moments.mean, law.mean, (v / runs).sqrt(), epsilon[:, None] * reach)
    variance = z(moments.variance, v, variance_error, epsilon[:, None] * reach.square())
    loss = z(moments.loss, law.loss, (loss_variance / runs).sqrt(), epsilon * (1 + law.loss.abs()))
    unknown = one and law.loss_variance is None
    return Distance(law, mean, torch.zeros_like(v) if one else variance, torch.zeros_like(loss) if unknown else loss)
