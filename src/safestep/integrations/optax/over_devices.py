"""The largest of a number over devices."""

from __future__ import annotations

from safestep.integrations.optax._jax import AxisName, jax, jnp


def largest_over(value: jax.Array, axis: AxisName | None) -> jax.Array:
    """Return the largest over an axis of devices; nan if it is on one of them, which a reduction may overlook."""
    if axis is None:
        return value
    largest = jax.lax.pmax(jnp.stack([jnp.where(jnp.isnan(value), 0, value), jnp.isnan(value)]), axis)
    return jnp.where(largest[1] > 0, jnp.nan, largest[0]).astype(value.dtype)
