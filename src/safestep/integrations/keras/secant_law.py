"""The published law of the global throttle on Keras tensors: from the change of gradients to the margin and alpha.

The arithmetic of alpha is that of `safestep.formulas.throttle_laws`, which `safestep.Throttle` uses too; here are the
decisions that a traced step cannot branch on.
"""

from __future__ import annotations

from safestep.formulas.throttle_laws import order_0, order_1, order_2, running_mean, secant_curvature
from safestep.integrations.keras._keras import Array, ops
from safestep.policy.throttle import Throttle


def curvature_and_mean(
    curvature: Array, mean: Array, beta: float, gradient_change: Array, distance: Array, comparable: Array
) -> tuple[Array, Array]:
    """Return the secant curvature ``C_t`` and its running mean ``S_t``.

    Args:
        curvature: ``C_{t-1}``, which stands where the two steps cannot be compared.
        mean: ``S_{t-1}``.
        beta: share of the newest curvature in its mean.
        gradient_change: ``||g_t - g_{t-1}||``.
        distance: ``||theta_t - theta_{t-1}||``.
        comparable: whether they can.
    """
    measured = secant_curvature(gradient_change, ops.where(comparable, distance, ops.ones_like(distance)))
    newest = ops.where(ops.logical_and(comparable, ops.isfinite(measured)), measured, curvature)
    return newest, running_mean(mean, newest, beta)


def margin_of(curvature: Array, length: Array, gradient_norm: Array) -> Array:
    """Return the margin of the raw step, ``m = C ||p|| / ||g||``; 0 where there is no gradient."""
    downhill = gradient_norm > 0
    return ops.where(
        downhill, curvature * (length / ops.where(downhill, gradient_norm, ops.ones_like(gradient_norm))), 0.0
    )


def next_scale(law: Throttle, alpha: Array, velocity: Array, margin: Array) -> tuple[Array, Array]:
    """Return the next alpha and velocity; where they overflow, ``low`` and the velocity as it was."""
    speed = velocity
    if law.order == 0:
        scale = order_0(margin, ops.full_like(margin, law.chi), law.low, law.high)
    elif law.order == 1:
        scale = order_1(alpha, margin, law.chi, law.gain, law.low, law.high)
    else:
        scale, speed = order_2(alpha, velocity, margin, law.chi, law.gain, law.damping, law.low, law.high)
    scale, speed = ops.cast(scale, alpha.dtype), ops.cast(speed, velocity.dtype)  # what overflows here, counts
    counts = ops.logical_and(ops.isfinite(margin), ops.isfinite(speed))
    return ops.where(counts, scale, ops.full_like(alpha, law.low)), ops.where(counts, speed, velocity)
