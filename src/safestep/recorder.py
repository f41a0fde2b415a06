"""Records the forwards of a model through its public hooks, and from backward which of them count."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from safestep.errors import LogitsNotFoundError
from safestep.forward import Forward, Seen
from safestep.logits import LogitsFinder, find_logits, tensors_in
from safestep.rng import GeneratorStates
from safestep.wrappers import bare

MAX_FORWARDS = 256
"""Forwards (micro-batches) kept for one step; of more, the latest are kept and the reading is not called exact."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """What a forward may change, as it was before it."""

    generators: GeneratorStates
    versions: dict[str, tuple[int, int]]
    copies: dict[str, Tensor]


class ForwardRecorder:
    """Watches the forwards of a model; hands them out step by step.

    Args:
        model: the module the training loop calls.
        logits: from its output to its logits; None looks for them with `find_logits`.
        no_gradients: tells whether no gradient is stored at present. Asked before a forward: what was seen earlier
            then belongs to gradients that were dropped (a skipped scaler step, a probe of the loss) and is forgotten.
        elsewhere: tells whether the model is being run at other parameters than those the step starts from (a line
            search); such forwards do not count.
    """

    def __init__(
        self,
        model: nn.Module,
        logits: LogitsFinder | None,
        no_gradients: Callable[[], bool],
        elsewhere: Callable[[], bool],
    ) -> None:
        self.model = model
        self.logits = logits or find_logits
        self._no_gradients, self._elsewhere = no_gradients, elsewhere
        self._seen = Seen(model, self.logits)
        self._entry: _Entry | None = None
        self._volatile: set[str] | None = None  # buffers that forwards change; unknown before the first
        self._handles = (
            model.register_forward_pre_hook(_Hook(self._before), with_kwargs=True),
            model.register_forward_hook(_Hook(self._after), with_kwargs=True),
        )

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()

    @property
    def count(self) -> int:
        """How many forwards count so far."""
        return len(self._seen.forwards)

    def take(self, count: int) -> Seen:
        """Hand out the first ``count`` forwards and keep the later ones for the next step."""
        seen = self._seen
        self._seen = Seen(self.model, self.logits, seen.forwards[count:])
        seen.forwards = seen.forwards[:count]
        return seen

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if torch.is_grad_enabled() and not self._elsewhere():
            if self._seen.forwards and self._no_gradients():
                self._seen = Seen(self.model, self.logits)
            buffers = dict(bare(module).named_buffers())
            kept = buffers.keys() if self._volatile is None else self._volatile & buffers.keys()
            copies = {name: buffers[name].detach().clone() for name in kept}
            self._entry = _Entry(GeneratorStates.capture(), _versions(buffers), copies)

    def _after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        entry, self._entry = self._entry, None
        if entry is None or not torch.is_grad_enabled():
            return
        if torch._C._functorch.maybe_current_level() is not None:
            self._seen.problem = "the forward ran inside a torch.func transform, where its logits cannot be hooked"
            return
        try:
            logits = self.logits(output)
        except LogitsNotFoundError as error:
            self._seen.problem = str(error)
            return
        if logits.requires_grad:
            self._listen(self._forward(bare(module), args, kwargs, logits.detach(), entry), logits, output)

    def _forward(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], logits: Tensor, entry: _Entry
    ) -> Forward:
        after = _versions(dict(model.named_buffers()))
        changed = {name for name, version in after.items() if entry.versions.get(name) != version}
        self._volatile = changed | (self._volatile or set())
        return Forward(
            args,
            kwargs,
            tuple((t, t._version) for t in tensors_in((args, kwargs)) if not t.is_inference()),
            tuple(m.training for m in model.modules()),
            {name: copy for name, copy in entry.copies.items() if name in self._volatile},
            entry.generators,
            _autocast_in_force(logits.device.type),
            logits.amax(-1),
        )

    def _listen(self, forward: Forward, logits: Tensor, output: Any) -> None:
        outputs = [t for t in tensors_in(output) if t.requires_grad]
        if any(t is logits for t in outputs):
            logits.register_hook(partial(self._reached, forward))
            return
        # A `logits=` callable that computes a new tensor: the loss does not go through it, so its gradient cannot be
        # seen; backward through any output shows that the forward counts.
        for tensor in outputs:
            tensor.register_hook(partial(self._counts, forward))

    def _counts(self, forward: Forward, _: Tensor) -> None:
        seen = self._seen
        if not any(known is forward for known in reversed(seen.forwards)):
            seen.forwards.append(forward)
            if len(seen.forwards) > MAX_FORWARDS:
                seen.forwards.pop(0)
                seen.dropped += 1

    @torch.no_grad()
    def _reached(self, forward: Forward, gradient: Tensor) -> None:
        self._counts(forward, gradient)
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


def _versions(buffers: dict[str, Tensor]) -> dict[str, tuple[int, int]]:
    return {name: (id(buffer), buffer._version) for name, buffer in buffers.items() if not buffer.is_inference()}


def _autocast_in_force(device_type: str) -> dict[str, torch.dtype]:
    return {kind: torch.get_autocast_dtype(kind) for kind in {device_type, "cpu"} if torch.is_autocast_enabled(kind)}
