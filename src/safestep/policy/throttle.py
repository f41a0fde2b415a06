"""Throttle: scale the whole step so that its stability margin stays near an aim below 2."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from safestep.formulas.throttle_laws import order_0, order_1, order_2, quantised
from safestep.policy.policy import Policy
from safestep.radius.curvature import CurvatureRadius
from safestep.radius.radius import Radius, State
from safestep.records.reading import Status

Order = Literal[0, 1, 2]


@dataclass(frozen=True, kw_only=True)
class Throttle(Policy):
    r"""Scale every step by an alpha that keeps its stability margin at or near ``chi``.

    Equation:
        With the margin ``m = 2 r`` of the raw step (``eta lambda`` for plain SGD along an eigenvector; 2 is the limit):

        =======  ============================================================================
        order 0  ``alpha = chi / m``
        order 1  ``alpha <- alpha + k (chi - alpha m)``
        order 2  ``u <- d u + k (chi - alpha m)``, ``alpha <- alpha + u``
        =======  ============================================================================

        each clipped to ``[low, high]``, and the applied step is ``alpha p``.

    Attributes:
        chi: the aim, in (0, 2). Order 0 steps ``chi`` times the length of an exact line search along ``p``.
        order: 0 acts at once and leaves every step with ``m <= chi`` alone, bit for bit; 1 and 2 move alpha gradually
            and scale every step, too.
        gain: ``k`` of orders 1 and 2, positive. Order 1 itself is stable while ``k m < 2``.
        damping: ``d`` of order 2, in [0, 1).
        start: alpha before the first step of orders 1 and 2. From 0 the first step is scaled by ``k chi``; 1 lets it
            through.
        low: smallest alpha. Above 0 it takes precedence over the limit.
        high: largest alpha.
        quantum: smallest step that the parameters can express, in their units: alpha is then at least
            ``quantum / ||p||``, and at most what order 0 allows. None for no such bound.

    Raises:
        ValueError: at construction, for an option outside its range.

    Example:
        >>> ratio, length = torch.tensor(4.0, dtype=torch.float64), torch.tensor(1.0)
        >>> alpha, _ = Throttle(chi=1.5).scale(ratio, length, 0.75, None)
        >>> later, state = Throttle(order=1, gain=0.125).scale(ratio, length, 0.75, None)
        >>> alpha.item(), later.item(), state["alpha"].item()
        (0.1875, 0.1875, 0.1875)

    Note:
        Made for `CurvatureRadius`, which ``attach`` takes where no radius is given; with `SecantCurvature` it is the
        published throttle. A step that is uphill on its own batch is held whatever the order, and alpha stays.

    Reference:
        M. Blanco Valentin, ENABOL / kappa, experiment 000, repository manuelblancovalentin/kappa_budgeting.
    """

    chi: float = 1.5
    order: Order = 0
    gain: float = 0.1
    damping: float = 0.8
    start: float = 0.0
    low: float = 0.0
    high: float = 1.0
    quantum: float | None = None

    scaled: ClassVar[Status] = Status.THROTTLED

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.order not in get_args(Order):
            raise ValueError(f"order={self.order!r}: expected 0, 1 or 2")
        if not 0.0 < self.chi < 2.0:
            raise ValueError(f"chi={self.chi!r}: expected a margin in (0, 2); 2 is the limit of stability")
        if not 0.0 < self.gain < math.inf or not 0.0 <= self.damping < 1.0:
            raise ValueError(f"gain={self.gain!r}, damping={self.damping!r}: expected gain > 0, damping in [0, 1)")
        if not (0.0 <= self.low <= self.high < math.inf and self.high > 0.0 and 0.0 <= self.start <= self.high):
            raise ValueError(
                f"low={self.low!r}, start={self.start!r}, high={self.high!r}: expected 0 <= low <= high < inf, "
                "high > 0 and a start from 0 to high"
            )
        if self.quantum is not None and not 0.0 < self.quantum < math.inf:
            raise ValueError(f"quantum={self.quantum!r}: expected the smallest step that counts, a positive number")

    @property
    def always(self) -> bool:
        """Whether steps inside the aim are scaled too."""
        return self.order != 0 or self.high != 1.0 or self.quantum is not None

    @property
    def default_radius(self) -> Radius:
        """The radius this policy is made for."""
        return CurvatureRadius()

    def target_at(self, step: int) -> float:
        """Return ``chi / 2``, the aim as a step ratio."""
        return self.chi / 2.0

    def scale(self, ratio: Tensor, length: Tensor, target: float, state: State) -> tuple[Tensor, State]:
        """Return alpha, 0 for a step uphill, and what the law remembers."""
        margin, chi, bounds = 2.0 * ratio, 2.0 * target, {"low": self.low, "high": self.high}
        uphill = torch.isinf(ratio)  # nothing that a law could learn from
        highest = order_0(margin, chi, **bounds)
        alpha, later = highest, state
        if self.order != 0:
            known = state or {"alpha": torch.full_like(highest, self.start), "velocity": torch.zeros_like(highest)}
            before, velocity = known["alpha"], known["velocity"]
            if self.order == 1:
                alpha, faster = order_1(before, margin, chi, self.gain, **bounds), velocity
            else:
                alpha, faster = order_2(before, velocity, margin, chi, self.gain, self.damping, **bounds)
        if self.quantum is not None:
            alpha, _ = quantised(alpha, length, self.quantum, highest)
        if self.order != 0:
            later = {
                "alpha": torch.where(uphill, before, alpha),
                "velocity": torch.where(uphill, velocity, faster),
            }
        return torch.where(uphill, 0.0, alpha), later

    def says(self, ratio: float, length: float, target: float) -> str:
        """Return what the user should know of this step, or an empty text."""
        if self.quantum is None or math.isinf(ratio):
            return ""
        highest = order_0(2.0 * ratio, 2.0 * target, low=self.low, high=self.high)
        feasible = quantised(highest, length, self.quantum, highest)[1]
        return "" if feasible else f"a step within chi is shorter than the quantum {self.quantum:g}"
