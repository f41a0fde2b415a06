"""Finding the logits in whatever a model returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeGuard

import torch
from torch import Tensor

from safestep.errors import LogitsNotFoundError

LogitsFinder = Callable[[Any], Tensor]
"""From the output of the model to its logits, shape ``(*samples, classes)``."""


def _is_logits(value: object) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and value.ndim >= 1 and value.is_floating_point()


def find_logits(output: Any) -> Tensor:
    """Return the logits in the output of a model.

    Looks, in this order, for: a floating-point tensor; an attribute or key ``logits``; in a tuple or list the first
    floating-point tensor that has at least one dimension (which passes over a leading scalar loss).

    Args:
        output: what ``model(...)`` returned.

    Returns:
        The tensor itself, not a copy.

    Raises:
        LogitsNotFoundError: if none of these holds; it says what was seen and what to pass instead.

    Example:
        >>> find_logits({"logits": torch.zeros(2, 3)}).shape
        torch.Size([2, 3])
    """
    if _is_logits(output):
        return output
    named = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if _is_logits(named):
        return named
    if isinstance(output, (tuple, list)):
        for item in output:
            if _is_logits(item):
                return item
    raise LogitsNotFoundError(
        f"found no logits in the model's output, a {type(output).__name__}{_describe(output)}; expected a "
        "floating-point tensor of shape (*samples, classes), an output with .logits, or a tuple holding one. "
        "Pass attach(..., logits=function), a function from the output to its logits"
    )


def _describe(output: Any) -> str:
    if isinstance(output, Tensor):
        return f" of shape {tuple(output.shape)} and dtype {output.dtype}"
    if isinstance(output, Mapping):
        return f" with keys {sorted(map(str, output))}"
    if isinstance(output, (tuple, list)):
        return f" of {', '.join(type(item).__name__ for item in output) or 'nothing'}"
    return ""


_DEEPEST = 8


def tensors_in(value: Any, depth: int = 0) -> Iterable[Tensor]:
    """Yield the tensors in nested tuples, lists, mappings and objects with attributes, a few levels deep."""
    if isinstance(value, Tensor):
        yield value
    elif depth > _DEEPEST:  # an output that holds itself
        return
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item, depth + 1)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item, depth + 1)
    elif isinstance(getattr(value, "__dict__", None), dict) and not isinstance(value, (torch.nn.Module, type)):
        for item in vars(value).values():
            if isinstance(item, (Tensor, tuple, list, dict)):
                yield from tensors_in(item, depth + 1)
