"""Records the forwards of a model through its public hooks, and from backward which of them count."""

from __future__ import annotations

import contextlib
import sys
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo
from torch.utils._python_dispatch import _get_current_dispatch_mode

from safestep._torch.call_stack import compiling, on_stack, past_compiler
from safestep._torch.unwrap import bare
from safestep.distributed.dtensor import any_sharded
from safestep.errors import LogitsNotFoundError, SafestepError, first_line
from safestep.heads.model_heads import Heads
from safestep.heads.output import Output, axes_of, peaks_of
from safestep.heads.places import Path, rounded, tensors_in, upstream
from safestep.recording.entries import Entries, Entry
from safestep.recording.forward import Forward, Seen
from safestep.recording.logits import LogitsFinder, Reader
from safestep.recording.mute import hears
from safestep.recording.optimizer_hooks import in_backward
from safestep.recording.output_hooks import listen
from safestep.recording.readout import Readout
from safestep.recording.stored_gradients import Mark, Stored
from safestep.recording.subsample import rank
from safestep.tape import Tape


@dataclass(slots=True)
class _Call:
    """A forward that is running.

    Attributes:
        frame: of torch's own call of the module, to tell whether it still runs.
        entry: what it may change; None if it does not count.
        tape: what it does, if somebody wants to know.
        inner: forwards of the model within this one. They count if this one returns no logits.
    """

    frame: FrameType | None
    entry: Entry | None
    tape: Tape | None = None
    inner: list[Forward] = field(default_factory=list)

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
        readout: a way to logits for measuring, where the model makes none.
        most: how many forwards of one step are kept. Of more, `subsample.rank` tells which; one whose gradients were
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
        readout: Readout | None = None,
    ) -> None:
        self._readout = readout
        self.model, self._keep, self._moving, self._place, self._hold = model, keep, moving, place, hold
        self._reader, self._heads = Reader(logits), Heads(chosen=logits is not None)
        self._rough: dict[Path, bool] = {}
        self._shown: set[Path] = set()
        self._entering, self._stored, self._elsewhere = entering, Stored(gradients), elsewhere
        self._most, self._round = most, 0
        self._seen = self._nothing()
        self._size = sum(parameter.nbytes for parameter in bare(model).parameters())
        self._running: list[_Call] = []  # a model may call itself
        self._known = Entries()
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

    @property
    def heads(self) -> Heads:
        """What is known of the model's outputs."""
        return self._heads

    def _nothing(self) -> Seen:
        return Seen(self.model, self._reader, self._heads, self._readout)

    def take(self, count: int) -> Seen:
        """Hand out the first ``count`` forwards and keep the later ones for the next step."""
        seen = self._seen
        self._seen = self._nothing()
        self._seen.forwards = seen.forwards[count:]
        seen.forwards = seen.forwards[:count]
        self._round, self._shown = self._round + 1, set()
        self._several = seen.count > 1
        return seen

    def as_state(self) -> dict[str, Any]:
        """Return what earlier forwards taught, for a checkpoint."""
        return {**self._known.as_state(), "several": self._several, "heads": self._heads.as_state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Forget what was seen and go on from `as_state`; from an empty one as if nothing had been learnt."""
        self._heads.load_state(state.get("heads", {}))
        self._known = Entries.from_state(state)
        self._several, self._round = state.get("several", False), self._round + 1
        self._seen = self._nothing()

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._running and not on_stack(self._running[-1].frame, sys._getframe()):
            self._forget()  # an interrupt, which calls no hook, ended that forward
        self._entering()
        call = _Call(_frame_of_call(), None)
        try:
            self._enter(call, module, args, kwargs)
        except Exception as error:  # what fails here is for the step to tell, not for the user's forward
            self._seen.problem = f"looking at the forward failed: {first_line(error)}"
        self._running.append(call)
        if call.tape is not None:
            call.tape.__enter__()  # type: ignore[no-untyped-call]  # last: this hook is not part of the forward

    def _enter(self, call: _Call, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        elsewhere = self._elsewhere()
        self._seen.searched = self._seen.searched or elsewhere
        if not torch.is_grad_enabled() or elsewhere:
            return
        # Of several forwards, the next backward asks what is gone: a walk over all gradients is dear.
        asks = bool(self._seen.forwards) and not self._several
        self.drop(self._stored.mark() if asks else None, ended=not in_backward())
        alone = not (self._running or self._several or self._seen.forwards)
        call.entry = self._known.before(bare(module), (args, kwargs), self._place())
        taped = alone and self._readout is None and not (self._moving is None or _compiled(module, sys._getframe(2)))
        if not taped or self._moving is None or torch._C._functorch.maybe_current_level() is not None:
            return
        if not any_sharded(moving := list(self._moving())):
            call.tape = Tape(moving, (t for t in tensors_in((args, kwargs)) if t.requires_grad))

    def drop(self, now: Mark | None, *, ended: bool = False) -> None:
        """Drop the forwards whose gradients are gone.

        Args:
            now: the mark of the stored gradients; None if no forward counts yet.
            ended: whether no backward is running: one that never came to its end has raised half way, and may have
                stored some of its gradients.
        """
        seen = self._seen
        for forward in seen.forwards if ended else ():
            if forward.stored is None:
                forward.stored = True
        if now is not None and any(forward.stored for forward in seen.forwards) and self._stored.gone(now):
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
        if entry is None or output is None:  # None: it raised
            return
        if torch._C._functorch.maybe_current_level() is not None:
            self._seen.problem = "the forward ran inside a torch.func transform, where its logits cannot be hooked"
            return
        try:
            self._record(call, entry, tape, module, output)
        except Exception as error:  # a user's `logits=` may raise anything; it is the step that fails, not the forward
            self._seen.problem = (
                str(error)
                if isinstance(error, SafestepError)
                else f"{'logits=' if self._reader.chosen else 'reading the logits'} failed on the model's output, "
                f"a {type(output).__name__}: {first_line(error)}"
            )

    def _record(self, call: _Call, entry: Entry, tape: Tape | None, module: nn.Module, output: Any) -> None:
        """Record a forward, unless one within it has the logits or it is within one that has."""
        outer = self._running[0] if self._running else None
        if outer is not None and self._readout is not None:
            return
        if outer is not None:
            with contextlib.suppress(LogitsNotFoundError):
                if any(t.grad_fn is not None for t in self._reader.outputs(output).values()):
                    outer.inner.append(self._forward(entry, None, module, output))
            return
        if self._readout is not None:
            self._forward(entry, None, module, output)
            return
        within = [forward for forward in call.inner if forward.outputs]
        found = {} if within and not _tensors(output) else self._reader.outputs(output)
        if within and not any(t.grad_fn is not None for t in found.values()):
            return  # a training step called as the forward: the model within it gave the logits
        for forward in within:
            forward.ignored = True
        if any(t.requires_grad for t in (*found.values(), *tensors_in(output))):
            self._forward(entry, tape, module, output)

    def _forward(self, entry: Entry, tape: Tape | None, module: nn.Module, output: Any) -> Forward:
        if self._readout is not None:
            made = Output((), torch.Size(()), torch.zeros(0))
            forward = self._known.after(bare(module), entry, [made], _device_of(module), None)
            listen(self, forward, [], output)
            return forward
        own = self._reader.outputs(output)
        named = {**own, **{("model", *path): tensor for path, tensor in self._reader.others(output, own).items()}}
        grown = {path: tensor for path, tensor in named.items() if tensor.grad_fn is not None}
        if self._heads.due and len(grown) > 1:
            self._heads.upstream |= upstream(grown)
        if not self._heads.due:
            named = {path: t for path, t in named.items() if not self._heads.passed_over(path)} or named
        if tape is not None:
            tape.close(*named.values())
        outputs = [self._output(path, tensor, taped=tape is not None) for path, tensor in named.items()]
        for one in outputs:
            one.apart = one.path not in own
        device = next(iter(named.values())).device.type
        forward = self._known.after(bare(module), entry, outputs, device, tape)
        listen(self, forward, list(named.values()), output)
        return forward

    def _output(self, path: Path, tensor: Tensor, *, taped: bool) -> Output:
        held = sum(o.value.nbytes for f in self._seen.forwards for o in f.outputs if o.value is not None)
        small = held + tensor.nbytes <= self._keep
        # One forward of a step is enough to tell by.
        wanted = path not in self._shown and self._heads.looks(path)
        looked = wanted and (self._heads.steps < _SOON or tensor.nbytes <= self._size)
        if looked:
            self._shown.add(path)
        if path not in self._rough or self._heads.due:
            self._rough[path] = tensor.grad_fn is not None and rounded(tensor)
        value = tensor.detach()
        return Output(
            path,
            tensor.shape,
            peaks_of(value),
            self._rough[path],
            value=value if taped or small or looked else None,
            version=value._version,
            lent=not (taped or small),
            taped=not small,
        )

    def reached(self, forward: Forward, output: Output | None, gradient: Tensor | None) -> None:
        """Take in that backward came to an output of a forward (None for one that holds no logits, such as a loss).

        Args:
            forward: the forward.
            output: its output.
            gradient: the gradient there; None if torch does not tell it.
        """
        if forward.ignored:
            return
        try:
            self._count(forward)
            if output is not None and gradient is not None:
                output.reached, gradient = True, output.own(gradient)
                axes = self._heads.axes(output.path, axes_of(output))
                known = self._heads.known.get(output.path)
                output.tell(
                    gradient, axes, look=self._heads.looks(output.path) and (known is None or output.value is not None)
                )
                if self._hold:
                    forward.pending.append((output, gradient.detach()))
        except Exception as error:  # what fails here is for the step to tell, not for the user's backward
            forward.problem = f"looking at the gradient of the logits failed: {first_line(error)}"

    def _count(self, forward: Forward) -> None:
        task = torch._C._current_graph_task_id()
        if forward.task == task != -1:
            return
        forward.task, forward.pending, now = task, [], self._stored.mark()
        self.drop(now)
        if forward.left_out != self._round and not any(known is forward for known in reversed(self._seen.forwards)):
            self._keep_evenly(forward)
        # Runs when this backward is over; torch's own data-parallel wrappers rely on it too.
        finished = partial(self._finished, forward, now)
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
                one.let_go()
        if len(seen.forwards) > self._most:
            handed = [known for known in seen.forwards if known.stored is False]
            last = max(handed or seen.forwards, key=lambda known: known.rank)
            seen.forwards = [known for known in seen.forwards if known is not last]
            last.left_out = self._round
            seen.dropped += 1
            seen.handed += last.stored is False

    def _finished(self, forward: Forward, before: Mark) -> None:
        stored = self._stored.left(before)
        for output, gradient in forward.pending:
            if stored or not forward.stored:
                # What was handed to the caller (an attack, a penalty) is no part of what was stored. Not added in
                # place: the tensor belongs to backward.
                known = output.gradient if forward.stored == stored else None
                output.gradient = gradient if known is None else known + gradient
        for output in forward.outputs:
            output.turned = []
        forward.task, forward.pending = -1, []
        if forward.left_out == self._round and forward.stored is not True:
            self._seen.handed += (forward.stored is None) - stored
        forward.stored = bool(forward.stored) or stored


_SOON = 3
"""Steps in which outputs are held through backward whatever their size, to tell what the loss is."""


def _device_of(module: nn.Module) -> str:
    return next((parameter.device.type for parameter in module.parameters()), "cpu")


def _tensors(output: Any) -> bool:
    return any(tensor.ndim and tensor.is_floating_point() for tensor in tensors_in(output))


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
