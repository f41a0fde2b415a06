"""Steps that are not finite: telling bad gradients, keeping an optimizer from using them, finding poisoned state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torch.optim import Optimizer

from safestep.distributed.dtensor import piece

_NAMED = 5


def parameters_of(optimizer: Optimizer) -> list[Tensor]:
    """Return the parameters of an optimizer as its groups list them now."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


@torch.no_grad()
def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Return whether every element that this rank holds is finite; one read-back of the device."""
    pieces = [piece(t) for t in tensors]
    checks = [torch.isfinite(t.coalesce().values() if t.is_sparse else t).all() for t in pieces]
    return not checks or bool(torch.stack([check.to(checks[0].device) for check in checks]).all())


class WithheldGradients:
    """Takes the gradients away from an optimizer for one step, so that it skips it, state included.

    Every torch optimizer passes over a parameter whose ``.grad`` is None: neither it nor its state moves.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self._gradients = [(parameter, parameter.grad) for parameter in parameters]
        for parameter, _ in self._gradients:
            parameter.grad = None

    def give_back(self) -> None:
        """Restore the very same gradient tensors."""
        for parameter, gradient in self._gradients:
            parameter.grad = gradient


def describe_poison(optimizers: Iterable[Optimizer], names: Mapping[Tensor, str]) -> str:
    """Return which buffers of the optimizers' state are not finite and what to do; an empty text if all are finite.

    Adam keeps a nan in its moments for ever: every later step is nan too, however good its gradient.
    """
    buffers = [
        f"{type(optimizer).__name__}.state[{names.get(parameter, 'a parameter')!r}][{key!r}]"
        for optimizer in optimizers
        for parameter, state in optimizer.state.items()
        if isinstance(state, dict)
        for key, value in state.items()
        if isinstance(value, Tensor) and value.is_floating_point() and not all_finite([value])
    ]
    if not buffers:
        return ""
    more = f" and {len(buffers) - _NAMED} more" if len(buffers) > _NAMED else ""
    return (
        f"the optimizer's state is not finite and may keep every later step so: {', '.join(buffers[:_NAMED])}{more}. "
        "Load a checkpoint of the optimizer, or clear its state; attach(..., on_nonfinite='skip') keeps bad gradients "
        "out of it"
    )
