"""Records the forwards of a model through its public hooks, and from backward which of them count."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo
from torch.utils._python_dispatch import _get_current_dispatch_mode

from safestep.errors import LogitsNotFoundError
from safestep.forward import Forward, Seen
from safestep.frames import compiling, on_stack, past_compiler
from safestep.gathering import computes_lower
from safestep.logits import LogitsFinder, find_logits, tensors_in
from safestep.pieces import any_sharded, whole
from safestep.rng import GeneratorStates
from safestep.stored import Mark, Stored
from safestep.tape import Tape
from safestep.unheard import hears
from safestep.wrappers import bare

MAX_FORWARDS = 256
"""Forwards (micro-batches) kept for one step; of more, the latest are kept and the reading is not called exact."""


_Arguments = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class _Entry:
    """What a forward may change, as it was before it.

    Attributes:
        given: positional and keyword arguments; containers copied, tensors by reference.
        spare: the same with the tensors copied too; None where forwards are known to leave their inputs alone.
        inputs: the input tensors with their version counters.
        generators: the random generators.
        versions: identity and version counter of every buffer.
        copies: the buffers that forwards are known to change.
        place: see `Forward.place`.
    """

    given: _Arguments
    spare: _Arguments | None
    inputs: tuple[tuple[Tensor, int], ...]
    generators: GeneratorStates
    versions: dict[str, tuple[int, int]]
    copies: dict[str, Tensor]
    place: int


@dataclass(slots=True)
class _Call:
    """A forward that is running.

    Attributes:
        frame: of torch's own call of the module, to tell whether it still runs.
        entry: what it may change; None if it does not count.
        tape: what it does, if somebody wants to know.
    """

    frame: FrameType | None
    entry: _Entry | None
    tape: Tape | None = None

    def leave(self) -> Tape | None:
        """Stop recording."""
        if self.tape is not None and _get_current_dispatch_mode() is self.tape:
            self.tape.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        return self.tape


def _frame_of_call() -> FrameType | None:
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code is not nn.Module._call_impl.__code__:
        frame = frame.f_back
    return frame


def _compiled(module: nn.Module, hook: FrameType) -> bool:
    """Return whether a forward is compiled, in part or as part of what its caller compiled.

    To a tape a compiled region is one operation at best; at worst torch's compiler traces the tape.

    Args:
        module: the module that is called.
        hook: the frame of its hook.
    """
    if any(m._compiled_call_impl is not None or hasattr(m, "_orig_mod") for m in module.modules()):
        return True
    return compiling(past_compiler(hook.f_back))  # the compiler's first frames keep the hook out of a graph


class ForwardRecorder:
    """Watches the forwards of a model; hands them out step by step.

    Args:
        model: the module the training loop calls.
        logits: from its output to its logits; None looks for them with `find_logits`.
        entering: called before every forward.
        gradients: returns the gradients that are stored at present. A forward whose backward stored gradients that are
            gone before the next forward or backward (a skipped scaler step, a probe of the loss) does not count.
        elsewhere: tells whether the model is being run at other parameters than those the step starts from (a line
            search); such forwards do not count.
        keep: how many bytes of logits may be held from the forward to the step, by reference. They live longer than
            they would, through the peak of backward: where they are large, they are not kept.
        moving: tells which parameters may move, if forwards are to be recorded on a tape; None for no tape. A step of
            several forwards is not taped: all their activations would have to be held.
        place: tells the sum of the version counters of the parameters, see `Forward.place`.
        hold: whether to hold dL/dz from backward to the step, by reference: a tensor of the logits' size.
    """

    def __init__(
        self,
        model: nn.Module,
        logits: LogitsFinder | None,
        entering: Callable[[], None],
        gradients: Callable[[], list[Tensor]],
        elsewhere: Callable[[], bool],
        keep: int = 0,
        moving: Callable[[], Iterable[Tensor]] | None = None,
        place: Callable[[], int] = lambda: 0,
        hold: bool = False,
    ) -> None:
        self.model, self._keep, self._moving, self._place, self._hold = model, keep, moving, place, hold
        self.logits = logits or find_logits
        self._entering, self._stored, self._elsewhere = entering, Stored(gradients), elsewhere
        self._seen = Seen(model, self.logits)
        self._entries: list[_Call] = []  # a model may call itself
        self._overwrites: bool | None = None  # whether forwards write to their inputs; unknown before the first
        self._volatile: set[str] | None = None  # buffers that forwards change; unknown before the first
        self._new = True  # no step has been taken yet
        self._several = False  # whether the latest step had several forwards
        self.handles = (
            # First, since a replay runs the user's pre-hooks again; always, since a forward may raise.
            model.register_forward_pre_hook(_Hook(self._before), with_kwargs=True, prepend=True),
            model.register_forward_hook(_Hook(self._after), with_kwargs=True, always_call=True),
        )

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self.handles:
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
        self._new = self._new and not seen.forwards
        self._several = count > 1
        return seen

    def as_state(self) -> dict[str, Any]:
        """Return what earlier forwards taught, for a checkpoint."""
        volatile = None if self._volatile is None else sorted(self._volatile)
        return {"overwrites": self._overwrites, "volatile": volatile, "new": self._new, "several": self._several}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Forget what was seen and go on from `as_state`; from an empty one as if nothing had been learnt."""
        self._seen, volatile = Seen(self.model, self.logits), state.get("volatile")
        self._volatile = None if volatile is None else set(volatile)
        self._overwrites, self._new = state.get("overwrites"), state.get("new", True)
        self._several = state.get("several", False)

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._entries and not on_stack(self._entries[-1].frame, sys._getframe()):
            self._forget()  # an interrupt, which calls no hook, ended that forward
        self._entering()
        elsewhere = self._elsewhere()
        self._seen.searched = self._seen.searched or elsewhere
        listening = torch.is_grad_enabled() and not elsewhere
        if listening:
            self._drop()
        call = _Call(_frame_of_call(), self._entry(bare(module), (args, kwargs)) if listening else None)
        alone = not (self._entries or self._several or self._seen.forwards)
        self._entries.append(call)
        taped = listening and alone and not (self._moving is None or _compiled(module, sys._getframe(1)))
        if not taped or self._moving is None or torch._C._functorch.maybe_current_level() is not None:
            return
        if not any_sharded(moving := list(self._moving())):
            call.tape = Tape(moving, (t for t in tensors_in((args, kwargs)) if t.requires_grad))
            call.tape.__enter__()  # type: ignore[no-untyped-call]  # last: this hook is not part of the forward

    def _drop(self) -> None:
        """Drop the forwards whose gradients are gone."""
        forwards = self._seen.forwards
        if any(forward.stored for forward in forwards) and self._stored.gone():
            self._seen.forwards = [forward for forward in forwards if not forward.stored]
            for forward in forwards:  # one may be reached again
                if forward.stored:
                    forward.stored, forward.active, forward.effort, forward.gradient = False, None, None, None

    def _forget(self) -> None:
        for call in reversed(self._entries):
            call.leave()
        self._entries = []

    def _entry(self, model: nn.Module, given: _Arguments) -> _Entry:
        buffers = dict(model.named_buffers())
        kept = buffers.keys() if self._volatile is None else self._volatile & buffers.keys()
        return _Entry(
            _copied(given, tensors=False),
            None if self._overwrites is False else _copied(given, tensors=True),
            tuple((t, t._version) for t in tensors_in(given) if not t.is_inference()),
            GeneratorStates.capture(),
            _versions(buffers),
            {name: buffers[name].detach().clone() for name in kept},
            self._place(),
        )

    def _after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        call = self._entries.pop() if self._entries else _Call(None, None)
        tape, entry = call.leave(), call.entry
        # Of a model that calls itself, the outermost call gives the logits; a forward that raised gives none.
        if entry is None or self._entries or output is None:
            return
        if torch._C._functorch.maybe_current_level() is not None:
            self._seen.problem = "the forward ran inside a torch.func transform, where its logits cannot be hooked"
            return
        try:
            logits = self.logits(output)
        except LogitsNotFoundError as error:
            self._seen.problem = str(error)
        except Exception as error:  # a user's `logits=` may raise anything; it is the step that fails, not the forward
            self._seen.problem = f"logits= failed on the model's output, a {type(output).__name__}: {error!r}"
        else:
            if logits.grad_fn is not None:
                if tape is not None:
                    tape.close(logits)
                self._listen(self._forward(bare(module), logits.detach(), entry, tape), logits, output)

    def _forward(self, model: nn.Module, logits: Tensor, entry: _Entry, tape: Tape | None) -> Forward:
        after = _versions(dict(model.named_buffers()))
        changed = {name for name, version in after.items() if entry.versions.get(name) != version}
        self._volatile = changed | (self._volatile or set())
        overwritten = any(tensor._version != version for tensor, version in entry.inputs)
        self._overwrites = overwritten or bool(self._overwrites)
        spare = entry.spare if overwritten else None
        args, kwargs = entry.given if spare is None else spare
        return Forward(
            args,
            kwargs,
            entry.inputs if spare is None else (),
            tuple(m.training for m in model.modules()),
            {name: copy for name, copy in entry.copies.items() if name in self._volatile},
            entry.generators,
            _autocast_in_force(logits.device.type),
            whole(logits.amax(-1)),
            logits=logits if tape is not None or self._small(logits) else None,
            version=logits._version,
            tape=tape,
            place=entry.place,
            rounded=computes_lower(model),
        )

    def _small(self, logits: Tensor) -> bool:
        held = sum(f.logits.nbytes for f in self._seen.forwards if f.logits is not None)
        return held + logits.nbytes <= self._keep

    def _listen(self, forward: Forward, logits: Tensor, output: Any) -> None:
        outputs = [t for t in tensors_in(output) if t.requires_grad]
        if any(t is logits for t in outputs):
            logits.register_hook(partial(self._reached, forward))
            return
        # A `logits=` callable that computes a new tensor: the loss does not go through it, so its gradient cannot be
        # seen; backward through any output shows that the forward counts.
        for tensor in outputs:
            tensor.register_hook(partial(self._counts, forward))

    @_disable_dynamo  # compiled autograd would trace it
    def _counts(self, forward: Forward, _: Tensor, held: Tensor | None = None) -> None:
        self._drop()
        seen = self._seen
        if not any(known is forward for known in reversed(seen.forwards)):
            seen.forwards.append(forward)
            if len(seen.forwards) > 1:
                for one in seen.forwards:
                    one.tape = None
            if len(seen.forwards) > MAX_FORWARDS:
                seen.forwards.pop(0)
                seen.dropped += 1
        # Runs when this backward is over; torch's own data-parallel wrappers rely on it too.
        finished = partial(self._finished, forward, held, self._stored.mark())
        torch.autograd.Variable._execution_engine.queue_callback(finished)

    def _finished(self, forward: Forward, gradient: Tensor | None, before: Mark) -> None:
        stored = self._stored.left(before)
        if gradient is not None and (stored or not forward.stored):
            # What was handed to the caller (an attack, a penalty) is no part of what was stored. Not added in place:
            # the tensor belongs to backward.
            known = forward.gradient if forward.stored == stored else None
            forward.gradient = gradient if known is None else known + gradient
        forward.stored = forward.stored or stored

    @_disable_dynamo
    @torch.no_grad()
    def _reached(self, forward: Forward, gradient: Tensor) -> None:
        self._counts(forward, gradient, gradient.detach() if self._hold else None)
        rows = whole(torch.linalg.vector_norm(gradient, 1, dim=-1))  # a reduction: no second tensor of the logits' size
        active = rows != 0
        forward.active = active if forward.active is None else forward.active | active
        total = rows.sum()
        if self._new:  # a property of the loss: once is enough
            forward.imbalance = whole(gradient.sum(-1)).abs().sum() / total
        forward.effort = total / 2 if forward.effort is None else forward.effort + total / 2


