"""How long updates are, in which precision that is told, and updates times a scale."""

from __future__ import annotations

from typing import Any

from safestep.errors import MeasurementError
from safestep.integrations.optax._jax import AxisName, Tree, jax, jnp
from safestep.integrations.optax.over_devices import largest_over


def scaled_by(scale: jax.Array, update: jax.Array) -> jax.Array:
    """Return ``s u`` rounded once: every bit of it at s = 1, and 0 at s = 0 whatever u is."""
    wide = jnp.promote_types(update.dtype, scale.dtype)
    return jnp.where(scale > 0, (update.astype(wide) * scale.astype(wide)).astype(update.dtype), 0).astype(update.dtype)


def wide_type(tree: Tree) -> Any:
    """Return the type of r and s: float64 if a parameter has it, else float32."""
    leaves = [leaf.dtype for leaf in jax.tree.leaves(tree)]
    return jnp.result_type(jnp.float32, *(t for t in leaves if t == jnp.float64))


def length_of(updates: Tree, wide: Any, axis: AxisName | None) -> jax.Array:
    """Return ``||p||_2``, not finite where p is not; in units of its largest entry, whose square may overflow."""
    leaves = [leaf.astype(wide) for leaf in jax.tree.leaves(updates) if leaf.size]
    if not leaves:
        raise MeasurementError("updates hold no arrays: nothing that a guard could measure")
    largest = jnp.stack([jnp.abs(leaf).max() for leaf in leaves]).max()
    unit = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1.0)
    length = largest * jnp.sqrt(sum(jnp.square(leaf / unit).sum() for leaf in leaves))
    # the branch that is taken must be the same on all devices
    return largest_over(length, axis)
