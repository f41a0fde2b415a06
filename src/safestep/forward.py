"""What the model saw since the last step: the forwards whose logits backward reached."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from safestep.logits import LogitsFinder
from safestep.peers import ALONE, Peers
from safestep.pieces import whole
from safestep.rng import GeneratorStates
from safestep.tape import Tape

_REPEATED = {torch.float64: 1e-6, torch.float32: 1e-3}
_REPEATED_ROUGHLY = 0.1
"""Distance, relative to the larger of 1 and the largest logit, up to which a replay's logits are those of training;
the latter for reduced precision."""


@dataclass(eq=False, slots=True)
class Forward:
    """One forward of the model: what is needed to run it again, and what backward told of its logits.

    Nothing of the logits' size is copied.

    Attributes:
        args: positional arguments of the forward, by reference.
        kwargs: keyword arguments, by reference.
        versions: the input tensors with their version counters.
        training: the train/eval flag of every module, in the order of ``model.modules()``.
        buffers: the buffers that a forward changes, as they were before it, by name.
        generators: the random generators as they were before it, so that dropout draws the same masks.
        autocast: the autocast dtype for each device type that had autocast on.
        peaks: the largest logit of each sample, shape ``(*samples,)``, to tell whether a replay repeats the forward.
        stored: whether its backward left gradients in ``.grad``, rather than handing them to the caller; None before
            its backward is over.
        active: which samples have a gradient G = dL/dz, shape ``(*samples,)``; None where it could not be seen.
            Ignored labels and padding have rows of exact zeros.
        imbalance: ``sum_i |sum_k G_ik| / ||G||_1``, 0 for a softmax loss, a 0-d tensor; known in the first
            step, None after it and where G was not seen.
        effort: ``e = ||G||_1 / 2``, a 0-d tensor; None where G was not seen. For mean cross-entropy over labels it is
            ``mean(1 - P_y)``.
        gradient: G itself, by reference, where the radius wants it; else None. Of a forward whose gradients were
            stored by one backward and handed to the caller by another, that of the former.
        logits: the logits themselves, by reference, where the radius wants them and they are small; else None.
        version: the version counter of ``logits``.
        tape: the operations of the forward, where the radius wants them; else None.
        place: the sum of the version counters of the optimizers' parameters, which any write to one of them raises.
        rounded: whether the model itself casts its parameters to a lower precision (``MixedPrecisionPolicy``).
        rank: of the forwards of a step, those with the lowest are kept, see `safestep.evenly.rank`.
        left_out: the number of the round in which it was not kept; negative if it was.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    versions: tuple[tuple[Tensor, int], ...]
    training: tuple[bool, ...]
    buffers: dict[str, Tensor]
    generators: GeneratorStates
    autocast: dict[str, torch.dtype]
    peaks: Tensor
    stored: bool | None = None
    active: Tensor | None = None
    imbalance: Tensor | None = None
    effort: Tensor | None = None
    gradient: Tensor | None = None
    logits: Tensor | None = None
    version: int = 0
    tape: Tape | None = None
    place: int = 0
    rounded: bool = False
    rank: int = 0
    left_out: int = -1

    @property
    def reduced(self) -> bool:
        """Whether it computed in a lower precision than its parameters have."""
        return self.rounded or bool(self.autocast)

    def unlearn(self) -> None:
        """Forget what backward told, once the gradients that it left are gone."""
        self.stored = self.active = self.effort = self.gradient = None
        self.left_out = -1

    def kept_logits(self) -> Tensor | None:
        """Return the logits of the training forward if they were kept and nothing has been written to them since."""
        return self.logits if self.logits is not None and self.logits._version == self.version else None

    def changed_inputs(self) -> bool:
        """Return whether an input tensor was overwritten in place since the forward."""
        return any(tensor._version != version for tensor, version in self.versions)

    def repeated_by(self, logits: Tensor) -> bool:
        """Return whether these logits, of a replay at the same parameters, are those of the recorded forward."""
        peaks = whole(logits.amax(-1))
        if peaks.shape != self.peaks.shape:
            return False
        if not peaks.numel():
            return True
        tolerance = max(_REPEATED.get(t.dtype, _REPEATED_ROUGHLY) for t in (peaks, self.peaks))
        # not (>) and not (<=): where a logit is nan, that the replay differs is not the news
        return not bool((peaks - self.peaks).abs().amax() > tolerance * self.peaks.abs().amax().clamp(min=1.0))


@dataclass(slots=True)
class Seen:
    """The forwards that count for a step, and how to read logits off them.

    A forward counts if and only if backward reached its logits. Discarded, no-grad and evaluation forwards drop out
    by themselves, micro-batches add up.

    Attributes:
        model: the module whose forward was recorded, wrappers included.
        logits: from the output of the model to its logits.
        forwards: the forwards, oldest first.
        dropped: how many other forwards count for the step, but were not kept.
        handed: how many of them handed their gradients to the caller, see `Forward.stored`.
        problem: why a training forward was not recorded, or an empty text.
        place: the sum of version counters where the step began, see `Forward.place`; None where nobody looked.
        loss_scale: what a gradient scaler multiplied the loss by before backward. `Forward.gradient`, `Forward.effort`
            still carry it; parameters' gradients do not.
        searched: whether the model also ran at other parameters during the step (a line search): the gradients stored
            now are of those.
        shared: J p of the forwards, kept for other radii of the same step; None where nobody else will ask.
        peers: the ranks that take this step together, each with forwards of its own.
    """

    model: nn.Module
    logits: LogitsFinder
    forwards: list[Forward] = field(default_factory=list)
    dropped: int = 0
    handed: int = 0
    problem: str = ""
    place: int | None = None
    loss_scale: float = 1.0
    searched: bool = False
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

    def effort(self) -> Tensor | None:
        """Return ``e`` summed over the forwards, a 0-d tensor; None where a forward's gradient was not seen.

        The rows of G sum to zero, so ``|g.p| = |sum G.a| <= e max_i spread(a_i)``: a bound on r without a forward, for
        any reduction, class weights or label smoothing, while the gradient comes through the logits alone.
        """
        efforts = [forward.effort for forward in self.forwards]
        if not efforts or self.dropped:
            return None
        known = [effort for effort in efforts if effort is not None]
        if len(known) < len(efforts):
            return None
        return torch.stack([e.to(known[0]) for e in known]).sum() / self.loss_scale
