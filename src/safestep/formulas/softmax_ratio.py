"""Formulas of the softmax radius: the spread of a, the step ratio r = spread / pi, and its bounds.

Along a displacement ``p`` the logits of a sample change by ``a = J p`` to first order, and cross-entropy contains
``log F(t)``, ``F(t) = sum_k w_k exp(a_k t)`` with ``w_k = exp(z_k)``. ``F`` has no real zero but has complex ones,
and none lies nearer to the origin than ``pi / spread(a)``: while ``|Im t| < pi / spread(a)`` all phases stay
inside one open half plane, where positive weights cannot cancel.

Source: P. Sao, "Ghosts of Softmax: Complex Singularities That Limit Safe Step Sizes in Cross-Entropy",
arXiv 2603.13552 (2026).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from safestep._torch.shapes import Float
from safestep.errors import OneLogitError

Head = Literal["softmax", "sigmoid"]
"""How logits become probabilities: one softmax over the last dimension, or one sigmoid per logit."""


def spread(tangent: Float[Tensor, "*samples classes"], *, head: Head = "softmax") -> Float[Tensor, "*samples"]:
    r"""Return the spread of a logit derivative, per sample.

    Equation:
        softmax: ``spread(a) = max_k a_k - min_k a_k``. A sigmoid is a two-class softmax over the logits ``(0, z)``,
        hence ``spread(a) = max_k |a_k|`` for independent sigmoids.

    Args:
        tangent: the directional derivative ``a = J p`` of the logits, shape ``(*samples, classes)``, in units of
            logits (nats).
        head: which of the two formulas applies.

    Returns:
        The spread in nats, shape ``(*samples)``, never negative. Unchanged by a shift common to all classes and by
        permuting classes (softmax); ``spread(c a) = |c| spread(a)``.

    Raises:
        ValueError: for a scalar ``tangent``, no class at all, or a softmax over a single class, whose probability
            is 1 whatever the step does.

    Example:
        >>> spread(torch.tensor([[1.0, -2.0, 0.5], [3.0, 3.0, 3.0]]))
        tensor([3., 0.])
        >>> spread(torch.tensor([[1.0, -2.0, 0.5]]), head="sigmoid")
        tensor([2.])

    Reference:
        arXiv 2603.13552, the quantity Delta_a.
    """
    if tangent.ndim == 0 or tangent.shape[-1] == 0:
        raise ValueError(f"expected logits of shape (*samples, classes), saw shape {tuple(tangent.shape)}")
    if head == "sigmoid":
        low, high = tangent.aminmax(dim=-1)
        return torch.maximum(high.abs(), low.abs())
    if tangent.shape[-1] == 1:
        raise OneLogitError(
            "one output, read as a softmax: the probability of a single class is 1 whatever the step does. For a "
            "binary classifier with one logit: head='sigmoid', as in "
            "safestep.attach(model, optimizer, radius=safestep.SoftmaxRadius(head='sigmoid'))"
        )
    low, high = tangent.aminmax(dim=-1)
    return high - low


def step_ratio(spread_of_step: float) -> float:
    r"""Return the step ratio ``r`` of a step that changes the logits with the given spread.

    Equation:
        ``r = spread(J p) / pi``; ``r < 1`` lies inside the radius. No norm enters: with ``p = tau v`` it is
        ``tau / rho_a`` for ``rho_a = pi / spread(J v)``.

    Args:
        spread_of_step: ``max`` over the samples of ``spread(J p)``, in nats, at least 0.

    Returns:
        The dimensionless step ratio.

    Example:
        >>> step_ratio(math.pi)
        1.0

    Reference:
        arXiv 2603.13552, the normalised step r = tau / rho_a.
    """
    return spread_of_step / math.pi


def radius_bound(spread_of_direction: float) -> float:
    r"""Return the radius bound ``rho_a`` of a direction.

    Equation:
        ``rho_a = pi / spread(J v)``, ``v`` a unit direction.

    Args:
        spread_of_direction: ``max`` over the samples of ``spread(J v)``, in nats per unit length, at least 0.

    Returns:
        The length ``rho_a`` in units of the parameters; infinite where the logits do not move against each other.

    Example:
        >>> radius_bound(2 * math.pi), radius_bound(0.0)
        (0.5, inf)

    Note:
        A lower bound: the nearest complex zero may lie farther, never nearer. It speaks of the loss along the line
        through ``v`` with linearised logits; a network whose own activations have singularities (tanh, SiLU,
        softplus, ReLU's kink) may leave its Taylor series earlier.
    """
    return math.pi / spread_of_direction if spread_of_direction > 0 else math.inf


def two_class_radius(gap: float, spread_of_direction: float) -> float:
    r"""Return the exact radius of a single two-class sample.

    Equation:
        ``rho* = sqrt(gap^2 + pi^2) / spread(J v)``, where the zero of ``1 + exp(gap + spread t)`` nearest to the
        origin lies.

    Args:
        gap: the difference ``z_1 - z_0`` of the two logits at the start of the step, in nats.
        spread_of_direction: ``|a_1 - a_0|`` per unit length, in nats, at least 0.

    Returns:
        The length ``rho*``, at least `radius_bound` and equal to it at ``gap = 0``.

    Example:
        >>> two_class_radius(0.0, 1.0) == radius_bound(1.0)
        True

    Note:
        For three or more classes this formula, applied to the top two or to the minimum over pairs, is *not* a
        lower bound: with ``z = (2, 1, 0)`` and ``a = (1, 1, 0)`` the top two never separate, yet ``rho*`` is 3.90.

    Reference:
        arXiv 2603.13552, the binary case.
    """
    return math.hypot(gap, math.pi) / spread_of_direction if spread_of_direction > 0 else math.inf
