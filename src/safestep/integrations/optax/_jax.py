"""jax and optax, or the error that names the extra which brings them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from safestep._torch.extras import need

if TYPE_CHECKING:
    import jax
    import jax.numpy as jnp
    import optax
else:
    jax, jnp, optax = need("jax", "optax"), need("jax.numpy", "optax"), need("optax", "optax")

Tree = Any
"""A pytree of arrays: parameters, updates, states of optimizers."""
AxisName = str | tuple[str, ...]
"""Of an axis of devices that `jax.pmap` or `jax.shard_map` named."""

__all__ = ["AxisName", "Tree", "jax", "jnp", "optax"]
