"""Finding the logits in whatever a model returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeGuard

import torch
from torch import Tensor

from safestep.errors import LogitsNotFoundError
from safestep.heads.places import Path, at, located

LogitsFinder = Callable[[Any], Any]
"""From the output of the model to its logits, shape ``(*samples, classes)``; of several heads a tuple or dict."""


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


class Reader:
    """Reads outputs off what a model returns.

    Args:
        finder: what the user says: from the output to the logits, one tensor, or several in a tuple or dict; None for
            every floating-point tensor with at least one dimension, wherever it lies.
    """

    def __init__(self, finder: LogitsFinder | None = None) -> None:
        self._finder = finder

    @property
    def chosen(self) -> bool:
        """Whether the user has said which outputs count."""
        return self._finder is not None

    def outputs(self, output: Any) -> dict[Path, Tensor]:
        """Return the outputs by their places.

        Raises:
            LogitsNotFoundError: if there is none.
        """
        found = {path: tensor for path, tensor in located(self._given(output)) if _is_logits(tensor)}
        if not found and self._finder is None:
            find_logits(output)  # says what was seen
        if not found:
            given = self._given(output)
            raise LogitsNotFoundError(
                f"logits= returned a {type(given).__name__}{_describe(given)}: expected a floating-point tensor of "
                "shape (*samples, classes), or several in a tuple or dict"
            )
        return found

    def read(self, output: Any, paths: Iterable[Path]) -> list[Tensor]:
        """Return the outputs at some places."""
        given = self._given(output)
        return [at(given, path) for path in paths]

    def others(self, output: Any, own: Mapping[Path, Tensor]) -> dict[Path, Tensor]:
        """Return the model's outputs that the user has left out."""
        if self._finder is None:
            return {}
        storages = {tensor.untyped_storage()._cdata for tensor in own.values() if tensor.layout is torch.strided}
        return {
            path: tensor
            for path, tensor in located(output)
            if _is_logits(tensor) and tensor.layout is torch.strided and tensor.untyped_storage()._cdata not in storages
        }

    def _given(self, output: Any) -> Any:
        return output if self._finder is None else self._finder(output)
