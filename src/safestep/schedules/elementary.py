"""The schedules themselves: constant, decays, pieces, a cosine and a warm-up."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Self, final

import torch
from torch import Tensor

from safestep.errors import ScheduleError
from safestep.schedules.ranges import above_0, between_0_and_1, from_0, from_0_to_1, whole
from safestep.schedules.schedule import N, Schedule
from safestep.schedules.sums import finite, first_terms, geometric, power_law


@final
@dataclass(frozen=True, slots=True)
class Constant(Schedule):
    """Keep the factor: the iterate gets near the minimum, and never settles.

    Attributes:
        value: dimensionless, at least 0. At 0 nothing moves, and both sums are 0; otherwise both diverge.

    Example:
        >>> Constant()(7), Constant(0.5).robbins_monro
        (1.0, False)
    """

    value: float = field(default=1.0, metadata={"check": from_0})

    def _factor(self, t: N) -> N:
        return self.value + 0.0 * t  # of the shape of t

    def _sum(self, power: float, first: int) -> float:
        return math.inf if self.value > 0.0 else 0.0


@final
@dataclass(frozen=True, slots=True)
class Inverse(Schedule):
    """Decay as ``1 / (1 + beta t)``: the sum of the rates diverges, as log t, and that of their squares converges.

    Attributes:
        beta: per step, above 0; the factor is one half at ``t = 1 / beta``.

    Example:
        >>> Inverse(0.1)(10), Inverse(0.1).robbins_monro
        (0.5, True)

    Reference:
        H. Robbins and S. Monro, "A Stochastic Approximation Method" (1951).
    """

    beta: float = field(metadata={"check": above_0})

    def _factor(self, t: N) -> N:
        return 1.0 / (1.0 + self.beta * t)

    def _sum(self, power: float, first: int) -> float:
        return power_law(self.beta, power, first)


@final
@dataclass(frozen=True, slots=True)
class Polynomial(Schedule):
    """Decay as ``(1 + beta t)^(-alpha)``.

    The sum of the rates converges for ``alpha > 1``, that of their squares for ``alpha > 1/2``: the published 1/2 is
    on the edge. Not `torch.optim.lr_scheduler.PolynomialLR`, ``(1 - t/T)^power``, which ends at 0 after T steps.

    Attributes:
        beta: per step, above 0.
        alpha: the exponent, above 0. Not the scale of a throttle, which has the same letter.

    Example:
        >>> Polynomial(0.1)(30), Polynomial(0.1).robbins_monro, Polynomial(0.1, alpha=0.75).robbins_monro
        (0.5, False, True)
    """

    beta: float = field(metadata={"check": above_0})
    alpha: float = field(default=0.5, metadata={"check": above_0})

    def _factor(self, t: N) -> N:
        base = 1.0 + self.beta * t
        return base.pow(-self.alpha) if isinstance(base, Tensor) else math.pow(base, -self.alpha)

    def _sum(self, power: float, first: int) -> float:
        return power_law(self.beta, self.alpha * power, first)


@final
@dataclass(frozen=True, slots=True)
class Exponential(Schedule):
    """Decay as ``e^(-lambda t)``: both sums converge, so that all steps together reach only so far.

    Attributes:
        decay: ``lambda``, per step, above 0. Not an eigenvalue, which has the same letter.

    Example:
        >>> round(Exponential(0.1)(10), 3), round(Exponential(0.1).sum(), 3), Exponential(0.1).robbins_monro
        (0.368, 10.508, False)
    """

    decay: float = field(metadata={"check": above_0})

    @classmethod
    def of_base(cls, alpha: float) -> Self:
        """Return the schedule ``alpha^t``, alpha between 0 and 1.

        Example:
            >>> Exponential.of_base(0.9)
            Exponential(decay=0.10536051565782628)
        """
        return cls(-math.log(between_0_and_1(alpha, "alpha")))

    def _factor(self, t: N) -> N:
        exponent = -self.decay * t
        return exponent.exp() if isinstance(exponent, Tensor) else math.exp(exponent)

    def _sum(self, power: float, first: int) -> float:
        return geometric(self.decay * power, first)


@final
@dataclass(frozen=True, slots=True)
class Staircase(Schedule):
    """Decay as ``ratio^floor(t / K)``, for ever: like `Exponential`, it stops somewhere.

    Attributes:
        every: ``K``, steps (or epochs, whichever the scheduler counts) on one stair, at least 1.
        ratio: the factor from one stair to the next, between 0 and 1.

    Example:
        >>> import torch
        >>> Staircase(30)(torch.tensor([0, 29, 30, 60]))
        tensor([1.0000, 1.0000, 0.1000, 0.0100], dtype=torch.float64)
        >>> Staircase(30, ratio=0.5).sum()
        60.0
    """

    every: int = field(metadata={"check": whole})
    ratio: float = field(default=0.1, metadata={"check": between_0_and_1})

    def _factor(self, t: N) -> N:
        stair = t // self.every
        return torch.pow(self.ratio, stair) if isinstance(stair, Tensor) else math.pow(self.ratio, stair)

    def _sum(self, power: float, first: int) -> float:
        stair, climbed = divmod(first, self.every)
        here = (self.every - climbed) * math.pow(self.ratio, power * stair)  # what is left of the stair it begins on
        return here + self.every * geometric(-power * math.log(self.ratio), stair + 1)


def _each(check: Callable[[object, str], object]) -> Callable[[object, str], tuple[object, ...]]:
    """Return the check of a sequence whose members each pass a check."""

    def sequence(values: object, name: str) -> tuple[object, ...]:
        if not hasattr(values, "__iter__"):
            raise ScheduleError(f"{name} = {values!r}: expected sequences, such as at=(30, 60), factors=(1, 0.1, 0.01)")
        return tuple(check(value, f"one of {name}") for value in values)

    return sequence


@final
@dataclass(frozen=True, slots=True)
class PiecewiseConstant(Schedule):
    """Keep ``factors[i]`` while i boundaries are not beyond t.

    Both sums diverge if the last factor is above 0, and are finite if it is 0. The length is the last boundary:
    ``drop.then(other)`` goes on with the other one instead of the last factor.

    Attributes:
        at: boundaries in steps (or epochs), whole numbers from 1 on, rising. The step at a boundary has the new factor.
        factors: dimensionless, at least 0, one more than boundaries: the first from step 0, the last for ever.

    Example:
        >>> drop = PiecewiseConstant(at=(30, 60), factors=(1, 0.1, 0.01))
        >>> drop(29), drop(30), drop(60)
        (1.0, 0.1, 0.01)
    """

    at: tuple[int, ...] = field(metadata={"check": _each(whole)})
    factors: tuple[float, ...] = field(metadata={"check": _each(from_0)})

    def __post_init__(self) -> None:
        """Check that the boundaries rise and that every piece has its factor."""
        Schedule.__post_init__(self)
        at, factors = self.at, self.factors
        if not at or any(later <= earlier for earlier, later in pairwise(at)):
            raise ScheduleError(f"at = {at}: expected boundaries that rise, at least one; Constant() has none")
        if len(factors) != len(at) + 1:
            raise ScheduleError(
                f"{len(at)} boundaries and {len(factors)} factors: expected {len(at) + 1} factors, one before the "
                "first boundary and one from each on"
            )

    def _factor(self, t: N) -> N:
        if isinstance(t, Tensor):
            at = torch.tensor(self.at, dtype=t.dtype, device=t.device)
            return torch.tensor(self.factors, dtype=t.dtype, device=t.device)[torch.bucketize(t, at, right=True)]
        return self.factors[bisect_right(self.at, t)]

    @property
    def length(self) -> int:
        """The last boundary."""
        return self.at[-1]

    def _sum(self, power: float, first: int) -> float:
        if self.factors[-1] > 0.0:
            return math.inf
        pieces = zip((0, *self.at), self.at, self.factors, strict=False)
        return finite(sum(math.pow(f, power) * max(0, end - max(begin, first)) for begin, end, f in pieces))


@final
@dataclass(frozen=True, slots=True)
class Cosine(Schedule):
    """Go down half a cosine, ``floor + (1 - floor) (1 + cos(pi t / T)) / 2`` for ``t < T``, then stay at the floor.

    With the floor 0 both sums are finite, that of the rates (T + 1)/2; with a higher one both diverge. Unlike
    `torch.optim.lr_scheduler.CosineAnnealingLR` it does not go up again.

    Attributes:
        steps: ``T``, at least 1.
        floor: dimensionless, from 0 to 1. A target must stay above 0.

    Example:
        >>> Cosine(100)(0), round(Cosine(100)(50), 15), Cosine(100, floor=0.1)(1000), round(Cosine(100).sum(), 9)
        (1.0, 0.5, 0.1, 50.5)

    Reference:
        I. Loshchilov and F. Hutter, "SGDR", arXiv 1608.03983, equation 5, without restarts.
    """

    steps: int = field(metadata={"check": whole})
    floor: float = field(default=0.0, metadata={"check": from_0_to_1})

    def _factor(self, t: N) -> N:
        # (1 + cos x)/2 = sin^2((pi - x)/2), which keeps its digits near the end and is exactly 0 there
        half = 0.5 * math.pi * (self.steps - t) / self.steps
        root = half.clamp(min=0.0).sin() if isinstance(half, Tensor) else math.sin(max(half, 0.0))
        return self.floor + (1.0 - self.floor) * (root * root)

    @property
    def length(self) -> int:
        """``T``."""
        return self.steps

    def _sum(self, power: float, first: int) -> float:
        return math.inf if self.floor > 0.0 else first_terms(self, power, first, self.steps)


@final
@dataclass(frozen=True, slots=True)
class WarmUp(Schedule):
    """Rise along ``start + (1 - start) (t + 1)/T`` for ``t < T``, and stay at 1.

    With ``t + 1``, because a first step of rate 0 would spend a batch without moving (and feed it to Adam's moments).
    Equals `torch.optim.lr_scheduler.LinearLR` with ``start_factor = start + (1 - start)/T, total_iters = T - 1``.

    Attributes:
        steps: ``T``, at least 1.
        start: dimensionless, from 0 to 1; where the line would be one step before the first.

    Example:
        >>> [WarmUp(4)(t) for t in range(6)]
        [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]

    Reference:
        P. Goyal et al., arXiv 1706.02677, section 2.2 (gradual warm-up).
    """

    steps: int = field(metadata={"check": whole})
    start: float = field(default=0.0, metadata={"check": from_0_to_1})

    def _factor(self, t: N) -> N:
        share = (t + 1.0) / self.steps
        risen = share.clamp(max=1.0) if isinstance(share, Tensor) else min(share, 1.0)
        return self.start + (1.0 - self.start) * risen

    @property
    def length(self) -> int:
        """``T``."""
        return self.steps

    def _sum(self, power: float, first: int) -> float:
        return math.inf
