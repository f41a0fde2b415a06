"""The quadratic model along a step: how much a loss bends, and where it has climbed back to where it started.

Along a displacement ``p`` a loss with gradient ``g`` and Hessian ``H`` is ``L + t g.p + t^2 p.Hp / 2`` to second
order. For ``g.p < 0`` it is lowest at ``t = 1 / (2r)`` and back at ``L`` at ``t = 1 / r``, with the ratio ``r`` below.
For plain SGD at rate ``eta`` along an eigenvector of ``H`` with eigenvalue ``lambda`` that is ``r = eta lambda / 2``:
the stability limit ``eta lambda = 2`` is ``r = 1``.

The Gauss-Newton matrix ``G = J' (d2L/dz2) J`` takes the place of ``H``: it leaves out how the logits ``z`` themselves
curve, needs no labels, is never negative for a convex loss, and is ``H`` itself where ``z`` is linear in the
parameters.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from safestep._torch.shapes import Float


def softmax_bend(logits: Float[Tensor, "*samples classes"], tangent: Float[Tensor, "*samples classes"]) -> Tensor:
    r"""Return how much the cross-entropy of each sample bends along a step.

    Equation:
        ``d2/dt2 log sum_k exp(z_k + t a_k) = Var_P(a)``, ``P = softmax(z)``: the variance of the logit derivative
        under the predicted probabilities. Labels have no part in it, hard, soft or smoothed.

    Args:
        logits: ``z`` at the start of the step, in nats. A class masked by ``-inf`` has no part in the variance.
        tangent: ``a = J p``, in nats.

    Returns:
        The second derivative of each sample's loss, shape ``(*samples,)``, in nats, at least 0.

    Example:
        >>> softmax_bend(torch.zeros(1, 2), torch.tensor([[1.0, -1.0]]))
        tensor([1.])
    """
    weights = torch.softmax(logits, -1)
    tangent = torch.where(weights > 0.0, tangent, 0.0)
    mean = (weights * tangent).sum(-1, keepdim=True)
    # centred first: E[a^2] - E[a]^2 cancels
    return (weights * (tangent - mean).square()).sum(-1)


def sigmoid_bend(logits: Float[Tensor, "*samples outputs"], tangent: Float[Tensor, "*samples outputs"]) -> Tensor:
    r"""Return how much the binary cross-entropies of each sample, added over its outputs, bend along a step.

    Equation:
        ``sum_k P_k (1 - P_k) a_k^2``, ``P = sigmoid(z)``.

    Args:
        logits: ``z`` at the start of the step, in nats.
        tangent: ``a = J p``, in nats.

    Returns:
        The second derivative of each sample's loss, shape ``(*samples,)``, in nats, at least 0.

    Example:
        >>> sigmoid_bend(torch.zeros(1, 1), torch.tensor([[2.0]]))
        tensor([1.])
    """
    likely = torch.sigmoid(logits)
    # sigmoid(-z), not 1 - sigmoid(z), which cancels
    return (likely * torch.sigmoid(-logits) * tangent.square()).sum(-1)


def square_bend(tangent: Float[Tensor, "*samples outputs"]) -> Tensor:
    r"""Return how much half the squared error of each sample, added over its outputs, bends along a step.

    Equation:
        ``d2/dt2 ||z + t a - y||^2 / 2 = ||a||^2``.

    Args:
        tangent: ``a = J p``, in units of the outputs.

    Returns:
        The second derivative of each sample's loss, shape ``(*samples,)``, in squared units of the outputs.

    Example:
        >>> square_bend(torch.tensor([[3.0, 4.0]]))
        tensor([25.])
    """
    return tangent.square().sum(-1)


def curvature_ratio(bend: float, slope: float) -> float:
    r"""Return the step ratio of the quadratic model along a step.

    Equation:
        ``r = p.Hp / (-2 g.p)``.

    Args:
        bend: ``p.Hp``, the second derivative of the loss along the step, in units of the loss.
        slope: ``g.p``, its first derivative, in units of the loss.

    Returns:
        ``r``, dimensionless: 1/2 is the length of an exact line search, 1 the length at which the model is back where
        it started. 0 where the loss does not bend upwards, so that the model limits nothing; inf where it bends
        upwards but the step does not go down (``g.p >= 0``), so that no length is short enough. nan if either is.

    Example:
        >>> eta, eigenvalue, g = 0.5, 4.0, 3.0
        >>> p = -eta * g
        >>> curvature_ratio(bend=eigenvalue * p * p, slope=g * p) == eta * eigenvalue / 2
        True
        >>> curvature_ratio(1.0, 0.0), curvature_ratio(0.0, -1.0), curvature_ratio(0.0, 1.0)
        (inf, 0.0, inf)
    """
    if math.isnan(bend) or math.isnan(slope):
        return math.nan
    if slope > 0.0:
        return math.inf
    if bend <= 0.0:
        return 0.0
    return bend / (-2.0 * slope) if slope < 0.0 else math.inf


def margin(rate: float, eigenvalue: float) -> float:
    r"""Return the stability margin of gradient descent.

    Equation:
        ``eta lambda``; gradient descent on a quadratic converges while it is below 2.

    Args:
        rate: ``eta``, the learning rate, or ``alpha eta`` for a throttled one.
        eigenvalue: ``lambda``, of the Hessian, one over the unit of ``eta``.

    Example:
        >>> margin(0.5, 17.35)
        8.675
    """
    return rate * eigenvalue


def spectral_radius(rate: float, lowest: float, highest: float) -> float:
    r"""Return the spectral radius of the update map of gradient descent on a quadratic.

    Equation:
        ``max |eig(I - eta H)| = max(|1 - eta lambda_min|, |1 - eta lambda_max|)``: an eigenvalue in between is never
        farther from 1.

    Args:
        rate: ``eta``, or ``alpha eta``.
        lowest: the smallest eigenvalue of ``H``.
        highest: the largest.

    Returns:
        The factor by which the worst direction grows in a step; 1 is the border of stability.

    Example:
        >>> spectral_radius(0.5, 0.0, 6.0)
        2.0
    """
    return max(abs(1.0 - rate * lowest), abs(1.0 - rate * highest))
