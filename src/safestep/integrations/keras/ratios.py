"""The step ratio r of a batch and the scale s that a policy makes of it, in operations that can be traced.

The equations are those of `formulas.softmax_ratio`, `formulas.quadratic_ratio`, `safestep.Cap` and `safestep.Pin`.
"""

from __future__ import annotations

import math
from typing import Literal

from safestep.errors import AttachError
from safestep.integrations.keras._keras import Array, ops

Head = Literal["softmax", "sigmoid"]
Policy = Literal["cap", "pin", "watch"]


def softmax_ratio(tangent: Array, head: Head = "softmax") -> Array:
    r"""Return ``r = max_i spread(J_i p) / pi`` for ``J p`` of the logits, shape ``(*samples, classes)``, in nats.

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
    r"""Return ``r = p.Gp / (-2 g.p)`` for ``bend = p.Gp`` and ``slope = g.p``, both in units of the loss.

    inf where the loss rises, or is level and bends upwards; else 0 where it does not bend upwards.

    Example:
        >>> float(curvature_ratio(ops.array(4.0), ops.array(-2.0)))
        1.0
    """
    downhill = slope < 0
    ratio = bend / (-2.0 * ops.where(downhill, slope, -ops.ones_like(slope)))
    upward = ops.where(downhill, ratio, ops.full_like(ratio, math.inf))
    unlimited = ops.logical_and(bend <= 0, slope <= 0)
    ratio = ops.where(unlimited, ops.zeros_like(ratio), upward)
    return ops.where(ops.isnan(bend + slope), ops.full_like(ratio, math.nan), ratio)


def scale_of(ratio: Array, policy: Policy, target: float) -> Array:
    r"""Return ``s = min(1, target / r)``, under ``"pin"`` ``target / r``, 1 where r = 0; 0 where r is inf.

    Example:
        >>> float(scale_of(ops.array(4.0), "cap", 1.0)), float(scale_of(ops.array(0.5), "cap", 1.0))
        (0.25, 1.0)
    """
    inside = ratio == 0 if policy == "pin" else ratio <= target
    return ops.where(inside, ops.ones_like(ratio), target / ops.where(inside, ops.ones_like(ratio), ratio))
