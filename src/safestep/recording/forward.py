"""One forward of the model: what is needed to run it again, and its outputs with what backward said of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from safestep._torch.rng import GeneratorStates
from safestep.heads.output import Output
from safestep.heads.places import places
from safestep.recording.module_state import Snapshot
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
        return cls(tensor, tensor._version, _sampled(tensor).clone())

    @property
    def overwritten(self) -> bool:
        """Whether something was written to it since."""
        if self.tensor._version != self.version:
            return True
        now = _sampled(self.tensor)
        if torch.equal(now, self.sample):
            return False
        return not (now.shape == self.sample.shape and bool(((now == self.sample) | (now != now)).all()))  # nan


@dataclass(eq=False, slots=True)
class Forward:
    """One forward of the model: what is needed to run it again, and its outputs with what backward showed of them.

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
        """Forget what backward showed, once the gradients that it left are gone."""
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


def _sampled(tensor: Tensor) -> Tensor:
    """Return some elements, spread evenly, as a view where that can be."""
    if tensor.layout is not torch.strided:
        return torch.zeros(0)
    if tensor.numel() <= _SAMPLED:
        return tensor.detach()
    size, stride = torch.Size([_SAMPLED]), tensor.numel() // _SAMPLED
    if tensor.is_contiguous():
        return tensor.detach().view(-1)[: size[0] * stride : stride]
    index = torch.arange(_SAMPLED, device=tensor.device) * stride
    return tensor.detach()[places(index, tensor.shape)]
