"""Which forwards count for a step: those that backward reached and whose gradients are still there."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from safestep.errors import first_line
from safestep.heads.output import Output, axes_of
from safestep.recording.forward import Forward
from safestep.recording.forwards import Forwards
from safestep.recording.stored_gradients import Mark, Stored
from safestep.recording.subsample import rank


class CountedForwards:
    """Counts the forwards of a step as backward reaches them, and keeps so many of them, spread evenly.

    A forward whose backward stored gradients that are gone before the next forward or backward (a skipped scaler step,
    a probe of the loss) does not count.

    Args:
        forwards: of the first step, none so far.
        stored: watches the gradients that backward leaves.
        most: how many are kept. Of more, `subsample.rank` tells which; one whose gradients were handed to the caller
            goes before one that trained.
        hold: whether to hold dL/dz from backward to the step, by reference: a tensor of the logits' size.

    Attributes:
        forwards: those of the running step.
        several: whether the latest step had several.
    """

    def __init__(self, forwards: Forwards, stored: Stored, most: int, *, hold: bool) -> None:
        self.forwards, self.several = forwards, False
        self._stored, self._most, self._hold, self._round = stored, most, hold, 0

    def next_step(self, following: Forwards, count: int) -> Forwards:
        """Hand out the first ``count`` forwards; the later ones are of the following step."""
        forwards, self.forwards = self.forwards, following
        following.kept, forwards.kept = forwards.kept[count:], forwards.kept[:count]
        following.begun = forwards.begun
        self._round, self.several = self._round + 1, forwards.count > 1
        return forwards

    def restart(self, following: Forwards, *, several: bool) -> None:
        """Forget the running step."""
        self.forwards, self.several, self._round = following, several, self._round + 1

    def forward_begins(self, *, within_backward: bool) -> None:
        """Drop forwards whose gradients are gone."""
        self.forwards.begun = True
        for forward in () if within_backward else self.forwards.kept:
            if forward.stored is None:  # its backward has raised half way, and may have stored some of its gradients
                forward.stored = True
        # Of several forwards, the next backward asks what is gone: a walk over all gradients is dear.
        if self.forwards.kept and not self.several:
            self._drop(self._stored.mark())

    def _drop(self, now: Mark) -> None:
        forwards = self.forwards
        if any(forward.stored for forward in forwards.kept) and self._stored.gone(now):
            gone = [forward for forward in forwards.kept if forward.stored]
            forwards.kept = [forward for forward in forwards.kept if not forward.stored]
            forwards.dropped, self._round = forwards.handed, self._round + 1
            for forward in gone:  # one may be reached again
                forward.unlearn()

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
                heads = self.forwards.known
                axes, known = heads.axes(output.path, axes_of(output)), heads.known.get(output.path)
                output.tell(
                    gradient, axes, look=heads.looks(output.path) and (known is None or output.value is not None)
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
        self._drop(now)
        if forward.left_out != self._round and not any(known is forward for known in reversed(self.forwards.kept)):
            self._keep_evenly(forward)
        # Runs when this backward is over; torch's own data-parallel wrappers rely on it too.
        finished = partial(self._finished, forward, now)
        torch.autograd.Variable._execution_engine.queue_callback(finished)

    def _keep_evenly(self, forward: Forward) -> None:
        """Count a forward; of more than may be kept, leave one out."""
        forwards = self.forwards
        if forward.left_out >= 0:  # of an earlier step, and reached again
            forward.unlearn()
        forward.rank = rank(forwards.count)
        forwards.kept.append(forward)
        if len(forwards.kept) > 1:
            for one in forwards.kept:
                one.let_go()
        if len(forwards.kept) > self._most:
            handed = [known for known in forwards.kept if known.stored is False]
            last = max(handed or forwards.kept, key=lambda known: known.rank)
            forwards.kept = [known for known in forwards.kept if known is not last]
            last.left_out = self._round
            forwards.dropped += 1
            forwards.handed += last.stored is False

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
            self.forwards.handed += (forward.stored is None) - stored
        forward.stored = bool(forward.stored) or stored
