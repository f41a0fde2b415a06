"""What a step does to the logits of a batch, by one Jacobian-vector product, and statistics over its samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from safestep.errors import MeasurementError, NothingToMeasureError
from safestep.integrations.optax._jax import AxisName, Tree, jax, jnp
from safestep.integrations.optax.over_devices import largest_over
from safestep.radius.spreads import Over


@dataclass(frozen=True)
class MovedLogits:
    """The logits of a batch and their derivative along a step: what a limit is asked about.

    Attributes:
        logits: ``z`` before the step, shape ``(*samples, classes)``, in float32 or wider, in nats.
        tangent: ``a = J p`` of the same shape. A class masked by a logit of -inf moves with the fastest of the others.
        labels: as they were handed to ``update``.
        weights: how much each sample counts, shape ``(*samples,)``, at least 0.
        axis: the devices over which the samples are spread, if they are.
        rough: whether the forward is in half precision.
    """

    logits: jax.Array
    tangent: jax.Array
    labels: Any
    weights: jax.Array
    axis: AxisName | None = None
    rough: bool = False

    def mean(self, values: jax.Array) -> jax.Array:
        """Return the weighted mean of a number per sample; 0 where no sample counts."""
        counted = jnp.where(self.weights > 0, values * self.weights, 0.0)
        sums = jnp.stack([counted.sum(), self.weights.sum()])
        total, weight = sums if self.axis is None else jax.lax.psum(sums, self.axis)
        return jnp.where(weight > 0, total / jnp.where(weight > 0, weight, 1.0), 0.0)

    def statistic(self, values: jax.Array, over: Over) -> jax.Array:
        """Return the largest of a number per sample, the mean, or a quantile rounded up to an actual sample.

        Every sample counts alike that has a weight, and all do where none has; nan if one of them is.
        """
        counts = self.weights > 0
        counts = counts | ~self._over_devices(jnp.any(counts))
        largest = self._over_devices(jnp.where(counts, values, -jnp.inf).max())
        if over in ("max", 1.0):
            return largest
        if over == "mean":
            alike = MovedLogits(self.logits, self.tangent, None, counts.astype(values.dtype), self.axis)
            return alike.mean(values)
        ordered = jnp.where(counts, values, jnp.inf).ravel()
        if self.axis is not None:
            ordered = jax.lax.all_gather(ordered, self.axis, tiled=True)
        count = counts.sum() if self.axis is None else jax.lax.psum(counts.sum(), self.axis)
        rank = jnp.maximum(1, jnp.ceil(float(over) * count)).astype(int)
        found = self._over_devices(jnp.sort(ordered)[rank - 1])
        return jnp.where(jnp.isfinite(largest), found, largest)

    def _over_devices(self, value: jax.Array) -> jax.Array:
        return largest_over(value, self.axis)


def moved_logits(
    logits_fn: Callable[[Tree, Any], jax.Array],
    params: Tree,
    step: Tree,
    inputs: Any,
    labels: Any = None,
    mask: Any = None,
    axis: AxisName | None = None,
) -> MovedLogits:
    """Return the logits of a batch and their derivative along a step, exactly.

    Raises:
        MeasurementError: at trace time, for anything but one array of shape ``(*samples, classes)``, or a mask of
            another shape than ``(*samples,)``.
        NothingToMeasureError: at trace time, for an empty batch.

    Example:
        >>> moved_logits(lambda w, x: x @ w, jnp.eye(2), jnp.array([[3.0, 0.0], [0.0, 1.0]]), jnp.ones((1, 2))).tangent
        Array([[3., 1.]], dtype=float32)
    """
    try:
        logits, tangent = jax.jvp(lambda at: logits_fn(at, inputs), (params,), (step,))
    except Exception as error:
        error.add_note("safestep: raised by logits_fn(params, inputs), with the params and inputs given to update")
        raise
    if not hasattr(logits, "ndim") or logits.ndim < 2:
        seen = f"shape {logits.shape}" if hasattr(logits, "shape") else f"a {type(logits).__name__}"
        raise MeasurementError(
            f"logits_fn returned {seen}: expected one array of shape (*samples, classes); with one output a sample "
            "return the shape (samples, 1)"
        )
    if math.prod(logits.shape) == 0:
        raise NothingToMeasureError(f"logits of shape {logits.shape}: an empty batch, nothing to measure r on")
    wide = jnp.promote_types(logits.dtype, jnp.float32)
    rough = wide != logits.dtype
    logits, tangent = logits.astype(wide), tangent.astype(wide)
    samples = logits.shape[:-1]
    weights = jnp.ones(samples, wide) if mask is None else jnp.asarray(mask, wide)
    if weights.shape != samples:
        raise MeasurementError(
            f"mask of shape {weights.shape} for logits of shape {logits.shape}: expected one number a sample, {samples}"
        )
    # a class of weight exp(-inf) = 0 has no part in any formula: it copies a live one
    dead = jnp.isneginf(logits)
    alive = jnp.where(dead, -jnp.inf, tangent).max(-1, keepdims=True)
    return MovedLogits(logits, jnp.where(dead, alive, tangent), labels, weights, axis, rough)
