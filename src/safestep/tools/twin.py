"""A twin of an optimizer: the same class, options and parameters, but a state and learning rates of its own.

The alternative, stepping the optimizer itself and putting its state back, would write to learning rates, call the
hooks of an attached guard and count as a step for a learning rate scheduler; a twin does none of it.
"""

from __future__ import annotations

import copy
import inspect
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from safestep.errors import MeasurementError
from safestep.recording.nonfinite import parameters_of
from safestep.recording.optimizer_hooks import StepHooks

_HOOKS = "_hooks"
"""How the attributes of a torch optimizer end that hold hooks."""


def twin_of(optimizer: Optimizer, model: nn.Module, rates: Sequence[float] | None) -> Optimizer:
    """Return an optimizer that steps the same parameters from a copy of the same state, at other rates.

    Step hooks of the user's come along, as they are part of the step (a clipping, say); those of a guard do not. Nor
    does a ``step`` that was put on the optimizer object itself, as learning rate schedulers do to count.

    Args:
        optimizer: what to copy.
        model: its modules are not copied, should the optimizer hold one.
        rates: the learning rate of every parameter group; None for those it has.

    Raises:
        MeasurementError: if a part of the optimizer cannot be copied.
    """
    twin: Optimizer = object.__new__(type(optimizer))
    shared = [*parameters_of(optimizer), *model.modules(), *(key for key in optimizer.state if torch.is_tensor(key))]
    memo: dict[int, Any] = {id(part): part for part in shared} | {id(optimizer): twin}
    for name, value in vars(optimizer).items():
        if name.endswith(_HOOKS) and isinstance(value, dict):
            hooks = ((key, hook) for key, hook in value.items() if not _of_a_guard(hook))
            setattr(twin, name, OrderedDict(hooks))
        elif name != "step":
            setattr(twin, name, _copied(value, memo, f"{type(optimizer).__name__}.{name}"))
    for group, rate in zip(twin.param_groups, rates or (), strict=rates is not None):
        lr = group["lr"]
        group["lr"] = torch.full_like(lr, rate) if isinstance(lr, Tensor) else rate
    return twin


def _copied(value: Any, memo: dict[int, Any], name: str) -> Any:
    try:
        return copy.deepcopy(value, memo)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a lock, a stream, a process group: each refuses in its own way
        raise MeasurementError(
            f"{name}, a {type(value).__name__}, cannot be copied ({error}), and a trial step must not use the "
            "optimizer's own: attach(model, optimizer, policy=Watch()) measures r of the real steps"
        ) from error


def _of_a_guard(hook: Callable[..., Any]) -> bool:
    return isinstance(getattr(inspect.unwrap(hook), "__self__", None), StepHooks)
