"""One guarded step as a pure function: r along it, what a policy makes of it, and the updates as they are applied."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from safestep.errors import AttachError
from safestep.integrations.optax._jax import AxisName, Tree, jax, jnp, optax
from safestep.integrations.optax.guard_state import STATUSES, GuardState
from safestep.integrations.optax.moved_logits import moved_logits
from safestep.integrations.optax.step_limits import Limit
from safestep.integrations.optax.update_sizes import length_of, scaled_by, wide_type
from safestep.records.reading import Status

LogitsFn = Callable[[Tree, Any], jax.Array]
"""From parameters and inputs, any two trees, to logits of shape ``(*samples, classes)``."""
Target = float | jax.Array | Callable[[jax.Array], Any]
"""The r that is aimed at: positive, or a schedule of optax, a function of the step from 0. A step whose target is not
positive becomes zero."""
Law = tuple[Any, Any]
"""What a throttle remembers: alpha and its velocity."""
Scale = Callable[[jax.Array, jax.Array, Law], tuple[jax.Array, Law]]
"""A policy: from r, its target and the law so far to s and the law after; inf to 0."""


def guarded(
    logits_fn: LogitsFn,
    limit: Limit,
    target: Target,
    axis: AxisName | None,
    scale: Scale | None,
    scaled: Status,
    *,
    start: float = 0.0,
) -> optax.GradientTransformationExtraArgs:
    """Return the transformation behind `cap` and the others.

    Args:
        logits_fn: see there.
        limit: what r is.
        target: what the policy aims at.
        axis: of devices.
        scale: the policy; None only watches.
        scaled: the status of a step that it scales.
        start: alpha of the law before the first step.
    """

    def init(params: Tree) -> GuardState:
        wide = wide_type(params)
        unknown, zero = jnp.asarray(math.nan, wide), jnp.zeros((), wide)
        none, one, alpha = jnp.zeros((), jnp.int32), jnp.ones((), wide), jnp.asarray(start, wide)
        return GuardState(none, unknown, one, unknown, zero, unknown, none, jnp.ones((), bool), alpha, zero)

    def update(updates: Tree, state: GuardState, params: Tree = None, **batch: Any) -> tuple[Tree, GuardState]:
        if params is None or "inputs" not in batch:
            raise AttachError(
                "a guard measures the step on its batch: call tx.update(grads, state, params, inputs=x, labels=y), "
                f"saw {'no parameters' if params is None else 'no inputs'}"
            )
        wide = wide_type(params)
        aim = jnp.asarray(target(state.step) if callable(target) else target, wide)
        length = length_of(updates, wide, axis)

        def measured() -> tuple[jax.Array, ...]:
            # along p over a power of two near its length: squares of a neither overflow nor vanish
            unit = jnp.ldexp(jnp.ones((), wide), jnp.frexp(length)[1] - 1)
            step = jax.tree.map(partial(_over, unit), updates, params, is_leaf=lambda leaf: leaf is None)
            given = {name: batch.get(name) for name in ("inputs", "labels", "mask")}
            said = limit(moved_logits(logits_fn, params, step, **given, axis=axis))
            return unit, said.ratio.astype(wide) * unit, said.kl.astype(wide), said.uphill, jnp.asarray(said.exact)

        def unmeasured() -> tuple[jax.Array, ...]:
            still = jnp.where(length == 0, 0.0, jnp.nan).astype(wide)
            return jnp.ones_like(still), still, jnp.full_like(still, jnp.nan), jnp.zeros((), bool), jnp.ones((), bool)

        # a branch also keeps XLA from mixing the arithmetic of this forward into that of training
        moved = jnp.isfinite(length) & (length > 0)
        unit, ratio, kl, uphill, exact = jax.lax.cond(moved, measured, unmeasured)
        held = uphill & jnp.isinf(ratio)
        finite = jnp.isfinite(length) & (jnp.isfinite(ratio) | held)
        law = known = (state.alpha, state.velocity)
        factor = jnp.ones((), wide)
        if scale is not None:
            finite &= aim > 0
            factor, law = scale(ratio, aim, known)
            learns = finite & moved & ~held
            alpha, velocity = (jnp.where(learns, new, old) for new, old in zip(law, known, strict=True))
            law = alpha.astype(wide), velocity.astype(wide)
            factor = jnp.where(finite & ~held, jnp.where(moved, factor, 1.0), 0.0).astype(wide)
        status = _status(moved, finite, held, factor, ratio, scaled)
        now = GuardState(state.step + 1, ratio, factor, aim, length, kl * (factor * unit) ** 2, status, exact, *law)
        return jax.tree.map(lambda u: scaled_by(factor, u), updates), now

    return optax.GradientTransformationExtraArgs(init, update)


def _over(unit: jax.Array, update: Any, parameter: Any) -> Any:
    """Return an update in this unit, for a tangent; either tree may have None (what Equinox does not train)."""
    if parameter is None:
        return None
    return jnp.zeros_like(parameter) if update is None else (update.astype(unit.dtype) / unit).astype(parameter.dtype)


def _status(
    moved: jax.Array, finite: jax.Array, held: jax.Array, factor: jax.Array, ratio: jax.Array, scaled: Status
) -> jax.Array:
    """Return the number of the status; the first that holds."""
    acts = scaled is not Status.WATCHED
    cases = [(finite & ~moved, Status.STILL), (~finite, Status.UNDONE if acts else Status.NONFINITE)]
    if acts:
        cases += [(held & (factor == 0), Status.HELD), (factor != 1, scaled), (ratio == 0, Status.UNBOUNDED)]
    otherwise = Status.INSIDE if acts else Status.WATCHED
    conditions, statuses = zip(*cases, strict=True)
    codes = [jnp.int32(STATUSES.index(status)) for status in statuses]
    return jnp.select(list(conditions), codes, jnp.int32(STATUSES.index(otherwise)))
