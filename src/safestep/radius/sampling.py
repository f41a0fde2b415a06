"""One measurement on a sample of the rows: what was learned of running them alone, and what they say of the step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from safestep.formulas.sampling import Estimate
from safestep.heads.output import Output
from safestep.jvp.derivative import Line
from safestep.jvp.replay import Mode, no_trace, run
from safestep.radius.difference import INSIDE, FiniteDifference
from safestep.radius.moved_rows import MovedRows
from safestep.radius.row_sample import Going, RowSample, Sample, drawn, mixes
from safestep.recording.forward import Forward
from safestep.recording.proposal import Proposal

_KEPT = 3
_MARGIN, _EVERY = 2.0, 8
_ALIKE, _ROUGHLY = 1e-3, 0.1
_HALF = 0.5
"""Part of the target up to which a step is probed where it ends: its logits curve, but it is not near the limit."""


@dataclass(frozen=True, slots=True)
class RowTrack:
    """What earlier measurements showed.

    Attributes:
        rates: the last three of (largest spread / pi) / ``||p||``, which tell how far to probe.
        ratio_rate: the last ``r / ||p||`` of the radius that asks; nan before the first.
        looks: how many steps were measured. At every power of two it is looked at anew how rows go.
        going: how they do; None where nobody has looked.
        repeats: whether a replay of the batch repeats the training forward; if not, r is measured by differentiation.
        rough: whether logits that look like float32 were computed in less.
        bends: the last three of ``p.Gp / ||p||^2``, where the radius that asks wants to know.
        age: steps since r was last measured.
    """

    rates: tuple[float, ...] = ()
    ratio_rate: float = math.nan
    looks: int = 0
    going: Going | None = None
    repeats: bool = True
    rough: bool | None = None
    bends: tuple[float, ...] = ()
    age: int = 0

    def measured(self, length: float, ratio: float, bend: float = math.nan) -> RowTrack:
        """Return the track after a measurement of a step of some length: what later ones are predicted by."""
        if not (length > 0.0 and math.isfinite(ratio)):
            return replace(self, age=0)
        bends = self.bends if math.isnan(bend) else (*self.bends, bend / length**2)[-_KEPT:]
        return replace(self, ratio_rate=ratio / length, bends=bends, age=0)

    def quiet(self, predicted: float, proposal: Proposal) -> bool:
        """Return whether a step is so far inside that it need not be measured.

        Nobody measures a step of which twice the predicted r is inside the target, up to seven steps in a row. A policy
        that scales every step wants to know r, and on several ranks some might measure and others not.
        """
        wanted = proposal.always or math.isnan(proposal.target) or not proposal.forwards.peers.alone
        return not wanted and self.age + 1 < _EVERY and _MARGIN * predicted < proposal.target

    def as_state(self) -> dict[str, Any]:
        """Return plain data, for a checkpoint."""
        lists = {"rates": list(self.rates), "bends": list(self.bends)}
        return {field.name: getattr(self, field.name) for field in fields(self)} | lists

    @classmethod
    def from_state(cls, state: dict[str, Any] | None) -> RowTrack:
        """Return the track of a checkpoint; None is the untried one."""
        if state is None:
            return cls()
        return cls(**state | {"rates": tuple(state["rates"]), "bends": tuple(state.get("bends", ()))})


@dataclass(frozen=True, slots=True)
class Found:
    """What some rows say of a step.

    Attributes:
        moved: their entries.
        sample: the rows.
    """

    moved: MovedRows
    sample: RowSample

    @property
    def way(self) -> str:
        """How it was measured, for the record."""
        return "probe" if self.sample.share == 1.0 else f"{self.sample.share:.2g} of the rows"

    def bend(self, factor: Callable[[Output], float] = lambda _: 1.0) -> Estimate:
        """Return the mean bend in squared nats, that of each head multiplied by a factor."""
        return self.moved.mean(self.moved.bends, self.sample.parts, self.sample.share, factor)

    def spread(self) -> Estimate:
        """Return the mean spread, in nats."""
        return self.moved.mean(self.moved.values, self.sample.parts, self.sample.share)


@dataclass(frozen=True, slots=True)
class _RowDifference(FiniteDifference):
    def collector(self) -> MovedRows:
        return MovedRows(every=self.every)


def already(proposal: Proposal, sample: Sample, track: RowTrack, *, mode: Mode = "train", every: bool = False) -> bool:
    """Return whether another radius has run these rows along this step, so that `sampled` costs nothing."""
    _, _, nearly = (proposal.forwards.shared or {}).get(_key(sample, mode, every), (None, None, None))
    return nearly is not None and (_near(track, proposal) or not nearly)


def _key(sample: Sample, mode: Mode, every: bool) -> tuple[str, Sample, Mode, bool]:
    return "rows", sample, mode, every


def _near(track: RowTrack, proposal: Proposal) -> bool:
    return not proposal.always and track.ratio_rate * proposal.step.length <= _HALF * proposal.aim


def sampled(
    proposal: Proposal, sample: Sample, track: RowTrack, *, mode: Mode = "train", every: bool = False
) -> tuple[Found | None, RowTrack]:
    """Run some rows again a little along the step; return what they say, None if no probe tells, and what was learned.

    Args:
        proposal: the step, not yet rescaled, and its forwards, whose heads are known.
        sample: how much of the batch.
        track: what earlier measurements showed.
        mode: train or eval.
        every: whether entries without a gradient count too.
    """
    shared, key, near = proposal.forwards.shared, _key(sample, mode, every), _near(track, proposal)
    if shared is not None and already(proposal, sample, track, mode=mode, every=every):
        found, later, _ = shared[key]
        own = {"ratio_rate": track.ratio_rate, "bends": track.bends, "age": track.age}
        return found, replace(later, **own)
    with no_trace(proposal.forwards.model, differentiable=False):
        try:
            found, later = _Sampling(proposal, sample, track, mode, every, near).measure()
        except torch.OutOfMemoryError:
            raise
        except Exception:  # a model that does not run again: differentiation names the layer, or finds a way
            found, later = None, replace(track, looks=track.looks + 1, repeats=False)
    if proposal.forwards.peers.in_step.some(found is None):
        found = None
    if shared is not None:
        shared[key] = found, later, near
    return found, later


@dataclass(frozen=True, slots=True)
class _Sampling:
    proposal: Proposal
    sample: Sample
    track: RowTrack
    mode: Mode
    every: bool
    near: bool

    def measure(self) -> tuple[Found | None, RowTrack]:
        forwards, step = self.proposal.forwards, self.proposal.step
        looks = self.track.looks + 1
        track = replace(self.track, looks=looks)
        rows = drawn(forwards, self.sample, step.index)
        few = forwards.peers.in_step.every(rows.share < 1.0)
        checked = looks & (looks - 1) == 0 or (few and self.track.going is None)
        if few and checked:
            track = replace(track, going=self._going(rows))
        if not few or track.going == "together":
            rows = RowSample(forwards.kept)
        whole = rows.share == 1.0
        if whole and not (track.repeats or checked):
            return None, track
        probe = self._difference(rows.parts)
        origins = probe.origins(again=checked or track.going == "drawn")
        if whole and checked and self.mode == "train":
            repeats = all(f.repeated_by(origin) for f, origin in zip(rows.parts, origins, strict=True))
            track = replace(track, repeats=forwards.peers.in_step.every(repeats))
            if not track.repeats:
                return None, track
        careless, guess = (INSIDE if self.near else 0.0), self._guess()
        look = probe.look(guess, origins, careless)
        if look is not None and look[0] > careless and (checked or track.rough is None):
            track = replace(track, rough=track.rough or not probe.steady(look[0], origins))
            if track.rough:
                probe = replace(probe, rough=True)
                look = probe.look(look[0], origins, careless)
                if look is not None and not probe.steady(look[0], origins):
                    look = None  # a staircase, even so
        if look is None or not isinstance(look[1], MovedRows):
            return None, track
        if step.length > 0.0:
            track = replace(track, rates=(*track.rates, look[0] / step.length)[-_KEPT:])
        return Found(look[1], rows), track

    def _difference(self, parts: list[Forward]) -> _RowDifference:
        line = Line.of(self.proposal.step, self.proposal.forwards.model)
        return _RowDifference(self.proposal.forwards, parts, self.mode, line, self.every, rough=bool(self.track.rough))

    def _guess(self) -> float:
        return max(self.track.rates) * self.proposal.step.length if self.track.rates else math.nan

    def _going(self, rows: RowSample) -> Going:
        """Look how the rows go: whether a part of the batch repeats what the whole of it did."""
        forwards, peers = self.proposal.forwards, self.proposal.forwards.peers.in_step
        start = Line.of(self.proposal.step, forwards.model).start
        try:
            apart = not mixes(forwards, self.mode)
            alone = apart and self.mode == "train" and self._as_in_training(rows, start)
            # where forwards need all ranks, each would have to run as many
            apart = alone or (peers.alone and apart and self._as_together(rows, start))
        except torch.OutOfMemoryError:
            raise
        except Exception:  # inputs that only look like rows: the model may raise whatever it likes
            alone = apart = False
        if peers.every(alone):
            return "alone"
        return "drawn" if peers.every(apart) else "together"

    def _as_in_training(self, rows: RowSample, start: dict[str, Tensor]) -> bool:
        forwards = self.proposal.forwards
        found = [part.repeated_by(run(forwards, part, "train", start, None)) for part in rows.parts]
        return all(found)  # after all have run, since other ranks run as many

    def _as_together(self, rows: RowSample, start: dict[str, Tensor]) -> bool:
        """Return whether, without random masks, rows alone have the logits that they have among the others."""
        forwards = self.proposal.forwards
        for part, (forward, cut) in zip(rows.parts, rows.cuts, strict=True):
            alone, among = (run(forwards, one, "eval", start, None) for one in (part, forward))
            if not all(_alike(one, other[cut]) for one, other in zip(alone, among, strict=True)):
                return False
        return True


def _alike(one: Tensor, other: Tensor) -> bool:
    """Return whether these are the same logits up to rounding; a masked class is one in both."""
    if one.shape != other.shape:
        return False
    exact = one.dtype in (torch.float32, torch.float64)
    return torch.allclose(one, other, rtol=_ALIKE if exact else _ROUGHLY, atol=_ALIKE if exact else _ROUGHLY)
