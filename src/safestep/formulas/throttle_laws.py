"""The laws of the global throttle: from the stability margin of a raw step to its scale alpha.

The margin is ``m = eta C`` for plain SGD at rate ``eta`` and curvature ``C``, and ``m = 2 r`` for any step of ratio
``r``. A law keeps ``alpha m`` near its aim ``chi``, below the limit 2.

Every argument may be a tensor, of one shape, so that a whole plane of runs is one call. Arrays of jax will do as well:
`safestep.integrations.keras` calls these functions inside a traced step.

Source: M. Blanco Valentin, ENABOL / kappa, "Experiment 000: One-Layer Global Throttle Sanity Check", repository
manuelblancovalentin/kappa_budgeting.
"""

from __future__ import annotations

from numbers import Real
from typing import Any, TypeVar

import torch
from torch import Tensor

Number = Tensor | float
_N = TypeVar("_N", float, Tensor)


def secant_curvature(gradient_change: _N, distance: _N) -> _N:
    r"""Return the secant curvature between two steps.

    Equation:
        ``C = ||g_t - g_{t-1}|| / ||theta_t - theta_{t-1}||``, between the smallest and the largest eigenvalue (in
        absolute value) of a quadratic loss.

    Args:
        gradient_change: the numerator, at least 0.
        distance: the denominator, positive, in units of the parameters.

    Example:
        >>> secant_curvature(6.0, 2.0)
        3.0
    """
    return gradient_change / distance


def running_mean(mean: _N, curvature: _N, beta: float = 0.05) -> _N:
    r"""Return the running mean of the curvature.

    Equation:
        ``S_t = (1 - beta) S_{t-1} + beta C_t``, ``S_0 = 0``; not corrected for the start at 0, as published.

    Args:
        mean: ``S_{t-1}``.
        curvature: ``C_t``.
        beta: share of the newest value, in [0, 1].

    Example:
        >>> running_mean(0.0, 20.0)
        1.0
    """
    return (1.0 - beta) * mean + beta * curvature


def order_0(margin: Number, chi: float, low: float = 0.0, high: float = 1.0) -> Tensor:
    r"""Return the scale of order 0.

    Equation:
        ``alpha = clip(chi / m, low, high)``; ``high`` where ``m = 0``.

    Args:
        margin: ``m`` of the raw step, at least 0.
        chi: the aim, in (0, 2).
        low: smallest alpha.
        high: largest alpha.

    Example:
        >>> order_0(8.67, chi=1.5)
        tensor(0.1730, dtype=torch.float64)
    """
    # a tensor over a tensor: torch multiplies a plain number by the reciprocal, which makes chi / chi less than 1
    return (_wide(chi) / _wide(margin)).clip(low, high)  # 1 / 0 is inf, which the clip turns into high


def order_1(
    alpha: Number, margin: Number, chi: float, gain: float = 0.1, low: float = 0.0, high: float = 1.0
) -> Tensor:
    r"""Return the next scale of order 1.

    Equation:
        ``alpha <- clip(alpha + k (chi - alpha m), low, high)``. Started at ``alpha = 0`` its first step is ``k chi``;
        started at 1 it lets the first step through. The law itself is stable only while ``k m < 2``.

    Args:
        alpha: the scale so far.
        margin: ``m`` of the raw step, at least 0.
        chi: the aim, in (0, 2).
        gain: ``k``.
        low: smallest alpha.
        high: largest alpha.

    Example:
        >>> order_1(0.0, 8.67, chi=1.5)
        tensor(0.1500, dtype=torch.float64)
    """
    alpha = _wide(alpha)
    return (alpha + gain * (chi - alpha * _wide(margin))).clip(low, high)


def order_2(
    alpha: Number,
    velocity: Number,
    margin: Number,
    chi: float,
    gain: float = 0.1,
    damping: float = 0.8,
    low: float = 0.0,
    high: float = 1.0,
) -> tuple[Tensor, Tensor]:
    r"""Return the next scale and velocity of order 2.

    Equation:
        ``u <- d u + k (chi - alpha m)``, ``alpha <- clip(alpha + u, low, high)``.

    Args:
        alpha: the scale so far.
        velocity: ``u`` so far.
        margin: ``m`` of the raw step, at least 0.
        chi: the aim, in (0, 2).
        gain: ``k``.
        damping: ``d``, in [0, 1).
        low: smallest alpha.
        high: largest alpha.

    Returns:
        ``alpha`` and ``u``.

    Example:
        >>> order_2(0.15, 0.15, 8.67, chi=1.5)
        (tensor(0.2899, dtype=torch.float64), tensor(0.1399, dtype=torch.float64))
    """
    alpha = _wide(alpha)
    velocity = damping * _wide(velocity) + gain * (chi - alpha * _wide(margin))
    return (alpha + velocity).clip(low, high), velocity


def quantised(alpha: Number, length: Number, quantum: float, highest: Number) -> tuple[Tensor, Tensor]:
    r"""Clip a scale to what a quantised update can express and what order 0 allows.

    Equation:
        ``alpha <- clip(alpha, q / ||p||, alpha_0)`` with the scale ``alpha_0`` of order 0. A step shorter than the
        quantum ``q`` would be rounded away. Where ``q / ||p|| > alpha_0`` no scale does both, and ``alpha_0`` is kept.

    Args:
        alpha: the scale a law chose.
        length: ``||p||`` of the raw step, for plain SGD ``eta ||g||``, in units of the parameters; positive.
        quantum: ``q``, the smallest update, in units of the parameters.
        highest: ``alpha_0``.

    Returns:
        The scale, and whether both bounds could be kept.

    Example:
        >>> quantised(0.01, 2.0, 0.1, 0.5)
        (tensor(0.0500, dtype=torch.float64), tensor(True))
    """
    lowest, highest = _wide(quantum) / _wide(length), _wide(highest)
    return torch.minimum(torch.maximum(_wide(alpha), lowest), highest), lowest <= highest


def _wide(value: Any) -> Tensor:
    """Return a number or a tensor in float64; what has none stays as it is: arrays of jax, tensors on Apple's GPU."""
    if isinstance(value, Real) or (isinstance(value, Tensor) and value.device.type != "mps"):
        value = torch.as_tensor(value, dtype=torch.float64)
    wide: Tensor = value
    return wide
