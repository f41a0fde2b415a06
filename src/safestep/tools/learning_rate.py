"""What `suggest_lr` answers: a learning rate, what it rests on, and whether to believe it."""

from __future__ import annotations

import importlib
import warnings
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Outcome(StrEnum):
    """What came of looking for the learning rate at which r = target."""

    FOUND = "found"
    """A trial step at the suggested rate had r = target, to 1e-4."""
    NEAR = "near"
    """No rate that was tried came closer, but r was within 5 % of the target: ``reached`` is r there."""
    UNBOUNDED = "unbounded"
    """The step moves no logit against another at any rate: r = 0, and the rate is inf."""
    UNREACHED = "unreached"
    """r does not follow the learning rate to the target (an optimizer with step sizes of its own): the rate is nan."""
    NONFINITE = "nonfinite"
    """The gradient, the step or its r is not finite: the rate is nan."""


@dataclass(frozen=True, slots=True)
class LearningRate:
    """The learning rate at which the next step would have r = target.

    Attributes:
        lr: the suggested rate of the leading group, the first whose rate is not 0; inf where any rate is inside, nan
            where there is no answer (see ``status``).
        lrs: the suggested rate of every parameter group, of all optimizers in order, in their present proportions.
        present_lr: the rate of the leading group now.
        present_lrs: the rate of every group now.
        ratio: r of the next step at the present rates, dimensionless; 0 where they are 0.
        target: the r that was asked for.
        reached: r of the trial step at ``lrs``; nan without one.
        status: what came of it, see `Outcome`.
        exact: whether ``reached`` is what the definition of r says, not an estimate or a quantile, and is the target.
        method: how r was measured.
        message: what the user should know of this answer, or an empty text.
        trials: what was measured: the rate of the leading group and r of a step there, in the order of measuring.
    """

    lr: float
    lrs: tuple[float, ...]
    present_lr: float
    present_lrs: tuple[float, ...]
    ratio: float
    target: float
    reached: float
    status: Outcome
    exact: bool
    method: str = ""
    message: str = ""
    trials: tuple[tuple[float, float], ...] = ()

    def plot(self, ax: Axes | None = None) -> Axes:
        """Do what `safestep.plots.ratio_over_rates` does, which is to be called instead."""
        warnings.warn("LearningRate.plot() is now safestep.plots.ratio_over_rates(suggestion)", DeprecationWarning, 2)
        # By name: the plots are a floor above the tools, which need torch alone.
        axes: Axes = importlib.import_module("safestep.plots").ratio_over_rates(self, ax=ax)
        return axes

    def __str__(self) -> str:
        """Return one readable line."""
        rates = " ".join(f"{rate:.4g}" for rate in self.lrs)
        present = " ".join(f"{rate:.4g}" for rate in self.present_lrs)
        text = (
            f"suggested lr {rates} (r {self.reached:.4g}, target {self.target:g}), "
            f"present lr {present} (r {self.ratio:.4g}): {self.status}  [{self.method or 'not measured'}]"
        )
        return f"{text}  {self.message}" if self.message else text
