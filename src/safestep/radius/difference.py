"""r by a difference of the logits over a small part of the step: forwards without gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from safestep.formulas.softmax_ratio import step_ratio
from safestep.jvp.derivative import Line
from safestep.jvp.replay import Mode, run
from safestep.radius.spreads import Over, Spreads
from safestep.recording.forward import Forward
from safestep.recording.forwards import Forwards

_AIM = 0.004
"""Change of the logits to aim at, as a ratio: 0.013 nats. Where the logits curve most (a transformer at a rate that
would destroy it) a probe of 0.03 reads r too small by up to a half; this one by 4 %."""
_NOISE = 1.6e-5
"""The aim for each nat of the logits' size below which float32's rounding would be more than about 1 % of it."""
_ROUGH_AIM = 0.25
"""The same where rounding is thousands of times larger than float32's: bfloat16, or what only looks like float32."""
_HALF_AIM = 0.06
"""The same for float16, which rounds an eighth as coarsely as bfloat16."""
_PART, _ROUGH_PART, _SAME = 1 / 16, 1 / 4, 0.1
"""A look at this part of the way tells the same r up to this distance, relative to it, unless rounding (or a staircase
of quantised values) makes up more than 1 % of what was seen: that weighs the more, the shorter the look. Where it is
known to be rough, a quarter: rounding that makes up more there leaves r to differentiation."""
_EXACT = (torch.float32, torch.float64)
_SHORTEST, _LONGEST = 1 / 4, 2.0
"""Part of the aim from which, and up to which, an answer is believed."""
INSIDE = 0.25
"""A whole step whose ratio is at most this may be measured where it ends."""
_TRIES = 8
_LEAP = 1e4
_FIRST_GUESS = 8.0
"""How many times the free bound the first step is guessed to be; it is typically a twentieth to a fifth of r."""


