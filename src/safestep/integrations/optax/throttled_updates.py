"""The throttle as a gradient transformation: the stability margin of every step stays near an aim below 2."""

from __future__ import annotations

from typing import Any, cast

from safestep.formulas.throttle_laws import order_0, order_1, order_2
from safestep.integrations.optax._jax import AxisName, jax, optax
from safestep.integrations.optax.guarded_step import Law, LogitsFn, guarded
from safestep.integrations.optax.loss_along import Loss
from safestep.integrations.optax.step_limits import curvature
from safestep.policy.throttle import Order, Throttle
from safestep.records.reading import Status


def throttle(
    logits_fn: LogitsFn,
    loss: Loss = "cross_entropy",
    *,
    chi: float = 1.5,
    order: Order = 0,
    gain: float = 0.1,
    damping: float = 0.8,
    start: float = 0.0,
    low: float = 0.0,
    high: float = 1.0,
    axis_name: AxisName | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Scale every step by an alpha that keeps its stability margin at or near ``chi``, see `safestep.Throttle`.

    Equation:
        ``alpha = chi / m`` at order 0 with the margin ``m = 2 r`` of `curvature`; orders 1 and 2 as there.

    Args:
        logits_fn: as of `cap`.
        loss: as of `curvature`.
        chi: the aim, in (0, 2).
        order: 0 acts at once; 1 and 2 move alpha gradually.
        gain: ``k`` of orders 1 and 2.
        damping: ``d`` of order 2, in [0, 1).
        start: alpha before the first step of orders 1 and 2.
        low: smallest alpha.
        high: largest alpha.
        axis_name: as of `cap`.

    Raises:
        ValueError: for an option outside its range.

    Example:
        >>> import jax.numpy as jnp
        >>> from safestep.integrations.optax import read
        >>> tx = optax.chain(optax.sgd(0.5), throttle(lambda w, x: x @ w, "half_mse"))
        >>> w, x, y = jnp.zeros((1, 1)), jnp.full((4, 1), 4.0), jnp.ones((4, 1))  # bends with lambda = 16
        >>> gradient = (x * (x @ w - y)).mean(keepdims=True)
        >>> updates, state = tx.update(gradient, tx.init(w), w, inputs=x, labels=y)
        >>> read(state).ratio, read(state).scale  # eta lambda / 2, chi / (eta lambda)
        (4.0, 0.1875)
    """
    policy = Throttle(chi=chi, order=order, gain=gain, damping=damping, start=start, low=low, high=high)
    bounds = {"low": low, "high": high}

    def alpha_of(ratio: jax.Array, target: jax.Array, law: Law) -> tuple[jax.Array, Law]:
        # typed for torch, the laws take arrays of jax
        known: tuple[Any, Any] = 2 * ratio, 2 * target
        if order == 0:
            return cast("jax.Array", order_0(*known, **bounds)), law
        after: Law = order_2(*law, *known, gain, damping, **bounds)
        if order == 1:
            after = order_1(law[0], *known, gain, **bounds), law[1]
        return after[0], after

    return guarded(logits_fn, curvature(loss), policy.target_at(0), axis_name, alpha_of, Status.THROTTLED, start=start)
