"""Whether a step that a guard called inside was left alone: the parameters, bit for bit, as the optimizer made them."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor
from torch.optim import Optimizer


class Witness:
    """Remembers what the optimizer made of the parameters, before a guard that is attached later gets to see it.

    Args:
        optimizer: not guarded yet.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._made: list[tuple[Tensor, Tensor]] = []
        self._handle = optimizer.register_step_post_hook(self._remember)

    def _remember(self, optimizer: Optimizer, *_: Any) -> None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._made = [(parameter, parameter.detach().clone()) for parameter in parameters]

    def untouched(self) -> bool:
        """Return whether every parameter still is, bit for bit, what the optimizer's last step made it."""
        return all(torch.equal(_bits(parameter), _bits(made)) for parameter, made in self._made)

    def __enter__(self) -> Self:
        """Return the witness itself; leaving the block removes its hook."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the hook."""
        self._handle.remove()


def _bits(tensor: Tensor) -> Tensor:
    """Return the bytes of a tensor: nan equals itself there, and -0 does not equal 0."""
    return tensor.detach().contiguous().view(torch.uint8) if tensor.dim() else tensor.detach()[None].view(torch.uint8)
