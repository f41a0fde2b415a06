"""The directional derivative J p of recorded logits: by forward-mode differentiation, or by central differences."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from safestep._torch.unwrap import bare
from safestep.distributed.dtensor import any_sharded, is_sharded, mapped, piece, whole
from safestep.distributed.fsdp import reshard, units_of
from safestep.errors import MeasurementError, TapeError
from safestep.jvp.replay import Mode, run, without_autocast
from safestep.recording.forward import Forward
from safestep.recording.forwards import Forwards
from safestep.recording.step import Step

_AIM = {torch.float64: 1e-5, torch.float32: 3e-2}
"""Change of the logits (nats) that a difference aims at: truncation grows with its square, rounding falls with it."""
_TRIES = 12
_LEAP = 1e6

Derivative = tuple[list[Tensor], list[Tensor]]
"""Each head ``z`` of a forward at the start of the step, and its derivative ``J p``, as the model returns them."""


@dataclass(frozen=True, slots=True)
class Line:
    """The straight line ``theta_0 + t p / unit`` in the parameters of one model, by name.

    Attributes:
        start: ``theta_0``.
        end: ``theta_0 + p``, the parameters as they stand.
        unit: divides the direction.
    """

    start: dict[str, Tensor]
    end: dict[str, Tensor]
    unit: float = 1.0

    @classmethod
    def of(cls, step: Step, model: nn.Module, unit: float = 1.0) -> Line:
        """Return the line of a step, before it is rescaled; parameters outside the model are left out."""
        reshard(bare(model))
        names: dict[Tensor, str] = {parameter: name for name, parameter in bare(model).named_parameters()}
        start = {names[q]: tensor for q, tensor in step.start.items() if q in names}
        return cls(start, {names[q]: q.detach() for q in step.start if q in names}, unit)

    def direction(self, name: str) -> Tensor:
        """Return ``p / unit`` of one parameter, a fresh tensor."""
        difference = mapped(torch.sub, self.end[name], self.start[name])
        return difference if self.unit == 1.0 else mapped(partial(torch.div, other=self.unit), difference)

    def directions(self) -> dict[str, Tensor]:
        """Return ``p / unit`` of every parameter."""
        return {name: self.direction(name) for name in self.start}

    def at(self, t: float) -> dict[str, Tensor]:
        """Return ``theta_0 + t p``, fresh tensors; the unit has no part in it."""
        return {name: _between(start, self.end[name], t) for name, start in self.start.items()}


def _between(start: Tensor, end: Tensor, t: float) -> Tensor:
    if is_sharded(start):
        return mapped(partial(torch.lerp, weight=t), start, end)
    # Into memory of the very same layout, which a plain lerp would choose anew: dropout draws along the layout.
    memory = torch.empty_strided(start.shape, start.stride(), dtype=start.dtype, device=start.device)
    return torch.lerp(start, end, t, out=memory)


def _moved(origin: Tensor, direction: Tensor, t: float) -> Tensor:
    if is_sharded(origin):
        return mapped(partial(torch.add, alpha=t), origin, direction)
    return origin.clone().add_(direction, alpha=t)


def recorded(forwards: Forwards, forward: Forward, line: Line) -> Derivative:
    """Return the logits ``z`` and ``J p`` from what the training forward computed, without running it again.

    About two forwards of work, exact up to rounding, by the kernels that training used.

    Raises:
        TapeError: if an operation has no derivative here, or a value it needs has been overwritten.
    """
    names: dict[Tensor, str] = {parameter: name for name, parameter in bare(forwards.model).named_parameters()}
    start = {parameter: line.start[name] for parameter, name in names.items() if name in line.start}
    value = forward.kept_logits()
    if forward.tape is None or value is None:
        raise TapeError("the forward was not recorded, or its logits have been overwritten since")
    if forwards.left(forward) and not forward.repeated_by(run(forwards, forward, "train", line.start, None)):
        raise TapeError("the parameters were changed between the forward and the step")
    with without_autocast(value[0].device.type):  # what was cast in the forward is on the tape
        places = [
            index for index, output in enumerate(forward.outputs) if any(output is head for head in forward.heads)
        ]
        return value, forward.tape.tangents(start, lambda parameter: line.direction(names[parameter]), places)


def forward_mode(forwards: Forwards, forward: Forward, mode: Mode, line: Line) -> Derivative:
    """Return the logits ``z`` and ``J p`` at the start of the line, exactly (up to rounding).

    Dual numbers through one forward: about three forwards of work. Not `torch.func.jvp`, whose wrapped tensors lose
    the memory layout of a view, along which dropout draws its mask. Layers without a forward derivative raise; a
    tangent can be lost in silence, which is why a guard checks what it measures against a difference.
    """
    if any_sharded(line.start.values()) and not units_of(bare(forwards.model)):
        raise MeasurementError("torch cannot differentiate DTensors forward")
    with forward_ad.dual_level():
        duals = map(forward_ad.unpack_dual, run(forwards, forward, mode, line.start, None, line.directions()))
        pairs = [(value, torch.zeros_like(value) if tangent is None else tangent) for value, tangent in duals]
    return [value for value, _ in pairs], [tangent for _, tangent in pairs]


def central_difference(forwards: Forwards, forward: Forward, mode: Mode, line: Line, dtype: torch.dtype) -> Derivative:
    """Return the logits ``z`` and ``(z(theta_0 + eps p) - z(theta_0 - eps p)) / (2 eps)``.

    Works wherever the model runs. ``eps`` is chosen so that the logits change by 1e-5 in float64 (relative error
    near 1e-9) or 0.03 in float32 (near 1e-3), whatever the length of ``p``.

    Raises:
        MeasurementError: if no ``eps`` changes the logits by about as much, though some change them.
    """
    start = {name: tensor.to(dtype) for name, tensor in line.start.items()}
    direction = {name: tensor.to(dtype) for name, tensor in line.directions().items()}

    def logits(t: float) -> list[Tensor]:
        # Added to a clone, which keeps its memory layout: dropout draws along the layout.
        tensors = {name: _moved(origin, direction[name], t) for name, origin in start.items()}
        return run(forwards, forward, mode, tensors, dtype)

    def size_of(changes: list[Tensor]) -> float:
        # nan: a class masked by a logit of -inf
        sizes = [whole(change.nan_to_num(nan=0.0).abs().amax()).item() for change in changes if change.numel()]
        return peers.largest(max(sizes, default=0.0))

    value = logits(0.0)
    zero = [torch.zeros_like(one) for one in value]
    peers, pieces = forwards.peers.in_step, map(piece, direction.values())
    longest = peers.largest(max((d.abs().amax().item() for d in pieces if d.numel()), default=0.0))
    if longest == 0.0 or (not any(one.numel() for one in value) and forwards.peers.in_step.alone):
        return value, zero
    aim = _AIM[dtype]
    eps = aim / longest
    for _ in range(_TRIES):
        changes = [(there - here) / 2 for there, here in zip(logits(eps), logits(-eps), strict=True)]
        size = size_of(changes)
        if aim / 10 <= size <= aim * 10:
            return value, [change / eps for change in changes]
        eps *= min(max(aim / size, 1 / _LEAP), _LEAP) if size > 0.0 else _LEAP
    if size > 0.0:
        raise MeasurementError(
            f"the logits do not follow the parameters smoothly: no move along the step changes them by about {aim:g} "
            "(a coarser type inside the model, or a random source of its own)"
        )
    return value, zero
