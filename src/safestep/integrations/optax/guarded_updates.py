"""Gradient transformations that keep the whole step of a chain within a limit: cap and pin; watch looks on."""

from __future__ import annotations

from safestep.integrations.optax._jax import AxisName, jax, jnp, optax
from safestep.integrations.optax.combined_limits import default_limit
from safestep.integrations.optax.guarded_step import Law, LogitsFn, Target, guarded
from safestep.integrations.optax.step_limits import Limit
from safestep.policy import Cap, Pin
from safestep.records.reading import Status


def cap(
    logits_fn: LogitsFn, target: Target = 1.0, *, limit: Limit | None = None, axis_name: AxisName | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""Shorten a step that goes too far, leave every other one alone: the last of a chain.

    Equation:
        ``s = min(1, target / r)`` for the updates ``p`` of the chain so far. At ``s = 1`` they stay bit for bit.

    Args:
        logits_fn: from parameters and ``inputs`` to logits of shape ``(*samples, classes)``, with the state, masks and
            flags of the training forward.
        target: the largest r, dimensionless, or a schedule.
        limit: what r is; `default_limit` for a cross-entropy if None, which needs labels.
        axis_name: of the devices that hold parts of the batch, inside `jax.pmap` and `jax.shard_map`. Under plain
            ``jit`` sharded arrays need none.

    Returns:
        A transformation to be called as ``update(grads, state, params, inputs=x, labels=y, mask=m)``, with one label
        and one weight (at least 0; 0 leaves it out) for each sample.

    Raises:
        ValueError: for a target that is no positive number, or a forward or limit that is none.

    Example:
        >>> from safestep.integrations.optax import read, spread
        >>> tx = optax.chain(optax.sgd(50.0), cap(lambda w, x: x @ w, limit=spread()))
        >>> w, x = jnp.zeros((2, 3)), jnp.eye(2)
        >>> updates, state = tx.update(-jnp.eye(2, 3), tx.init(w), w, inputs=x)
        >>> print(read(state))
        step 0: capped  r 15.92 -> 1  (scale 0.06283)  ρ 4.443  ‖p‖ 70.71  [jvp]

    Note:
        A step that is not finite, or whose r is not, becomes zero; the states of the transformations before have moved
        on (`optax.apply_if_finite` keeps them back). One that is uphill for the limit is held: zero, too.
    """
    if isinstance(target, int | float):
        Cap(target)  # checks it
    return guarded(logits_fn, limit or default_limit(), target, axis_name, _capped, Status.CAPPED)


def pin(
    logits_fn: LogitsFn, target: Target = 1.0, *, limit: Limit | None = None, axis_name: AxisName | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""Set the length of every step by its limit, so that the learning rate drops out.

    Equation:
        ``s = target / r``; 1 where ``r = 0``, or so small that the quotient overflows.

    Args:
        logits_fn: as of `cap`, and so are the others.
        target: the r of every step, finite.
        limit: what r is.
        axis_name: of the devices.

    Raises:
        ValueError: for a target that is no positive, finite number.
    """
    if isinstance(target, int | float):
        Pin(target)  # checks it
    return guarded(logits_fn, limit or default_limit(), target, axis_name, _pinned, Status.PINNED)


def watch(
    logits_fn: LogitsFn, *, limit: Limit | None = None, axis_name: AxisName | None = None
) -> optax.GradientTransformationExtraArgs:
    """Measure every step and leave it alone, one that is not finite too; arguments as of `cap`."""
    return guarded(logits_fn, limit or default_limit(), jnp.nan, axis_name, None, Status.WATCHED)


def _capped(ratio: jax.Array, target: jax.Array, law: Law) -> tuple[jax.Array, Law]:
    return jnp.where(ratio <= target, 1.0, target / ratio), law


def _pinned(ratio: jax.Array, target: jax.Array, law: Law) -> tuple[jax.Array, Law]:
    scale = target / ratio
    return jnp.where(jnp.isfinite(scale), scale, 1.0), law
