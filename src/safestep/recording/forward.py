"""What the model saw since the last step: the forwards whose logits backward reached."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from safestep._torch.rng import GeneratorStates
from safestep._torch.unwrap import bare
from safestep.distributed.consensus import ALONE, Peers
from safestep.heads.labels import labelled_rows
from safestep.heads.model_heads import Heads, Wanted
from safestep.heads.output import Output
from safestep.heads.places import places
from safestep.recording.logits import Reader
from safestep.recording.module_state import Snapshot
from safestep.recording.readout import Readout
from safestep.tape import Tape


@dataclass(frozen=True, slots=True)
class Input:
    """An input tensor of a forward, as it was.

    Attributes:
        tensor: by reference.
        version: its version counter.
        sample: some of its elements; NumPy, and loaders that fill their buffers again, write past the counter.
    """

    tensor: Tensor
    version: int
    sample: Tensor

    @classmethod
    def of(cls, tensor: Tensor) -> Input:
        """Look at a tensor."""
        return cls(tensor, tensor._version, _sample(tensor))

    @property
    def overwritten(self) -> bool:
        """Whether something was written to it since."""
        if self.tensor._version != self.version:
            return True
        now = _sample(self.tensor)
        return not (now.shape == self.sample.shape and bool(((now == self.sample) | (now != now)).all()))


@dataclass(eq=False, slots=True)
class Forward:
    """One forward of the model: what is needed to run it again, and its outputs with what backward told of them.

    Nothing of the logits' size is copied.

    Attributes:
        args: positional arguments of the forward, by reference.
        kwargs: keyword arguments, by reference.
        inputs: the input tensors as they were.
        training: the train/eval flag of every module, in the order of ``model.modules()``.
        buffers: the buffers that a forward changes, as they were before it, by name.
        state: whatever else on the modules a forward changes, as it was before it.
        generators: the random generators as they were before it, so that dropout draws the same masks.
        autocast: the autocast dtype for each device type that had autocast on.
        outputs: its floating-point outputs.
        unrepeatable: the names of what it changed on the modules that nothing can put back.
        stored: whether its backward left gradients in ``.grad``, rather than handing them to the caller; None before
            its backward is over.
        tape: the operations of the forward, where the radius wants them; else None.
        place: the sum of the version counters of the optimizers' parameters, which any write to one of them raises.
        rounded: whether the model itself casts its parameters to a lower precision (``MixedPrecisionPolicy``).
        rank: of the forwards of a step, those with the lowest are kept, see `safestep.recording.subsample.rank`.
        left_out: the number of the round in which it was not kept; negative if it was.
        problem: why it cannot be measured after all; an empty text if it can.
        task: the backward that is passing through it; -1 if none is.
        pending: gradients that it has brought so far.
        ignored: whether it is no forward of the step after all (the module around it returned the logits).
        heads: the outputs that are measured, once that is known.
        guessed: whether it was not seen how the loss reads them, or which samples it is made of, or some are left out.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: tuple[Input, ...]
    training: tuple[bool, ...]
    buffers: dict[str, Tensor]
    state: Snapshot
    generators: GeneratorStates
    autocast: dict[str, torch.dtype]
    outputs: list[Output]
    unrepeatable: tuple[str, ...] = ()
    stored: bool | None = None
    tape: Tape | None = None
    place: int = 0
    rounded: bool = False
    rank: int = 0
    left_out: int = -1
    problem: str = ""
    task: int = -1
    pending: list[tuple[Output, Tensor]] = field(default_factory=list)
    ignored: bool = False
    heads: list[Output] = field(default_factory=list)
    guessed: bool = False

    @property
    def reduced(self) -> bool:
        """Whether it computed in a lower precision than its parameters have."""
        return self.rounded or bool(self.autocast) or any(output.rough for output in self.outputs)

    def unlearn(self) -> None:
        """Forget what backward told, once the gradients that it left are gone."""
        self.stored = None
        for output in self.outputs:
            output.unlearn()
        self.left_out = -1

    def let_go(self) -> None:
        """Drop the tape, and the outputs that it needed."""
        if self.tape is not None:
            self.tape = None
            for output in self.outputs:
                output.value = None if output.taped else output.value

    def kept_logits(self) -> list[Tensor] | None:
        """Return the heads as the training forward made them, if they were kept and nothing was written to them."""
        kept = [output.kept() for output in self.heads]
        known = [value for value in kept if value is not None]
        return known if len(known) == len(kept) else None

    def changed_inputs(self) -> bool:
        """Return whether an input tensor was overwritten in place since the forward."""
        return any(one.overwritten for one in self.inputs)

    def repeated_by(self, values: list[Tensor]) -> bool:
        """Return whether these heads, of a replay at the same parameters, are those of the recorded forward."""
        return all(output.repeated_by(value) for output, value in zip(self.heads, values, strict=True))


