"""Records the forwards of a model through its public hooks, and hands them out step by step."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from safestep._torch.call_stack import on_stack
from safestep._torch.unwrap import bare
from safestep.distributed.dtensor import any_sharded
from safestep.errors import LogitsNotFoundError, SafestepError, first_line
from safestep.heads.model_heads import Heads
from safestep.heads.places import tensors_in
from safestep.recording.counted import CountedForwards
from safestep.recording.entries import Entries, Entry
from safestep.recording.forward import Forward
from safestep.recording.forwards import Forwards
from safestep.recording.gradient_witness import GradientWitness
from safestep.recording.logits import LogitsFinder, Reader
from safestep.recording.optimizer_hooks import in_backward
from safestep.recording.output_hooks import listen
from safestep.recording.outputs import OutputFollower, unread_output
from safestep.recording.readout import Readout
from safestep.recording.running import RunningForward, compiled, frame_of_call
from safestep.recording.stored_gradients import Stored
from safestep.recording.trained import Trained
from safestep.recording.weak_hook import WeakHook
from safestep.tape import Tape


class ForwardRecorder:
    """Watches the forwards of a model.

    Args:
        trained: the model that the training loop calls, and the parameters that move. A forward at other parameters
            than those the step starts from (of a line search) does not count.
        logits: from the model's output to its logits; None looks for them with `find_logits`.
        keep: how many bytes of logits may be held from the forward to the step, by reference.
        tape: whether to record forwards on a tape. A step of several forwards is not taped: all their activations would
            have to be held.
        hold: whether to hold dL/dz from backward to the step, by reference: a tensor of the logits' size.
        factor: whether to see by what factor gradients are multiplied between backward and the step.
        most: how many forwards of one step are kept.
        readout: a way to logits for measuring, where the model makes none.
    """

    def __init__(
        self,
        trained: Trained,
        logits: LogitsFinder | None = None,
        *,
        keep: int = 0,
        tape: bool = False,
        hold: bool = False,
        factor: bool = False,
        most: int = 256,
        readout: Readout | None = None,
    ) -> None:
        self._trained, self._tape, self._readout = trained, tape, readout
        self._reader, self.heads = Reader(logits), Heads(chosen=logits is not None)
        self._witness = GradientWitness(trained.moving()) if factor else None
        self._follower = OutputFollower(trained.model, self._reader, self.heads, keep)
        self._counted = CountedForwards(self._none(), Stored(trained.left_by_backward), most, hold=hold)
        self._running: list[RunningForward] = []  # a model may call itself
        self._entries = Entries()
        model = trained.model
        self.handles = (
            # First, since a replay runs the user's pre-hooks again; always, since a forward may raise.
            model.register_forward_pre_hook(WeakHook(self._before), with_kwargs=True, prepend=True),
            model.register_forward_hook(WeakHook(self._after), with_kwargs=True, always_call=True),
            *(self._witness.handles if self._witness else ()),
        )

    def close(self) -> None:
        """Remove the hooks, and leave the tapes of forwards that are running."""
        for handle in self.handles:
            handle.remove()
        self._leave()

    def _leave(self) -> None:
        for call in reversed(self._running):
            call.leave()
        self._running = []

    @property
    def count(self) -> int:
        """How many forwards count so far."""
        return len(self._counted.forwards.kept)

    def _none(self) -> Forwards:
        return Forwards(self._trained.model, self._reader, self.heads, self._readout, witness=self._witness)

    def take(self, count: int) -> Forwards:
        """Hand out the first ``count`` forwards and keep the later ones for the next step."""
        self._follower.new_step()
        return self._counted.next_step(self._none(), count)

    def as_state(self) -> dict[str, Any]:
        """Return what earlier forwards taught, for a checkpoint."""
        return {**self._entries.as_state(), "several": self._counted.several, "heads": self.heads.as_state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Forget the running step and go on from `as_state`; from an empty one as if nothing had been learnt."""
        self.heads.load_state(state.get("heads", {}))
        self._entries = Entries.from_state(state)
        self._counted.restart(self._none(), several=state.get("several", False))

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> None:
        if kwargs is None:  # the hooks were removed in this very call: the last optimizer has just been collected
            return
        if self._running and not on_stack(self._running[-1].frame, sys._getframe()):
            self._leave()  # an interrupt, which calls no hook, ended that forward
        call = RunningForward(frame_of_call())
        try:
            self._enter(call, module, args, kwargs)
        except Exception as error:  # what fails here is for the step to tell, not for the user's forward
            self._counted.forwards.problem = f"looking at the forward failed: {first_line(error)}"
        self._running.append(call)
        call.enter()  # last: this hook is not part of the forward

    def _enter(self, call: RunningForward, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        forwards, midway = self._counted.forwards, self._trained.midway()
        forwards.searched = forwards.searched or midway
        if not torch.is_grad_enabled() or midway:
            return
        self._counted.forward_begins(within_backward=in_backward())
        alone = not (self._running or self._counted.several or forwards.kept)
        call.entry = self._entries.before(bare(module), (args, kwargs), self._trained.version())
        if not (self._tape and alone and self._readout is None) or compiled(module, sys._getframe(2)):
            return
        if torch._C._functorch.maybe_current_level() is None and not any_sharded(moving := self._trained.moving()):
            call.tape = Tape(moving, (t for t in tensors_in((args, kwargs)) if t.requires_grad))

    def _after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *outputs: Any) -> None:
        if not outputs:  # the hooks were removed in this very call, and torch no longer knows that they take keywords
            return
        (output,) = outputs
        call = self._running.pop() if self._running else RunningForward(None)
        tape, entry, forwards = call.leave(), call.entry, self._counted.forwards
        if entry is None or output is None:  # None: it raised
            return
        if torch._C._functorch.maybe_current_level() is not None:
            forwards.problem = "the forward ran inside a torch.func transform, where its logits cannot be hooked"
            return
        try:
            self._record(call, entry, tape, module, output)
        except Exception as error:  # a user's `logits=` may raise anything; it is the step that fails, not the forward
            forwards.problem = (
                str(error)
                if isinstance(error, SafestepError)
                else f"{'logits=' if self._reader.chosen else 'reading the logits'} failed on the model's output, "
                f"a {type(output).__name__}: {first_line(error)}"
            )

    def _record(self, call: RunningForward, entry: Entry, tape: Tape | None, module: nn.Module, output: Any) -> None:
        """Record a forward, unless one within it has the logits or it is within one that has."""
        outer = self._running[0] if self._running else None
        if self._readout is not None:
            if outer is None:
                self._record_unread(entry, module, output)
            return
        if outer is not None:
            with contextlib.suppress(LogitsNotFoundError):
                if any(t.grad_fn is not None for t in self._reader.outputs(output).values()):
                    outer.inner.append(self._forward(entry, None, module, output))
            return
        within = [forward for forward in call.inner if forward.outputs]
        outputs = {} if within and not _holds_floats(output) else self._reader.outputs(output)
        if within and not any(t.grad_fn is not None for t in outputs.values()):
            return  # a training step called as the forward: the model within it gave the logits
        for forward in within:
            forward.ignored = True
        if any(t.requires_grad for t in (*outputs.values(), *tensors_in(output))):
            self._forward(entry, tape, module, output)

    def _forward(self, entry: Entry, tape: Tape | None, module: nn.Module, output: Any) -> Forward:
        outputs, tensors = self._follower.outputs(output, self._counted.forwards, tape)
        forward = self._entries.after(bare(module), entry, outputs, tensors[0].device.type, tape)
        listen(self._counted, forward, tensors, output)
        return forward

    def _record_unread(self, entry: Entry, module: nn.Module, output: Any) -> None:
        device = next((parameter.device.type for parameter in module.parameters()), "cpu")
        listen(self._counted, self._entries.after(bare(module), entry, [unread_output()], device, None), [], output)


_Hook = WeakHook
"""The name of the stub in models that were saved whole by earlier versions."""


def _holds_floats(output: Any) -> bool:
    return any(tensor.ndim and tensor.is_floating_point() for tensor in tensors_in(output))