class _Hook:
    """A hook that holds its owner weakly, and that copies and pickles of the model carry as an inert stub."""

    def __init__(self, method: Any = None) -> None:
        self._method = weakref.WeakMethod(method) if method is not None else None

    @_disable_dynamo  # a compiled model runs its hooks as they are: nothing in them is for a graph
    def __call__(self, *args: Any) -> None:
        method = self._method() if self._method is not None else None
        if method is not None and hears(method.__self__):
            method(*args)

    def __reduce__(self) -> tuple[type[_Hook], tuple[()]]:
        return (_Hook, ())


def _copied(value: Any, *, tensors: bool) -> Any:
    """Copy plain containers, and on request the tensors in them: what becomes of them later is not on record."""
    if isinstance(value, Tensor):
        return value.detach().clone() if tensors else value
    if type(value) in (tuple, list):
        return type(value)(_copied(item, tensors=tensors) for item in value)
    return {key: _copied(item, tensors=tensors) for key, item in value.items()} if type(value) is dict else value


def _versions(buffers: dict[str, Tensor]) -> dict[str, tuple[int, int]]:
    return {name: (id(buffer), buffer._version) for name, buffer in buffers.items() if not buffer.is_inference()}


def _autocast_in_force(device_type: str) -> dict[str, torch.dtype]:
    return {kind: torch.get_autocast_dtype(kind) for kind in {device_type, "cpu"} if torch.is_autocast_enabled(kind)}