_SAMPLED = 1024


def _sample(tensor: Tensor) -> Tensor:
    """Return some elements, spread evenly, as a copy."""
    if tensor.layout is not torch.strided:
        return torch.zeros(0)
    if tensor.numel() <= _SAMPLED:
        return tensor.detach().clone()
    size, stride = torch.Size([_SAMPLED]), tensor.numel() // _SAMPLED
    if tensor.is_contiguous():
        return tensor.detach().view(-1)[: size[0] * stride : stride].clone()
    index = torch.arange(_SAMPLED, device=tensor.device) * stride
    return tensor.detach()[places(index, tensor.shape)]


@dataclass(slots=True)
class Seen:
    """The forwards that count for a step, and how to read logits off them.

    A forward counts if and only if backward reached its logits. Discarded, no-grad and evaluation forwards drop out
    by themselves, micro-batches add up.

    Attributes:
        model: the module whose forward was recorded, wrappers included.
        reader: reads outputs off what the model returns.
        known: what is known of the model's outputs.
        readout: a way to logits for measuring, where the model makes none.
        forwards: the forwards, oldest first.
        dropped: how many other forwards count for the step, but were not kept.
        handed: how many of them handed their gradients to the caller, see `Forward.stored`.
        problem: why a training forward was not recorded, or an empty text.
        place: the sum of version counters where the step began, see `Forward.place`; None where nobody looked.
        loss_scale: what a gradient scaler multiplied the loss by before backward. `Output.gradient` and `effort`
            still carry it; parameters' gradients do not.
        resolved: whether it is known which outputs are heads.
        searched: whether the model also ran at other parameters during the step (a line search): the gradients stored
            now are of those.
        shared: J p of the forwards, kept for other radii of the same step; None where nobody else will ask.
        peers: the ranks that take this step together, each with forwards of its own.
    """

    model: nn.Module
    reader: Reader
    known: Heads
    readout: Readout | None = None
    forwards: list[Forward] = field(default_factory=list)
    dropped: int = 0
    handed: int = 0
    problem: str = ""
    place: int | None = None
    loss_scale: float = 1.0
    searched: bool = False
    resolved: bool = False
    shared: dict[Any, Any] | None = None
    peers: Peers = ALONE

    @property
    def count(self) -> int:
        """How many forwards count for the step, whether they were kept or not."""
        return len(self.forwards) + self.dropped

    @property
    def parts(self) -> str:
        """How many of the forwards were kept, for a record; an empty text if all."""
        return f"r of {len(self.forwards)} of {self.count} micro-batches" if self.dropped else ""

    def left(self, forward: Forward) -> bool:
        """Return whether parameters were written to between a forward and the step, which may begin elsewhere then."""
        return self.place is not None and forward.place != self.place

    def resolve(self, wanted: Wanted) -> None:
        """Find the heads of every forward, by what the gradients told.

        Raises:
            LossMismatchError: if the loss is not one that the radius can measure.
        """
        for forward in self.forwards:
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

    def effort(self) -> Tensor | None:
        """Return ``e`` summed over the heads of all forwards, a 0-d tensor; None where a gradient was not seen.

        The rows of G sum to zero, so ``|g.p| = |sum G.a| <= e max_i spread(a_i)``: a bound on r without a forward, for
        any reduction, class weights or label smoothing, while the gradient comes through the logits alone.
        It is nan where it is not known yet which outputs are heads, so that nothing is left out for its smallness.
        """
        if not self.forwards or self.dropped:
            return None
        found = []
        for output in (one for forward in self.forwards for one in forward.outputs if one.reached):
            head = self.known.known.get(output.path)
            if output.head is not None and output.head.kind == "sigmoid":  # told by the user, or by the gradient
                head = output.head
            if head is None:
                return torch.full((), math.nan) if not output.apart else None
            if output.path in self.known.upstream and head.kind == "other":
                continue
            if head.kind == "other" or output.size is None or not (head.balanced or head.kind == "sigmoid"):
                return None
            # |sum G.a| <= ||G||_1 max|a| for sigmoids, half as much where rows sum to zero
            found.append(output.size / head.factor * (2.0 if head.kind == "sigmoid" else 1.0))
        return torch.stack([size.to(found[0]) for size in found]).sum() / self.loss_scale if found else None
