"""The step: keeps theta_0, gives the displacement p and its length, and writes theta_0 + s p."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from safestep.distributed.consensus import ALONE, Peers
from safestep.distributed.dtensor import any_sharded, counts_here, laid_alike, mapped, piece
from safestep.recording.norms import ONE_BY_ONE, Scratch, magnitude

Parameters = dict[Tensor, Tensor]
"""A tensor for each parameter, keyed by the parameter object itself."""

_LARGEST_LERP_WEIGHT = 1e30
"""Above this a weight may overflow in float32, the arithmetic type of ``lerp``."""


@dataclass(frozen=True, slots=True)
class Vitals:
    """What can be read off a step without a forward.

    Attributes:
        length: ``tau = ||p||_2`` over all parameters, in units of the parameters; nan or inf where ``p`` is.
        directional_derivative: ``g.p``, the change of the loss to first order; None where it was not asked for or
            cannot be had.
        half_l1_logit_grad: ``e``, see `safestep.recording.forwards.Forwards.half_l1_logit_grad`; None likewise.
        last_product: ``g.q``, the slope along the step ``q`` before this one, as it was applied, that this step's
            gradients tell; nan where nobody looked back.
    """

    length: float
    directional_derivative: float | None = None
    half_l1_logit_grad: float | None = None
    last_product: float = math.nan


class Step:
    """One step of one or several optimizers: where it started, what it proposes, and where it is put.

    Equation:
        ``p = theta_after - theta_before`` of all parameters, whatever optimizer made it; `rescale` writes
        ``theta_before + s p``.

    Args:
        index: number of the step, from 0.
        previous: the step before it, whose memory this one takes over; that step must not be used any more.

    Attributes:
        start: the parameters before the step, one detached copy each. Valid until the next step begins.
        peers: the ranks that take this step together; each holds all of ``p``, or a piece of it.
        scale: by what the step was multiplied.
        behind: ``g.q`` along the last step, 0-d tensors of each optimizer; empty where nobody looked back.
        last: number of the last step, and by what it was multiplied, where somebody looked back.
    """

    def __init__(self, index: int, previous: Step | None = None, peers: Peers = ALONE) -> None:
        self.index, self.peers = index, peers
        self.start: Parameters = {}
        self._spare: Parameters = previous.start if previous else {}
        self._scratch: Scratch = previous._scratch if previous else {}
        self._vitals: Vitals | None = None
        self.scale, self.last = 1.0, (-1, math.nan)
        self.behind: dict[int, Tensor] = {}

    @torch.no_grad()
    def remember(self, parameters: Iterable[Tensor]) -> None:
        """Copy parameters that may move; those already remembered in this step keep their start.

        A frozen parameter without a gradient stays where it is under any optimizer, and needs no copy.
        """
        known: Parameters = {}
        for parameter in parameters:
            if parameter in self.start or not (parameter.requires_grad or parameter.grad is not None):
                continue
            memory = self._spare.pop(parameter, None)
            if memory is not None and _alike(memory, parameter):
                self.start[parameter] = known[parameter] = memory
            else:
                self.start[parameter] = parameter.detach().clone()
        if known:
            torch._foreach_copy_([*map(piece, known.values())], [*map(piece, known)])

    def forget(self, parameters: Iterable[Tensor]) -> None:
        """Drop the copies of parameters, after a step that failed half way."""
        for parameter in parameters:
            self.start.pop(parameter, None)

    def read(
        self, *, directional_derivative: bool = False, half_l1_logit_grad: Tensor | None = None, agree: bool = False
    ) -> Vitals:
        """Read from the device, in one piece, how long the step is and what else is asked for.

        Args:
            directional_derivative: whether ``g.p`` is wanted.
            half_l1_logit_grad: a 0-d tensor to read along with it, see
                `safestep.recording.forwards.Forwards.half_l1_logit_grad`.
            agree: whether it is asked for on every rank, to decide by it; ``e`` is then the mean over the ranks. Where
                the ranks hold pieces of the parameters they always ask.
        """
        if not self.peers.alone and (agree or self.peers.lockstep):
            self._vitals = self._agreed(
                directional_derivative=directional_derivative, half_l1_logit_grad=half_l1_logit_grad
            )
            return self._vitals
        known = self._vitals or Vitals(math.nan)
        square, product = self.sums(directional_derivative=directional_derivative)
        last = torch.stack([number.to(square) for number in self.behind.values()]).sum() if self.behind else None
        asked = [number for number in (square, product, half_l1_logit_grad, last) if number is not None]
        values = iter(torch.stack([number.to(square) for number in asked]).tolist())
        self._vitals = Vitals(
            self._checked(math.sqrt(next(values))),
            known.directional_derivative
            if product is None
            else next(values),  # what another radius has asked for stays
            known.half_l1_logit_grad if half_l1_logit_grad is None else next(values),
            math.nan if last is None else next(values),
        )
        return self._vitals

    def _agreed(self, *, directional_derivative: bool, half_l1_logit_grad: Tensor | None) -> Vitals:
        """Add up over the ranks what each holds, everything once, in one reduction and one read-back."""
        known = self._vitals or Vitals(math.nan)
        here = {q: start for q, start in self.start.items() if self._counts(q)}
        square, product = self._sums(here, directional_derivative=directional_derivative)
        copies, _ = self._sums(
            {q: start for q, start in self.start.items() if q not in here}, directional_derivative=False
        )
        nothing = torch.zeros_like(square)
        # in float32 a sum of squares may overflow: what looks infinite on some rank is looked at again on all
        odd = torch.isfinite(square + copies.to(square)).logical_not()
        numbers = [
            torch.where(odd, nothing, square),
            odd,
            nothing if product is None else product,
            nothing + (product is None),
            nothing if half_l1_logit_grad is None else half_l1_logit_grad,
            nothing + (half_l1_logit_grad is None),
            torch.where(odd, nothing, square + copies.to(square)),
        ]
        found = self.peers.sums(torch.stack([number.to(square) for number in numbers]))
        if not any_sharded(self.start) and not found[1]:  # all hold the same: a mean tells whether they do
            lengths = math.sqrt(found[0]), math.sqrt(found[6] / self.peers.count)
            self.peers.check_lengths(min(lengths), max(lengths))
        return Vitals(
            self._checked(math.inf if found[1] else math.sqrt(found[0]), agree=True),
            known.directional_derivative if not directional_derivative or found[3] else found[2],
            known.half_l1_logit_grad if found[5] == self.peers.count else found[4] / self.peers.count,
            known.last_product,
        )

    def _counts(self, parameter: Tensor) -> bool:
        return counts_here(parameter, self.peers.first, self.peers.root)

    def sums(self, *, directional_derivative: bool) -> tuple[Tensor, Tensor | None]:
        """Return ``||p||^2`` and ``g.p`` of what this rank holds, see `safestep.recording.norms.magnitude`."""
        return self._sums(self.start, directional_derivative=directional_derivative)

    def _sums(self, start: Parameters, *, directional_derivative: bool) -> tuple[Tensor, Tensor | None]:
        if not any(piece(parameter).numel() for parameter in start):  # all pieces here may be empty
            return torch.zeros((), dtype=torch.float64), torch.zeros(
                (), dtype=torch.float64
            ) if directional_derivative else None
        if not any_sharded(start):
            return magnitude(start, self._scratch, directional_derivative=directional_derivative)
        owners = {piece(parameter): parameter for parameter in start}
        return magnitude(
            {local: piece(start[parameter]) for local, parameter in owners.items()},
            self._scratch,
            directional_derivative=directional_derivative,
            gradients=lambda local: None if (g := owners[local].grad) is None else piece(g),
        )

    @property
    def vitals(self) -> Vitals:
        """What `read` read; only the length if nobody looked before."""
        return self._vitals or self.read()

    @property
    def known_length(self) -> float:
        """``length`` where it was read already, else nan."""
        return math.nan if self._vitals is None else self._vitals.length

    @property
    def length(self) -> float:
        """``tau = ||p||_2`` over all parameters, in units of the parameters; nan or inf where ``p`` is."""
        return self.vitals.length

    def _checked(self, length: float, *, agree: bool = False) -> float:
        if 0.0 < length < math.inf:
            return length
        # A float32 sum of squares overflows above 1e19 and underflows below 1e-23: look again in float64.
        lengths = [(_length(q, start), not agree or self._counts(q)) for q, start in self.start.items()]
        if not agree:
            return math.hypot(*(length for length, _ in lengths))
        largest = self.peers.largest(math.hypot(*(length for length, _ in lengths)))
        if not 0.0 < largest < math.inf:
            return largest
        own = math.hypot(*(length for length, counts in lengths if counts)) / largest
        return largest * math.sqrt(self.peers.sums([own * own])[0])

    @cached_property
    def displacement(self) -> Parameters:
        """``p``, one tensor for each parameter; evaluated once, before anything is rescaled."""
        with torch.no_grad():
            moved = [parameter.detach() for parameter in self.start]
            if any_sharded(moved):
                difference = [mapped(torch.sub, *pair) for pair in zip(moved, self.start.values(), strict=True)]
            else:
                difference = list(torch._foreach_sub(moved, list(self.start.values()))) if moved else []
        return dict(zip(self.start, difference, strict=True))

    def applied(self) -> Step:
        """Return the step as the parameters stand now, after `rescale`; it shares this one's start."""
        step = Step(self.index, peers=self.peers)
        step.start = self.start
        return step

    @torch.no_grad()
    def rescale(self, scale: float) -> None:
        """Put the parameters at ``theta_before + scale * p``, the same scale for all of them.

        Args:
            scale: ``s >= 0``, finite. At 1 nothing is written, so that the step stays bit for bit what it was.

        Raises:
            ValueError: if ``scale`` is negative or not finite.
        """
        if not (math.isfinite(scale) and scale >= 0.0):
            raise ValueError(f"the scale of a step must be finite and not negative, saw {scale}")
        self.scale = scale
        if scale == 1.0 or not self.start:
            return
        moved, start = list(self.start), list(self.start.values())
        if any_sharded(moved):
            moved, start = [*map(piece, moved)], [*map(piece, start)]
        if scale == 0.0:  # lerp would turn an infinite end point into nan
            torch._foreach_copy_(moved, start)
        elif scale < _LARGEST_LERP_WEIGHT:
            # From the saved start, never by subtraction from the end, which cancels after a large step.
            if _apart(moved):  # in place: no memory to be had first
                for parameter, origin in zip(moved, start, strict=True):
                    torch.lerp(origin, parameter.detach(), scale, out=parameter.detach())
            else:
                torch._foreach_copy_(moved, torch._foreach_lerp(start, moved, scale))
        else:
            for parameter, origin in zip(moved, start, strict=True):
                parameter.copy_(origin.double() + scale * (parameter.detach() - origin).double())

    @torch.no_grad()
    def rescale_unread(self, scale: Tensor) -> None:
        """Put the parameters at ``theta_before + scale * p`` for a scale that only the device knows.

        Args:
            scale: a 0-d tensor; at 1 every bit stays, at 0 the parameters go back even if ``p`` is not finite.
        """
        self.scale = math.nan
        for parameter, start in self.start.items():
            moved, origin = piece(parameter), piece(start)
            weight = scale.to(origin.device, origin.dtype)
            there = torch.where(weight == 1, moved, torch.lerp(origin, moved, weight))
            torch.where(weight > 0, there, origin, out=moved)

    def undo(self) -> None:
        """Put the parameters back where the step started."""
        self.rescale(0.0)


def _apart(parameters: list[Tensor]) -> bool:
    """Return whether these are on a CPU, and no two share memory, which would be scaled twice."""
    if not all(parameter.device.type in ONE_BY_ONE for parameter in parameters):
        return False
    return len({parameter.untyped_storage().data_ptr() for parameter in parameters}) == len(parameters)


def _alike(memory: Tensor, parameter: Tensor) -> bool:
    return (
        memory.shape == parameter.shape
        and memory.dtype == parameter.dtype
        and memory.device == parameter.device
        and memory.stride() == parameter.stride()
        and laid_alike(memory, parameter)
    )


def _length(parameter: Tensor, start: Tensor) -> float:
    difference = piece(parameter) - piece(start)
    real = torch.view_as_real(difference) if difference.is_complex() else difference
    length: float = torch.linalg.vector_norm(real, dtype=torch.float64).item()
    return length
