"""One guarded step as a pure function: r along it, what a policy makes of it, and the updates as they are applied."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from safestep.integrations.optax._jax import AxisName, Tree, jax, jnp, optax
from safestep.integrations.optax.guard_arguments import check_made_with, check_updated_with
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

    Raises:
        AttachError: for a forward, limit or target that is none; by ``update``, without a batch or whole parameters.
    """
    check_made_with(logits_fn, limit, target)

    def measured(params: Tree, updates: Tree, length: jax.Array, batch: dict[str, Any]) -> tuple[jax.Array, ...]:
        # along p over a power of two near its length: squares of a neither overflow nor vanish
        unit = jnp.ldexp(jnp.ones_like(length), jnp.frexp(length)[1] - 1)

        def part(update: jax.Array | None, of: Tree) -> Tree:
            if update is None:  # nothing moves there
                return jax.tree.map(jnp.zeros_like, of)
            return (update.astype(length.dtype) / unit).astype(of.dtype)

        step = jax.tree.map(part, updates, params, is_leaf=lambda leaf: leaf is None)
        said = limit(moved_logits(logits_fn, params, step, **batch, axis=axis))
        ratio, kl = said.ratio.astype(length.dtype) * unit, said.kl.astype(length.dtype)
        return unit, ratio, kl, said.uphill, jnp.asarray(said.exact)

    def unmeasured(params: Tree, updates: Tree, length: jax.Array, batch: dict[str, Any]) -> tuple[jax.Array, ...]:
        still, nan = jnp.where(length == 0, 0.0, jnp.nan).astype(length.dtype), jnp.full_like(length, jnp.nan)
        return jnp.ones_like(length), still, nan, jnp.zeros((), bool), jnp.ones((), bool)

    def init(params: Tree) -> GuardState:
        wide = wide_type(params)
        ratio, scale, aim, length, kl, alpha, velocity = (
            jnp.asarray(number, wide) for number in (math.nan, 1.0, math.nan, 0.0, math.nan, start, 0.0)
        )
        step, status = (jnp.zeros((), jnp.int32) for _ in range(2))
        return GuardState(step, ratio, scale, aim, length, kl, status, jnp.ones((), bool), alpha, velocity)

    def update(updates: Tree, state: GuardState, params: Tree = None, **extra: Any) -> tuple[Tree, GuardState]:
        check_updated_with(params, extra)
        wide = wide_type(params)
        aim = jnp.asarray(target(state.step) if callable(target) else target, wide)
        length = length_of(updates, wide, axis)
        batch = {name: extra.get(name) for name in ("inputs", "labels", "mask")}
        # A branch also keeps XLA from mixing the arithmetic of this forward into that of training. All it needs are
        # arguments of functions that stay the same, so that outside of jit, too, it is compiled once.
        moved = jnp.isfinite(length) & (length > 0)
        unit, ratio, kl, uphill, exact = jax.lax.cond(moved, measured, unmeasured, params, updates, length, batch)
        held = uphill & jnp.isinf(ratio)
        finite = jnp.isfinite(length) & (jnp.isfinite(ratio) | held)
        law: Law = (state.alpha, state.velocity)
        factor = jnp.ones((), wide)
        if scale is not None:
            finite &= aim > 0
            factor, after = scale(ratio, aim, law)
            law = jax.tree.map(lambda new, old: jnp.where(finite & moved & ~held, new, old).astype(wide), after, law)
            factor = jnp.where(finite & ~held, jnp.where(moved, factor, 1.0), 0.0).astype(wide)
        status = _status(moved, finite, held, factor, ratio, scaled)
        now = GuardState(state.step + 1, ratio, factor, aim, length, kl * (factor * unit) ** 2, status, exact, *law)
        return updates if scale is None else jax.tree.map(lambda u: scaled_by(factor, u), updates), now

    return optax.GradientTransformationExtraArgs(init, update)


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
