"""What the model saw since the last step: the forwards whose logits backward reached.

A forward counts for a step if and only if backward reached its logits. Discarded, no-grad and evaluation forwards
drop out by themselves, micro-batches add up. Nothing of the logits' size is kept: of their gradient G = dL/dz only
which samples have one, and whether its rows sum to zero as those of a softmax loss do.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from safestep.errors import LogitsNotFoundError
from safestep.logits import LogitsFinder, find_logits, tensors_in
from safestep.rng import GeneratorStates

MAX_FORWARDS = 256
"""Forwards (micro-batches) kept for one step; of more, the latest are kept and the reading is not called exact."""


@dataclass(eq=False, slots=True)
class Forward:
    """One forward of the model: what is needed to run it again, and what backward told of its logits.

    Attributes:
        args: positional arguments of the forward, by reference.
        kwargs: keyword arguments, by reference.
        training: the train/eval flag of every module, in the order of ``model.modules()``.
        generators: the random generators as they were before the forward, so that dropout draws the same masks.
        autocast: the autocast dtype for each device type that had autocast on.
        active: which samples have a gradient, shape ``(*samples,)``; None where it could not be seen. Ignored
            labels and padding have rows of exact zeros.
        imbalance: ``sum_i |sum_k G_ik| / ||G||_1``; 0 for a softmax loss, a 0-d tensor.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    training: tuple[bool, ...]
    generators: GeneratorStates
    autocast: dict[str, torch.dtype]
    versions: tuple[tuple[Tensor, int], ...]
    active: Tensor | None = None
    imbalance: Tensor | None = None

    def changed_inputs(self) -> bool:
        """Return whether an input tensor was overwritten in place since the forward."""
        return any(tensor._version != version for tensor, version in self.versions)


@dataclass(slots=True)
class Seen:
    """The forwards that count for a step, and how to read logits off them.

    Attributes:
        model: the module whose forward was recorded.
        logits: from the output of the model to its logits.
        forwards: the forwards, oldest first.
        dropped: how many older forwards of the same step were not kept.
        problem: why a training forward was not recorded, or an empty text.
    """

    model: nn.Module
    logits: LogitsFinder
    forwards: list[Forward] = field(default_factory=list)
    dropped: int = 0
    problem: str = ""


class ForwardRecorder:
    """Watches the forwards of a model through its public hooks.

    Args:
        model: the module the training loop calls.
        logits: from its output to its logits; None looks for them with `find_logits`.
        no_gradients: tells whether no gradient is stored at present. Asked before a forward: what was seen earlier
            then belongs to gradients that were dropped (a skipped scaler step, a probe of the loss) and is forgotten.
    """

    def __init__(
        self, model: nn.Module, logits: LogitsFinder | None = None, no_gradients: Callable[[], bool] = lambda: False
    ) -> None:
        self.model = model
        self.logits = logits or find_logits
        self._no_gradients = no_gradients
        self._seen = Seen(model, self.logits)
        self._entered: GeneratorStates | None = None
        hooks = (_Hook(self._before), _Hook(self._after))
        self._handles = (
            model.register_forward_pre_hook(hooks[0], with_kwargs=True),
            model.register_forward_hook(hooks[1], with_kwargs=True),
        )

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()

    @property
    def count(self) -> int:
        """How many forwards count so far."""
        return len(self._seen.forwards)

    def take(self, count: int | None = None) -> Seen:
        """Hand out the first ``count`` forwards (all of them by default) and keep the later ones for the next step."""
        seen, count = self._seen, self.count if count is None else count
        self._seen = Seen(self.model, self.logits, seen.forwards[count:])
        seen.forwards = seen.forwards[:count]
        return seen

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if torch.is_grad_enabled():
            if self._seen.forwards and self._no_gradients():
                self._seen = Seen(self.model, self.logits)
            self._entered = GeneratorStates.capture()

    def _after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        generators, self._entered = self._entered, None
        if not torch.is_grad_enabled() or generators is None:
            return
        if torch._C._functorch.maybe_current_level() is not None:
            self._seen.problem = "the forward ran inside a torch.func transform, where its logits cannot be hooked"
            return
        try:
            logits = self.logits(output)
        except LogitsNotFoundError as error:
            self._seen.problem = str(error)
            return
        if not logits.requires_grad:
            return
        forward = Forward(
            args,
            kwargs,
            tuple(m.training for m in module.modules()),
            generators,
            _autocast_in_force(logits.device.type),
            tuple((t, t._version) for t in tensors_in((args, kwargs)) if not t.is_inference()),
        )
        outputs = [t for t in tensors_in(output) if t.requires_grad]
        if any(t is logits for t in outputs):
            logits.register_hook(partial(self._reached, forward))
        else:
            # A `logits=` callable that computes a new tensor: the loss does not go through it, so its gradient
            # cannot be seen; backward through any output shows that the forward counts.
            for tensor in outputs:
                tensor.register_hook(partial(self._passed, forward))

    def _passed(self, forward: Forward, _: Tensor) -> None:
        seen = self._seen
        if not any(known is forward for known in reversed(seen.forwards)):
            seen.forwards.append(forward)
            if len(seen.forwards) > MAX_FORWARDS:
                seen.forwards.pop(0)
                seen.dropped += 1

    @torch.no_grad()
    def _reached(self, forward: Forward, gradient: Tensor) -> None:
        self._passed(forward, gradient)
        rows = torch.linalg.vector_norm(gradient, 1, dim=-1)  # a reduction: no second tensor of the logits' size
        active = rows != 0
        forward.active = active if forward.active is None else forward.active | active
        forward.imbalance = gradient.sum(-1).abs().sum() / rows.sum()


class _Hook:
    """A hook that holds its owner weakly, and that copies and pickles of the model carry as an inert stub."""

    def __init__(self, method: Any = None) -> None:
        self._method = weakref.WeakMethod(method) if method is not None else None

    def __call__(self, *args: Any) -> None:
        if self._method is not None and (method := self._method()) is not None:
            method(*args)

    def __reduce__(self) -> tuple[type[_Hook], tuple[()]]:
        return (_Hook, ())


def _autocast_in_force(device_type: str) -> dict[str, torch.dtype]:
    return {kind: torch.get_autocast_dtype(kind) for kind in {device_type, "cpu"} if torch.is_autocast_enabled(kind)}
