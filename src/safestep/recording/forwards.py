"""The forwards of one step whose logits backward reached, and how to read logits off them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from safestep._torch.unwrap import bare
from safestep.distributed.consensus import ALONE, Peers
from safestep.heads.labels import labelled_rows
from safestep.heads.model_heads import Heads, Wanted
from safestep.heads.output import Output
from safestep.recording.forward import Forward
from safestep.recording.gradient_witness import GradientWitness
from safestep.recording.logits import Reader
from safestep.recording.readout import Readout


@dataclass(slots=True)
class Forwards:
    """The forwards that count for a step, and how to read logits off them.

    A forward counts if and only if backward reached its logits. Discarded, no-grad and evaluation forwards drop out
    by themselves, micro-batches add up.

    Attributes:
        model: the module whose forward was recorded, wrappers included.
        reader: reads outputs off what the model returns.
        known: what is known of the model's outputs.
        readout: a way to logits for measuring, where the model makes none.
        kept: the forwards, oldest first.
        dropped: how many other forwards count for the step, but were not kept.
        handed: how many of them handed their gradients to the caller, see `Forward.stored`.
        begun: whether any forward that could count has run, in this step or an earlier one.
        problem: why a training forward was not recorded, or an empty text.
        place: the sum of version counters where the step began, see `Forward.place`; None where nobody looked.
        loss_scale: what a gradient scaler multiplied the loss by before backward. `Output.gradient` and
            `half_l1_logit_grad` still carry it; parameters' gradients do not.
        resolved: whether it is known which outputs are heads.
        searched: whether the model also ran at other parameters during the step (a line search): the gradients stored
            now are of those.
        shared: J p of the forwards, kept for other radii of the same step; None where nobody else will ask.
        witness: what the gradients were when backward left them; None where nobody wanted to know.
        peers: the ranks that take this step together, each with forwards of its own.
    """

    model: nn.Module
    reader: Reader
    known: Heads
    readout: Readout | None = None
    kept: list[Forward] = field(default_factory=list)
    dropped: int = 0
    handed: int = 0
    begun: bool = False
    problem: str = ""
    place: int | None = None
    loss_scale: float = 1.0
    searched: bool = False
    resolved: bool = False
    shared: dict[Any, Any] | None = None
    witness: GradientWitness | None = None
    peers: Peers = ALONE

    @property
    def count(self) -> int:
        """How many forwards count for the step, whether they were kept or not."""
        return len(self.kept) + self.dropped

    @property
    def kept_of_all(self) -> str:
        """How many of the forwards were kept, for a record; an empty text if all."""
        return f"r of {len(self.kept)} of {self.count} micro-batches" if self.dropped else ""

    def left(self, forward: Forward) -> bool:
        """Return whether parameters were written to between a forward and the step, which may begin elsewhere then."""
        return self.place is not None and forward.place != self.place

    def resolve(self, wanted: Wanted) -> None:
        """Find the heads of every forward, by what the gradients showed.

        Raises:
            LossMismatchError: if the loss is not one that the radius can measure.
        """
        for forward in self.kept:
            for output in forward.outputs:
                self.known.learn(output, self.loss_scale)
            forward.heads = self.known.measured(forward.outputs, wanted)
            forward.guessed = any(map(self._guessed, forward.heads))
            for head in forward.heads:
                if not head.active and head.labelled is None:
                    head.labelled = labelled_rows(bare(self.model), forward.args, forward.kwargs, head.shape[:-1])
        self.known.steps += not self.resolved
        self.resolved = True

    def _guessed(self, output: Output) -> bool:
        """Return whether an output is read as the likeliest thing: unseen, or with a factor that nobody can tell."""
        if not output.shape:
            return True
        return not self.known.chosen and (output.size is None or (output.head is not None and not output.head.plain))

    def half_l1_logit_grad(self) -> Tensor | None:
        """Return ``e`` summed over the heads of all forwards, a 0-d tensor; None where a gradient was not seen.

        The rows of G sum to zero, so ``|g.p| = |sum G.a| <= e max_i spread(a_i)``: a bound on r without a forward, for
        any reduction, class weights or label smoothing, while the gradient comes through the logits alone.
        It is nan where it is not known yet which outputs are heads, so that nothing is left out for its smallness.
        """
        if not self.kept or self.dropped:
            return None
        found = []
        for output in (one for forward in self.kept for one in forward.outputs if one.reached):
            head = self.known.known.get(output.path)
            if output.head is not None and output.head.kind == "sigmoid":  # given by the user, or by the gradient
                head = output.head
            if head is None:
                return torch.full((), math.nan) if not output.apart else None
            if output.path in self.known.upstream and head.kind == "other":
                continue
            if head.kind == "other" or output.size is None or not (head.balanced or head.kind == "sigmoid"):
                return None
            # |sum G.a| <= ||G||_1 max|a| for sigmoids, half as much where rows sum to zero
            found.append(output.size / head.factor * (2.0 if head.kind == "sigmoid" else 1.0))
        if not found:
            return None
        total = found[0] if len(found) == 1 else torch.stack([size.to(found[0]) for size in found]).sum()
        return total / self.loss_scale
