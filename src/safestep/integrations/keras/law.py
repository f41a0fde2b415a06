"""The published law of the global throttle in Keras operations, so that it can be traced; see `formulas.throttle`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from safestep.errors import AttachError
from safestep.integrations.keras._extra import Array, ops

LIMIT = 2.0
"""The margin at which plain gradient descent on a quadratic turns unstable."""


@dataclass(frozen=True)
class SecantLaw:
    r"""From the change of gradients between two steps to the scale alpha of the next one.

    Equation:
        ``C_t = ||g_t - g_{t-1}|| / ||theta_t - theta_{t-1}||``, ``S_t = (1 - beta) S_{t-1} + beta C_t``,
        ``m = max(C_t, S_t) ||p|| / ||g||`` (``eta C`` for plain SGD), then alpha by the law of the given order, as in
        `safestep.formulas.throttle`.

    Attributes:
        chi: the margin to aim at, in (0, 2).
        order: 0, 1 or 2.
        beta: share of the newest curvature in its running mean, in [0, 1].
        gain: ``k`` of orders 1 and 2, positive.
        damping: of order 2, in [0, 1).
        start: alpha before the first step of orders 1 and 2, in [0, high].
        low: smallest alpha, at least 0.
        high: largest alpha.

    Raises:
        AttachError: at construction, for a value out of its range.

    Reference:
        M. Blanco Valentin, ENABOL / kappa, experiment 000, see `safestep.formulas.throttle`.
    """

    chi: float = 1.5
    order: int = 0
    beta: float = 0.05
    gain: float = 0.1
    damping: float = 0.8
    start: float = 0.0
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        """Check the options."""
        expected = {
            "chi": (0.0 < self.chi < LIMIT, "a margin between 0 and the limit 2"),
            "order": (self.order in {0, 1, 2}, "0, 1 or 2"),
            "beta": (0.0 <= self.beta <= 1.0, "a share from 0 to 1"),
            "gain": (0.0 < self.gain < math.inf, "a positive number"),
            "damping": (0.0 <= self.damping < 1.0, "a number from 0 to below 1"),
            "low": (0.0 <= self.low <= self.high, "at least 0 and at most high"),
            "high": (0.0 < self.high < math.inf, "a positive number"),
            "start": (0.0 <= self.start <= self.high, "a number from 0 to high"),
        }
        for name, (holds, words) in expected.items():
            if not holds:
                raise AttachError(f"{name}={getattr(self, name)!r}: expected {words}")

    def curvature(self, newest: Array, mean: Array, gradient_change: Array, distance: Array, known: Array) -> Array:
        """Return the secant curvature ``C_t`` and its running mean ``S_t``, both stacked.

        Args:
            newest: ``C_{t-1}``, which stands where the two steps cannot be compared.
            mean: ``S_{t-1}``.
            gradient_change: ``||g_t - g_{t-1}||``.
            distance: ``||theta_t - theta_{t-1}||``.
            known: whether they can.
        """
        measured = gradient_change / ops.where(known, distance, ops.ones_like(distance))
        standing = ops.where(ops.logical_and(known, ops.isfinite(measured)), measured, newest)
        return ops.stack([standing, (1.0 - self.beta) * mean + self.beta * standing])

    def margin(self, curvature: Array, length: Array, slope: Array) -> Array:
        """Return the margin of the raw step; 0 where there is no gradient.

        Args:
            curvature: ``max(C_t, S_t)``.
            length: ``||p||``.
            slope: ``||g||``.
        """
        downhill = slope > 0
        return ops.where(downhill, curvature * (length / ops.where(downhill, slope, ops.ones_like(slope))), 0.0)

    def scale(self, alpha: Array, velocity: Array, margin: Array) -> tuple[Array, Array]:
        """Return the next alpha and velocity; where they overflow, ``low`` and the velocity as it was."""
        error = self.chi - alpha * margin
        if self.order == 0:
            following, speed = self.chi / margin, velocity
        elif self.order == 1:
            following, speed = alpha + self.gain * error, velocity
        else:
            speed = self.damping * velocity + self.gain * error
            following = alpha + speed
        counts = ops.logical_and(ops.isfinite(margin), ops.isfinite(speed))
        bounded = ops.where(counts, ops.clip(following, self.low, self.high), ops.full_like(alpha, self.low))
        return bounded, ops.where(counts, speed, velocity)
