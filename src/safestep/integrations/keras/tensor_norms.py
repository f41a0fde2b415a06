"""Euclidean norms over many tensors at once, in Keras operations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from safestep.integrations.keras._keras import Array, keras, ops
from safestep.integrations.keras.fusion_barrier import value_of


def wide_dtype(dtypes: Iterable[str]) -> str:
    """Return the type to add numbers up in: float64 if one of them is, else float32, for half precision too.

    Example:
        >>> wide_dtype(["float16", "bfloat16"]), wide_dtype(["float32", "float64"])
        ('float32', 'float64')
    """
    return "float64" if "float64" in {keras.backend.standardize_dtype(dtype) for dtype in dtypes} else "float32"


_SQUARES = (1e-30, 1e30)
"""Sums of squares between these are right in float32: what underflowed in them was too small to count."""


def norm(tensors: Iterable[Array], dtype: str = "float32") -> Array:
    r"""Return the Euclidean norm over all elements of all tensors; 0 for none, inf or nan where an element is.

    Equation:
        ``sqrt(sum x^2)``, where that overflows or underflows ``m sqrt(sum (x / m)^2)`` with ``m = max |x|``.

    Example:
        >>> float(norm([ops.array([3.0]), ops.array([[4.0]])]))
        5.0
        >>> float(norm([ops.array([3e30]), ops.array([[4e30]])])) == float(ops.cast(5e30, "float32"))
        True
    """
    parts = [ops.reshape(ops.cast(tensor, dtype), (-1,)) for tensor in tensors if 0 not in tensor.shape]
    if not parts:
        return ops.zeros((), dtype)
    square = sum(ops.dot(part, part) for part in parts)
    plain = ops.logical_and(square > _SQUARES[0], square < _SQUARES[1])
    return ops.cond(plain, lambda: ops.sqrt(square), lambda: _scaled_norm(parts))


def _scaled_norm(parts: list[Array]) -> Array:
    largest = ops.max(ops.stack([ops.max(ops.abs(part)) for part in parts]))
    unit = ops.where(ops.logical_and(largest > 0, ops.isfinite(largest)), largest, ops.ones_like(largest))
    return unit * ops.sqrt(sum(ops.sum(ops.square(part / unit)) for part in parts))


def distance(ends: Sequence[Any], starts: Sequence[Any], dtype: str) -> Array:
    """Return the Euclidean distance between two places, each a list of tensors or variables."""
    pairs = zip(ends, starts, strict=True)
    return norm((ops.cast(value_of(end), dtype) - ops.cast(value_of(start), dtype) for end, start in pairs), dtype)


def all_finite(tensors: Iterable[Array]) -> Array:
    """Return whether every element of every tensor is finite: by their norm, without a tensor of their size."""
    return ops.isfinite(norm(tensors))
