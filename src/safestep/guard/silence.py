"""Warns when training goes on without this guard: its optimizer is gone, or another one steps."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from safestep._torch.unwrap import bare
from safestep._torch.warn_once import Once, warn
from safestep.recording.trained import Trained

PATIENCE = 20
"""Training forwards, each after a write to the parameters, after which it is said."""
_LOOKED_AT = 8
"""Parameters whose version counters are looked at."""

_GONE = (
    "the optimizer of this model's guard was deleted, and the guard went with it, but training goes on: since then "
    f"nothing is kept inside ({PATIENCE} steps). If the optimizer was made anew (after unfreezing, say), call "
    "safestep.attach(model, optimizer) for the new one; if this is meant, guard.detach() before the optimizer goes"
)

_NEVER_STEPS = (
    "the parameters were written to between {count} training forwards, and the optimizer of this guard took no step in "
    "between ({state} so far): another optimizer trains the model, and nothing is kept inside. A trainer that makes "
    "its own optimizer, or one made anew? detach() this guard and attach(model, the optimizer that steps)"
)


class Elsewhere:
    """Notices that somebody else trains the parameters of a guard.

    Gradient accumulation, an attack on the inputs or a line search write to no parameter between their forwards; a
    foreign optimizer writes between any two.

    Args:
        trained: the parameters of the guard.
        say: warns, once about each thing.
    """

    def __init__(self, trained: Trained, say: Once) -> None:
        self._trained, self._say = trained, say
        self._chosen: list[Tensor] = []
        self._place, self._count = -1, 0

    def stepped(self) -> None:
        """Begin to count anew: the guard has acted."""
        self._chosen, self._place, self._count = [], -1, 0

    def forward(self, steps: int) -> None:
        """Look, before a training forward, and say if it is now `PATIENCE` times that somebody else wrote.

        Args:
            steps: how many the guard has seen.
        """
        self._chosen = self._chosen or _some(self._trained.moving())  # once a step, not for each of its micro-batches
        before, self._place = self._place, _place(self._chosen)
        self._count += before not in {-1, self._place}
        if self._count == PATIENCE:
            self._say("unheard", _NEVER_STEPS.format(count=PATIENCE, state=steps or "no"))


class Silence:
    """Leaves a tripwire on the model when the last optimizer of a guard is deleted; it says so if training goes on.

    Args:
        model: what the guard is attached to; held weakly.
        optimizers: of the guard; held weakly.
        handles: of the guard's hooks on the model, which have nothing to record then; its log is the guard's to close.
    """

    def __init__(self, model: nn.Module, optimizers: Sequence[Optimizer], handles: Sequence[RemovableHandle]) -> None:
        left = [len(optimizers)]
        self._waiting = [weakref.finalize(one, _gone, weakref.ref(model), left, handles) for one in optimizers]
        for waiting in self._waiting:
            waiting.atexit = False  # where the interpreter ends, nobody trains on

    def close(self) -> None:
        """Leave no tripwire."""
        for waiting in self._waiting:
            waiting.detach()


def disarm(model: nn.Module) -> None:
    """Remove the tripwires from a model and from every other with a parameter of it: it has a guard again."""
    own = {id(parameter) for parameter in bare(model).parameters()}
    for other, wire in list(_wires.items()):
        if other is model or any(id(parameter) in own for parameter in other.parameters()):
            wire.remove()


class _Tripwire:
    """A forward hook that counts training forwards; copies and pickles of the model carry an inert one."""

    def __init__(self, model: nn.Module | None = None) -> None:
        self._place, self._count = -1, 0
        self._handle: RemovableHandle | None = None
        if model is not None:
            self._handle = model.register_forward_pre_hook(self)
            _wires[model] = self

    @_disable_dynamo  # a compiled model runs its hooks as they are
    def __call__(self, module: nn.Module, args: Any) -> None:
        if self._handle is None or not (module.training and torch.is_grad_enabled()):
            return
        before, self._place = self._place, _place(_some(p for p in module.parameters() if p.requires_grad))
        self._count += before not in {-1, self._place}
        if self._count == PATIENCE:
            self.remove()
            warn(_GONE)

    def remove(self) -> None:
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def __reduce__(self) -> tuple[type[_Tripwire], tuple[()]]:
        return (_Tripwire, ())


_wires: weakref.WeakKeyDictionary[nn.Module, _Tripwire] = weakref.WeakKeyDictionary()


def _gone(model: weakref.ref[nn.Module], left: list[int], handles: Sequence[RemovableHandle]) -> None:
    left[0] -= 1
    if left[0]:
        return
    for handle in handles:
        handle.remove()
    known = model()
    if known is not None:
        _Tripwire(known)


def _some(parameters: Iterable[Tensor]) -> list[Tensor]:
    """Return a few parameters, spread evenly."""
    known = list(parameters)
    return known[:: max(1, len(known) // _LOOKED_AT)]


def _place(parameters: Iterable[Tensor]) -> int:
    """Return a number that any write to the parameters raises."""
    return sum(parameter._version for parameter in parameters)
