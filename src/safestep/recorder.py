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

from safestep.entry import Entries, Entry
from safestep.errors import LogitsNotFoundError
from safestep.evenly import rank
from safestep.forward import Forward, Seen
from safestep.frames import compiling, on_stack, past_compiler
from safestep.hooks import in_backward
from safestep.logits import LogitsFinder, find_logits, tensors_in
from safestep.pieces import any_sharded, whole
from safestep.stored import Mark, Stored
from safestep.tape import Tape
from safestep.unheard import hears
from safestep.wrappers import bare


@dataclass(slots=True)
class _Call:
    """A forward that is running.

    Attributes:
        frame: of torch's own call of the module, to tell whether it still runs.
        entry: what it may change; None if it does not count.
        tape: what it does, if somebody wants to know.
    """

    frame: FrameType | None
    entry: Entry | None
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
        most: how many forwards of one step are kept. Of more, `evenly.rank` tells which; one whose gradients were
            handed to the caller goes before one that trained.
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
        most: int = 256,
    ) -> None:
        self.model, self._keep, self._moving, self._place, self._hold = model, keep, moving, place, hold
        self.logits = logits or find_logits
        self._entering, self._stored, self._elsewhere = entering, Stored(gradients), elsewhere
        self._seen, self._most, self._round = Seen(model, self.logits), most, 0
        self._running: list[_Call] = []  # a model may call itself
        self._known = Entries()
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
        self._new, self._round = self._new and not seen.forwards, self._round + 1
        self._several = seen.count > 1
        return seen

    def as_state(self) -> dict[str, Any]:
        """Return what earlier forwards taught, for a checkpoint."""
        known, volatile = self._known, None if self._known.volatile is None else sorted(self._known.volatile)
        return {"overwrites": known.overwrites, "volatile": volatile, "new": self._new, "several": self._several}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Forget what was seen and go on from `as_state`; from an empty one as if nothing had been learnt."""
        self._seen, volatile = Seen(self.model, self.logits), state.get("volatile")
        self._known = Entries()
        self._known.volatile = None if volatile is None else set(volatile)
        self._known.overwrites, self._new = state.get("overwrites"), state.get("new", True)
        self._several, self._round = state.get("several", False), self._round + 1

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._running and not on_stack(self._running[-1].frame, sys._getframe()):
            self._forget()  # an interrupt, which calls no hook, ended that forward
        self._entering()
        elsewhere = self._elsewhere()
        self._seen.searched = self._seen.searched or elsewhere
        listening = torch.is_grad_enabled() and not elsewhere
        if listening:
            self._drop(ended=not in_backward())
        entry = self._known.before(bare(module), (args, kwargs), self._place()) if listening else None
        call = _Call(_frame_of_call(), entry)
        alone = not (self._running or self._several or self._seen.forwards)
        self._running.append(call)
        taped = listening and alone and not (self._moving is None or _compiled(module, sys._getframe(1)))
        if not taped or self._moving is None or torch._C._functorch.maybe_current_level() is not None:
            return
        if not any_sharded(moving := list(self._moving())):
            call.tape = Tape(moving, (t for t in tensors_in((args, kwargs)) if t.requires_grad))
            call.tape.__enter__()  # type: ignore[no-untyped-call]  # last: this hook is not part of the forward

    def _drop(self, *, ended: bool = False) -> None:
        """Drop the forwards whose gradients are gone.

        Args:
            ended: whether no backward is running: one that never came to its end has raised half way, and may have
                stored some of its gradients.
        """
        seen = self._seen
        for forward in seen.forwards if ended else ():
            if forward.stored is None:
                forward.stored = True
        if any(forward.stored for forward in seen.forwards) and self._stored.gone():
            gone = [forward for forward in seen.forwards if forward.stored]
            seen.forwards = [forward for forward in seen.forwards if not forward.stored]
            seen.dropped, self._round = seen.handed, self._round + 1
            for forward in gone:  # one may be reached again
                forward.unlearn()

    def _forget(self) -> None:
        for call in reversed(self._running):
            call.leave()
        self._running = []

    def _after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        call = self._running.pop() if self._running else _Call(None, None)
        tape, entry = call.leave(), call.entry
        # Of a model that calls itself, the outermost call gives the logits; a forward that raised gives none.
        if entry is None or self._running or output is None:
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
                keep = tape is not None or self._small(logits)
                forward = self._known.after(bare(module), entry, logits.detach(), tape, keep=keep)
                self._listen(forward, logits, output)

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
        if forward.left_out != self._round and not any(known is forward for known in reversed(self._seen.forwards)):
            self._keep_evenly(forward)
        # Runs when this backward is over; torch's own data-parallel wrappers rely on it too.
        finished = partial(self._finished, forward, held, self._stored.mark())
        torch.autograd.Variable._execution_engine.queue_callback(finished)

    def _keep_evenly(self, forward: Forward) -> None:
        """Count a forward; of more than may be kept, leave one out."""
        seen = self._seen
        if forward.left_out >= 0:  # of an earlier step, and reached again
            forward.unlearn()
        forward.rank = rank(seen.count)
        seen.forwards.append(forward)
        if len(seen.forwards) > 1:
            for one in seen.forwards:
                one.tape = None
        if len(seen.forwards) > self._most:
            handed = [known for known in seen.forwards if known.stored is False]
            last = max(handed or seen.forwards, key=lambda known: known.rank)
            seen.forwards = [known for known in seen.forwards if known is not last]
            last.left_out = self._round
            seen.dropped += 1
            seen.handed += last.stored is False

    def _finished(self, forward: Forward, gradient: Tensor | None, before: Mark) -> None:
        stored = self._stored.left(before)
        if gradient is not None and (stored or not forward.stored):
            # What was handed to the caller (an attack, a penalty) is no part of what was stored. Not added in place:
            # the tensor belongs to backward.
            known = forward.gradient if forward.stored == stored else None
            forward.gradient = gradient if known is None else known + gradient
        if forward.left_out == self._round and forward.stored is not True:
            self._seen.handed += (forward.stored is None) - stored
        forward.stored = bool(forward.stored) or stored

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
