"""From the derivative of the outputs along a step to its ratio r, and from r to its scale s, in traced operations."""

from __future__ import annotations

import math
from typing import Literal

from safestep.errors import AttachError
from safestep.integrations.keras._extra import Array, ops

Head = Literal["softmax", "sigmoid"]
Policy = Literal["cap", "pin", "watch"]


def softmax_ratio(tangent: Array, head: Head = "softmax") -> Array:
    r"""Return the softmax step ratio of a batch.

    Equation:
        ``r = max_i spread(J_i p) / pi``, see `safestep.formulas.softmax`.

    Args:
        tangent: ``J p`` of the logits, shape ``(*samples, classes)``, in nats.
        head: softmax over the last dimension, or one sigmoid per logit.

    Returns:
        A tensor without dimensions, dimensionless, at least 0.

    Raises:
        AttachError: for a softmax over a single class.

    Example:
        >>> float(softmax_ratio(ops.array([[0.0, math.pi, 1.0], [2.0, 2.0, 2.0]])))
        1.0
    """
    if head == "sigmoid":
        return ops.max(ops.abs(tangent)) / math.pi
    if tangent.shape[-1] == 1:
        raise AttachError(
            "saw one output under head='softmax': the probability of a single class is 1 whatever the step does. "
            "For a binary classifier with one logit use compile(..., head='sigmoid')"
        )
    return ops.max(ops.max(tangent, -1) - ops.min(tangent, -1)) / math.pi


def curvature_ratio(bend: Array, slope: Array) -> Array:
    r"""Return the step ratio of the quadratic model along a step.

    Equation:
        ``r = p.Gp / (-2 g.p)``; inf where the loss rises, or is level and bends upwards, else 0 where it does not
        bend upwards, as in `safestep.formulas.curvature.curvature_ratio`.

    Args:
        bend: ``p.Gp``, in units of the loss, without dimensions.
        slope: ``g.p``, likewise.

    Example:
        >>> float(curvature_ratio(ops.array(4.0), ops.array(-2.0)))
        1.0
    """
    downhill = slope < 0
    ratio = bend / (-2.0 * ops.where(downhill, slope, -ops.ones_like(slope)))
    upward = ops.where(downhill, ratio, ops.full_like(ratio, math.inf))
    lost = ops.isnan(bend + slope)
    unlimited = ops.logical_and(bend <= 0, slope <= 0)
    return ops.where(lost, ops.full_like(ratio, math.nan), ops.where(unlimited, ops.zeros_like(ratio), upward))


def scale_of(ratio: Array, policy: Policy, target: float) -> Array:
    r"""Return the scale of a step.

    Equation:
        cap: ``s = min(1, target / r)``; pin: ``s = target / r``, 1 where r = 0; watch: as cap.

    Args:
        ratio: r, at least 0.
        policy: what to do about it.
        target: the largest r to let through, or the r to set every step to.

    Returns:
        ``s``, 0 where r is inf.

    Example:
        >>> float(scale_of(ops.array(4.0), "cap", 1.0)), float(scale_of(ops.array(0.5), "cap", 1.0))
        (0.25, 1.0)
    """
    inside = ratio == 0 if policy == "pin" else ratio <= target
    return ops.where(inside, ops.ones_like(ratio), target / ops.where(inside, ops.ones_like(ratio), ratio))
