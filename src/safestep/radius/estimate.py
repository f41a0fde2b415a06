"""r by finite differences on all or some rows, and whether the result can be trusted (`Probing`)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from safestep.formulas.softmax_ratio import step_ratio
from safestep.jvp.derivative import Line
from safestep.jvp.replay import Mode, no_trace
from safestep.radius.difference import INSIDE, FiniteDifference, first_guess
from safestep.radius.spreads import Over
from safestep.radius.subset import largest_of_all, rows_of
from safestep.radius.tiers import Tiers, Track
from safestep.recording.forward import Forward
from safestep.recording.forwards import Forwards
from safestep.recording.proposal import Proposal


class ProbingOptions(Protocol):
    """What a probing radius is given, see `safestep.radius.softmax.SoftmaxRadius`."""

    @property
    def every(self) -> bool: ...  # noqa: D102
    @property
    def mode(self) -> Mode: ...  # noqa: D102
    @property
    def over(self) -> Over: ...  # noqa: D102
    @property
    def tiers(self) -> Tiers: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Probing:
    """One measurement by probes.

    Attributes:
        options: of the radius.
        proposal: the step, not yet rescaled.
        track: what earlier measurements showed.
    """

    options: ProbingOptions
    proposal: Proposal
    track: Track

    @property
    def forwards(self) -> Forwards:
        """The recorded forwards."""
        return self.proposal.forwards

    def measure(self, *, sample: bool) -> tuple[float | None, str, Track]:
        """Return r (None if no probe tells it), by which way, and what was learned of the model.

        Args:
            sample: whether a part of the rows will do if it says that the step is far inside.
        """
        probes = self.track.probes + 1
        track = replace(self.track, probes=probes)
        peers = self.forwards.peers.in_step
        checked = probes & (probes - 1) == 0 or peers.some(any(map(self.forwards.left, self.forwards.kept)))
        with no_trace(self.forwards.model, differentiable=False):
            # Rows are not run alone where a forward needs all ranks: each may have others, or none.
            if sample and self.options.mode == "train" and self.options.over == "max" and peers.alone:
                ratio, samples = self._sampled(checked)
                track = replace(track, samples=samples)
                if ratio is not None:
                    return ratio, "sample", track
            if not track.repeats and not checked:
                return None, "", track
            try:
                ratio, repeats, rough = self._probed(checked)
            except torch.OutOfMemoryError:
                raise
            except Exception:  # a model that does not run again: differentiation names the layer, or finds a way
                ratio, repeats, rough = None, False, track.rough
        if peers.some(ratio is None):
            ratio = None
        return ratio, "probe", replace(track, repeats=repeats, rough=rough)

    def _probed(self, checked: bool) -> tuple[float | None, bool, bool | None]:
        """Return r from all rows, None if no probe tells it, and what was learned.

        That is whether a replay repeats the training forward, and whether its logits are rounder than they look.
        """
        probe, repeats, rough = self._difference(self.forwards.kept), self.track.repeats, self.track.rough
        origins = probe.origins(again=checked)
        if checked and self.options.mode == "train":
            repeats = all(f.repeated_by(origin) for f, origin in zip(self.forwards.kept, origins, strict=True))
            repeats = self.forwards.peers.in_step.every(repeats)
        if not repeats:
            return None, repeats, rough
        ratio = probe.ratio(self._guess(), origins, self._careless())
        if ratio is not None and ratio > self._careless() and (checked or rough is None):
            rough = rough or not probe.steady(ratio, origins)
            if rough:
                coarse = replace(probe, rough=True)
                ratio = coarse.ratio(ratio, origins, self._careless())
                if ratio is None or not coarse.steady(ratio, origins):
                    return None, False, rough  # a staircase, even so
        return ratio, repeats, rough

    def _difference(self, parts: list[Forward]) -> FiniteDifference:
        line = Line.of(self.proposal.step, self.forwards.model)
        options, rough = self.options, bool(self.track.rough)
        return FiniteDifference(self.forwards, parts, options.mode, line, options.every, options.over, rough)

    def _careless(self) -> float:
        return 0.0 if self.proposal.always else self.options.tiers.inside * self.proposal.aim

    def _guess(self) -> float:
        """Return about what r is: the prediction, but never below the free bound."""
        vitals = self.proposal.step.vitals
        bound, expected = self.track.bound(vitals), self.track.expected(vitals.length)
        return first_guess(bound) if math.isnan(expected) else max(bound, expected)

    def _sampled(self, checked: bool) -> tuple[float | None, bool | None]:
        """Return an estimate of r from some rows, if it is far inside, and whether rows can be run alone."""
        known, one_in = self.track.samples, self.options.tiers.rows
        parts = [rows_of(forward, one_in, self.proposal.step.index) for forward in self.forwards.kept]
        forwards = [part for part in parts if part is not None]
        if len(forwards) < len(parts):
            return None, known
        tried = known is None or checked
        probe = self._difference(forwards)
        expected = self.track.expected(self.proposal.step.length)
        try:
            origins = probe.origins(again=tried)
            if tried:
                known = all(part.repeated_by(origin) for part, origin in zip(forwards, origins, strict=True))
            if not known:
                return None, known
            spreads = probe.spreads(min(1.0, INSIDE / expected) if expected > 0.0 else 1.0, origins).counted()
        except torch.OutOfMemoryError:
            raise
        except Exception:  # inputs that only look like rows: the model may raise whatever it likes
            return None, False
        found = step_ratio(largest_of_all(spreads, one_in * spreads.numel()))
        ratio = max(found, self.options.tiers.floor * expected)
        return (ratio if ratio < self.options.tiers.inside * self.proposal.aim else None), known
