"""Keeps the compiler from mixing the arithmetic of a guard into the training step that it watches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from safestep._torch.extras import need
from safestep.integrations.keras._keras import Array, keras, ops


def value_of(variable: Any) -> Array:
    """Return what a variable holds, in the scope of a traced step too, without its gradient; a tensor passes."""
    return ops.stop_gradient(ops.convert_to_tensor(variable))


def apart(tensors: Iterable[Any], count: Any) -> list[Array]:
    """Return the values of tensors or variables for use by the guard.

    On jax, XLA fuses an operation with those that use its result, and a fused multiplication and addition rounds
    once, not twice: a guard that only looked would move the last bit of training. It does not fuse across a branch
    taken at run time. ``jax.lax.optimization_barrier`` is not enough: on a CPU it is gone before fusion.

    Args:
        tensors: what the training step started from, or made.
        count: a number that is never negative, which the compiler does not know: a count of steps.

    Returns:
        The same values.
    """
    values = [value_of(tensor) for tensor in tensors]
    if keras.backend.backend() != "jax":
        return values
    jax = need("jax", "keras")
    numpy = jax.numpy
    return list(jax.lax.cond(value_of(count) >= 0, list, lambda given: [numpy.zeros_like(v) for v in given], values))
