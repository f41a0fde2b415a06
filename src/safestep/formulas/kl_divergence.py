"""The KL divergence along a step, to second order, and the ratio of a step under a limit on it.

With ``F`` the log of the partition function (a sum of softplus for sigmoids), ``KL(q || p)`` of the predictions at the
logits ``z_q`` and ``z_p`` is ``F(z_p) - F(z_q) - (z_p - z_q) . q``: convex along ``z + s a``, with the derivatives

    d/ds = (P_s - q) . a,        d2/ds2 = Var_{P_s}(a),        |d3/ds3| <= spread(a)^3 / (6 sqrt(3)),

the last since no variable with values in an interval of length 1 has a third central moment above ``1 / (6 sqrt(3))``.
Up to second order around ``s = 0`` KL is therefore right within ``|s|^3 spread(a)^3 / (36 sqrt(3))``, however far ``q``
is from ``P``. For sigmoids ``sum |a_k|^3`` takes the place of ``spread(a)^3``.

The other direction of a step, ``KL(P_s || P)``, has the derivative ``s Var_{P_s}(a)``: the same second order
``s^2 Var_P(a) / 2``, and twice that bound. Both are sharp; docs/tutorials/divergence.ipynb derives them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from safestep._torch.shapes import Float
from safestep.formulas.quadratic_ratio import sigmoid_bend, softmax_bend


class Divergence(NamedTuple):
    """``KL(q || P_s) = value + s slope + s^2 bend / 2`` of each sample, in nats, each of shape ``(*samples,)``."""

    value: Tensor
    slope: Tensor
    bend: Tensor


def softmax_divergence(
    logits: Float[Tensor, "*samples classes"],
    tangent: Float[Tensor, "*samples classes"],
    reference: Float[Tensor, "*samples classes"] | None = None,
) -> Divergence:
    r"""Return the KL divergence of each sample from a reference along a step, for a softmax.

    Equation:
        ``value = sum_k q_k log(q_k / P_k)``, ``slope = sum_k (P_k - q_k) a_k``, ``bend = Var_P(a)`` with
        ``P = softmax(z)`` and ``q`` that of the reference.

    Args:
        logits: ``z`` at the start of the step, in nats. A class masked by ``-inf`` has no part.
        tangent: ``a = J p``, in nats.
        reference: the logits of ``q``; None for ``q = P``, where value and slope are 0.

    Returns:
        The three of each sample. Value is inf where the reference believes in a class that ``z`` masks.

    Example:
        >>> softmax_divergence(torch.zeros(1, 2), torch.tensor([[1.0, -1.0]])).bend
        tensor([1.])
    """
    bend = softmax_bend(logits, tangent)
    if reference is None:
        return Divergence(torch.zeros_like(bend), torch.zeros_like(bend), bend)
    log_p, log_q = torch.log_softmax(logits, -1), torch.log_softmax(reference.to(logits.dtype), -1)
    p, q = log_p.exp(), log_q.exp()
    tangent = torch.where(p > 0.0, tangent, 0.0)
    # a shift that is common to all classes cancels, and not only up to rounding
    centred = tangent - (p * tangent).sum(-1, keepdim=True)
    return Divergence(_relative(q, log_q, log_p).sum(-1), ((p - q) * centred).sum(-1), bend)


def sigmoid_divergence(
    logits: Float[Tensor, "*samples outputs"],
    tangent: Float[Tensor, "*samples outputs"],
    reference: Float[Tensor, "*samples outputs"] | None = None,
) -> Divergence:
    r"""Return the same for independent sigmoids, added over the outputs of each sample.

    Equation:
        ``value = sum_k q_k log(q_k / P_k) + (1 - q_k) log((1 - q_k) / (1 - P_k))``, ``slope = sum_k (P_k - q_k) a_k``,
        ``bend = sum_k P_k (1 - P_k) a_k^2`` with ``P = sigmoid(z)``.

    Args:
        logits: ``z`` at the start of the step, in nats.
        tangent: ``a = J p``, in nats.
        reference: the logits of ``q``; None for ``q = P``.

    Returns:
        The three of each sample.

    Example:
        >>> sigmoid_divergence(torch.zeros(1, 1), torch.tensor([[2.0]]), torch.zeros(1, 1))
        Divergence(value=tensor([0.]), slope=tensor([0.]), bend=tensor([1.]))
    """
    bend = sigmoid_bend(logits, tangent)
    if reference is None:
        return Divergence(torch.zeros_like(bend), torch.zeros_like(bend), bend)
    reference = reference.to(logits.dtype)
    value = sum(
        _relative(torch.sigmoid(q), torch.nn.functional.logsigmoid(q), torch.nn.functional.logsigmoid(p)).sum(-1)
        for q, p in ((reference, logits), (-reference, -logits))
    )
    slope = ((torch.sigmoid(logits) - torch.sigmoid(reference)) * tangent).sum(-1)
    return Divergence(torch.as_tensor(value), slope, bend)


def _relative(q: Tensor, log_q: Tensor, log_p: Tensor) -> Tensor:
    return torch.where(q > 0.0, q * (log_q - log_p), 0.0)  # 0 log 0 = 0, of masked classes too


def divergence_ratio(value: float, slope: float, bend: float, largest: float) -> float:
    r"""Return the step ratio of a limit on the mean KL divergence.

    Equation:
        ``r = 1 / s`` with ``s`` the largest at which ``value + s slope + s^2 bend / 2 <= largest``. Without a reference
        older than the step (``value = slope = 0``) that is ``r = sqrt(bend / (2 largest))``.

        Beyond the limit already, a step that leads back may go as far as ``s`` all the same, to where it would leave
        again; if its way does not reach the inside, to where it is nearest, ``s = -slope / bend``.

    Args:
        value: mean KL divergence before the step, in nats.
        slope: its derivative along the step, in nats.
        bend: its second derivative, in nats, at least 0.
        largest: the limit, in nats, positive.

    Returns:
        ``r``, dimensionless. 0 where nothing limits the step; inf where the divergence is at or beyond the limit, and
        the step leads farther away. nan if one of the numbers is.

    Example:
        >>> divergence_ratio(0.0, 0.0, 0.08, largest=0.01)
        2.0
        >>> divergence_ratio(0.01, 0.1, 0.0, largest=0.01), divergence_ratio(0.04, -0.1, 0.5, largest=0.01)
        (inf, 5.0)
    """
    if math.isnan(value + slope + bend):
        return math.nan
    room = largest - value
    root = math.sqrt(max(0.0, slope * slope + 2.0 * bend * room))
    if slope < 0.0:
        return bend / (root - slope)
    if room > 0.0:
        return (slope + root) / (2.0 * room)
    return math.inf if slope > 0.0 or bend > 0.0 else 0.0