@dataclass(frozen=True, slots=True)
class FiniteDifference:
    """Differences of the logits of some recorded forwards, along one step.

    Attributes:
        forwards: the model and how to read its logits.
        parts: the forwards to run again; all of a step's, or a part of their rows.
        mode: train or eval, as in training.
        line: from the start of the step to its proposal.
        every: whether samples without a gradient count too.
        over: which statistic of the samples counts.
        rough: whether the logits are known to be rounder than their type says.
    """

    forwards: Forwards
    parts: list[Forward]
    mode: Mode
    line: Line
    every: bool = False
    over: Over = "max"
    rough: bool = False

    def collector(self) -> Spreads:
        """Return what takes in the rows that move."""
        return Spreads(every=self.every)

    def origins(self, *, again: bool) -> list[list[Tensor]]:
        """Return the heads ``z(theta_0)`` of each forward: those of training where they were kept.

        Args:
            again: run the model again even so, to see whether a replay repeats the training forward.
        """
        return [self._origin(forward, again) for forward in self.parts]

    def _origin(self, forward: Forward, again: bool) -> list[Tensor]:
        known = None if again or self.mode == "eval" else forward.kept_logits()
        if self.forwards.peers.in_step.every(known is not None) and known is not None:
            return known
        return run(self.forwards, forward, self.mode, self.line.start, None)

    def spreads(self, part: float, origins: list[list[Tensor]]) -> Spreads:
        """Return the spreads of ``(z(theta_0 + part p) - z(theta_0)) / part``, in nats.

        In bfloat16 a central difference. At ``part = 1`` the parameters are already where they have to be, and nothing
        is copied.
        """
        moved = {} if part == 1.0 else self.line.at(part)
        spreads = self.collector()
        # So long a look bends: both ways along the step, what bends evenly cancels.
        both = part != 1.0 and self._aim(origins) == _ROUGH_AIM
        back = self.line.at(-part) if both else {}
        for forward, origin in zip(self.parts, origins, strict=True):
            there = run(self.forwards, forward, self.mode, moved, None)
            here = run(self.forwards, forward, self.mode, back, None) if both else origin
            for output, value, moved_value in zip(forward.heads, here, there, strict=True):
                spreads.add_difference(output, value, moved_value, 2 * part if both else part)
        return spreads

    def ratio(self, guess: float, origins: list[list[Tensor]], careless: float) -> float | None:
        """Return r of the step, or None if no difference tells it; see `look`."""
        found = self.look(guess, origins, careless)
        return None if found is None else found[0]

    def look(self, guess: float, origins: list[list[Tensor]], careless: float) -> tuple[float, Spreads] | None:
        r"""Return r of the step with the rows that tell it, or None if no difference does.

        Equation:
            ``r = max spread(z(theta_0 + eps p) - z(theta_0)) / (pi eps)`` with ``eps = 0.004 / guess``, again with the
            r just found while ``eps r`` is not near 0.004. A whole step is not probed: its logits curve and saturate.

        Args:
            guess: about what r is, from earlier steps; nan or 0 if nobody knows.
            origins: the logits at the start.
            careless: the r up to which it is enough to know that the step is no longer; 0 if every r matters. Such a
                step is probed where it ends, which moves nothing.
        """
        aim, careless = self._aim(origins), min(careless, INSIDE)
        part = aim / guess if 0.0 < guess < math.inf else aim
        if guess <= careless and careless > 0.0:
            part = 1.0
        for _ in range(_TRIES):
            ratio, spreads = self._ratio(part, origins)
            change = part * ratio
            if (part == 1.0 and ratio <= careless and careless > 0.0) or aim * _SHORTEST <= change <= aim * _LONGEST:
                return ratio, spreads
            if not math.isfinite(change):
                part /= _LEAP
                continue
            longer = part * (min(aim / change, _LEAP) if change > 0.0 else _LEAP)
            # Shorter than thought: its end comes before anything beyond it.
            part = 1.0 if part < 1.0 < longer and careless > 0.0 else longer
        return None

    def _ratio(self, part: float, origins: list[list[Tensor]]) -> tuple[float, Spreads]:
        """Return r by the difference over a part of the step; where forwards need all ranks, the largest of any."""
        peers, spreads = self.forwards.peers.in_step, self.spreads(part, origins)
        if peers.alone:
            return step_ratio(spreads.statistic(self.over)), spreads
        return step_ratio(peers.largest(0.0 if spreads.empty else spreads.statistic(self.over))), spreads

    def steady(self, ratio: float, origins: list[list[Tensor]]) -> bool:
        """Return whether a shorter look than the one that gave r gives the same: one forward more.

        What looks like float32 may have been computed in less (a cast inside the model, quantised values).
        """
        part = min(1.0, self._aim(origins) / ratio) * (_ROUGH_PART if self.rough else _PART)
        return abs(self._ratio(part, origins)[0] - ratio) <= _SAME * ratio

    def _aim(self, origins: list[list[Tensor]]) -> float:
        return self.forwards.peers.in_step.largest(self._own_aim(origins))

    def _own_aim(self, origins: list[list[Tensor]]) -> float:
        types = {value.dtype for values in origins for value in values if value.dtype not in _EXACT}
        types.update(dtype for forward in self.parts for dtype in forward.autocast.values())
        outputs = [output for forward in self.parts for output in forward.heads]
        rough = self.rough or any(f.rounded for f in self.parts) or (not types and any(o.rough for o in outputs))
        if rough or types:
            return _HALF_AIM if types == {torch.float16} and not rough else _ROUGH_AIM
        max_logits = [
            o.max_logits.abs().amax() for o in outputs if o.max_logits.dtype == torch.float32 and o.max_logits.numel()
        ]
        size = max((largest_logit.item() for largest_logit in max_logits), default=0.0)
        return min(max(_AIM, _NOISE * size), _ROUGH_AIM) if math.isfinite(size) else _ROUGH_AIM


def first_guess(bound: float) -> float:
    """Return about what r is where only the free bound ``|g.p| / (pi e) <= r`` is known."""
    return _FIRST_GUESS * bound
