"""The softmax radius: r = spread(J p) / pi, the largest over the samples of the step's batch."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, get_args

import torch

from safestep.errors import LossMismatchError
from safestep.formulas.softmax_ratio import Head, step_ratio
from safestep.jvp.replay import Mode
from safestep.jvp.selection import Route, as_state, from_state
from safestep.jvp.tangents import Tangents, check_forwards, check_recorded, say_doubts_of_heads
from safestep.radius.across_ranks import averaged, largest
from safestep.radius.deferred import Prediction, Resolved
from safestep.radius.estimate import Probing
from safestep.radius.radius import Needs, Radius, State
from safestep.radius.row_sample import Sample, check_sample
from safestep.radius.sampling import RowTrack, already, sampled
from safestep.radius.spreads import Over, Spreads
from safestep.radius.tiers import Tier, Tiers, Track
from safestep.recording.forwards import Forwards
from safestep.recording.proposal import Proposal
from safestep.recording.step import Step, Vitals
from safestep.records.reading import Reading

Method = Literal["tiered", "probe", "exact"]
Sync = Literal["auto", "never"]
Rows = Literal["trained", "all"]


@dataclass(frozen=True, kw_only=True)
class SoftmaxRadius(Radius):
    r"""Limits the spread of a step's effect on the logits.

    Equation:
        ``r = max_i spread(J_i p) / pi``, or the mean, over the samples ``i`` that have a gradient, with ``J_i`` the
        Jacobian of the logits of sample ``i`` in the parameters and ``p`` the displacement of the whole step: momentum,
        preconditioning and weight decay included. ``spread`` is `safestep.formulas.softmax_ratio.spread`.

    Attributes:
        method: ``"exact"`` differentiates the recorded forward along ``p`` (about two forwards of work). ``"probe"``
            takes a difference of the logits at a small predicted part of the step (one forward), within a few percent
            of r. ``"tiered"`` probes where the step may be near the target, looks at some rows of the batch where it is
            not, and mostly measures nothing while the step is far inside; what it leaves out is in `Tiers`.
        head: ``"softmax"`` over the dimension that the gradient tells (the last by default), and independent sigmoids
            where the gradient shows those; ``"sigmoid"`` for independent logits whatever it shows.
        mode: ``"train"`` measures with the train/eval flags, batch statistics and dropout masks of the training
            forward; ``"eval"`` measures the model as it would be evaluated. With BatchNorm the two differ by factors.
        over: ``"max"`` for the largest sample, the only choice with a guarantee; ``"mean"`` over the samples, which
            steers training better (the largest jumps from batch to batch); or a number in (0, 1], that quantile of the
            samples, rounded up to an actual one and never called exact.
        sample: how much of the batch a mean is measured on: a number of entries (tokens, or samples), a
            share of them, or ``"all"``; see `safestep.CurvatureRadius`. The largest of a sample is not the largest.
            Steps of which twice the predicted r is inside the target are then not measured, up to seven in a row,
            unless the method is another than ``"tiered"``.
        rows: ``"trained"`` for the samples that have a gradient; ``"all"`` for every one, where a loss lets samples go
            for a while: those outside the clip of PPO have no gradient, and are the ones that have moved farthest.
            Padding and ignored labels then count too.
        tiers: when the tiered method may measure less; the other methods measure every step.
        sync: ``"auto"`` reads a handful of numbers from the device after each step. ``"never"`` reads none on a step
            that it does not measure: the policy is asked on the device, of the prediction times the margin of `Tiers`,
            so that such a step may be shortened early, and what became of it is known a step later. A policy that
            scales every step, or remembers something, has each measured.

    Raises:
        ValueError: at construction, for an unknown option, a quantile outside (0, 1], or a sample of what is no mean.
        TypeError: at construction, if ``tiers`` is no `Tiers`.

    Example:
        >>> SoftmaxRadius(head="sigmoid").method, SoftmaxRadius(method="exact").mode
        ('tiered', 'train')

    Note:
        The bound is on the loss along ``p`` with logits linearised at the start of the step. Samples with a gradient
        of exactly zero do not count (ignored labels, padding), unless their logits are so far apart that the gradient
        may have underflowed. If no sample has a gradient, all of them count.

        Only ``"exact"`` readings are called exact, and not under autocast, where r carries the rounding of the reduced
        precision. ``"probe"`` sees a kink of the logits near the start of the step or not at all; where no difference
        tells r, it is measured by differentiation. ``"tiered"`` predicts r of a skipped step from earlier ones, which
        nothing guarantees; a policy that scales every step (`Pin`) has it measure every step.

    Reference:
        P. Sao, arXiv 2603.13552 (2026).
    """

    method: Method = "tiered"
    head: Head = "softmax"
    mode: Mode = "train"
    over: Over = "max"
    sample: Sample = "all"
    rows: Rows = "trained"
    tiers: Tiers = field(default_factory=Tiers)
    sync: Sync = "auto"

    agrees_across_ranks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the options."""
        options = {"method": get_args(Method), "head": get_args(Head), "mode": get_args(Mode), "sync": get_args(Sync)}
        options["rows"] = get_args(Rows)
        for name, allowed in options.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected one of {', '.join(map(repr, allowed))}")
        if self.over not in ("max", "mean") and not (isinstance(self.over, float | int) and 0.0 < self.over <= 1.0):
            raise ValueError(f"over={self.over!r}: expected 'max', 'mean', or a quantile in (0, 1]")
        check_sample(self.sample)
        if self.sample != "all" and self.over != "mean":
            raise ValueError(
                f"sample={self.sample!r} with over={self.over!r}: expected over='mean', since a sample tells a mean, "
                "no extreme; or sample='all'"
            )
        if not isinstance(self.tiers, Tiers):
            raise TypeError(f"tiers={self.tiers!r}: expected a safestep.Tiers(...)")

    @property
    def needs(self) -> Needs:
        """What the method needs to know."""
        exact, trained = self.method == "exact" and self.sample == "all", self.mode == "train"
        return Needs(logits=trained and not exact, tape=trained and exact)

    @property
    def every(self) -> bool:
        """Whether samples without a gradient count too."""
        return self.rows == "all"

    def exact(self) -> SoftmaxRadius:
        """Return the same radius by the exact method, for an audit."""
        return replace(self, method="exact", sample="all")

    def read_norms(self, proposal: Proposal, state: State) -> None:
        """Read off the step what the method needs to know of it."""
        step, forwards = proposal.step, proposal.forwards
        if self.method == "exact" or self.sample != "all":
            _ = step.vitals
            return
        with contextlib.suppress(LossMismatchError):  # measuring will meet it again
            forwards.resolve(self.head)
        directional_derivative = state is None or self.tiers.needs_bound(_Memory.from_state(state).track, proposal.aim)
        # What the tiers go by, all ranks have to know alike, or some would measure and others not.
        tiered = self.method == "tiered" and not proposal.always
        step.read(
            directional_derivative=directional_derivative and not proposal.always,
            half_l1_logit_grad=forwards.half_l1_logit_grad(),
            agree=tiered,
        )

    def measure(self, proposal: Proposal, state: State) -> tuple[Reading, State]:
        """Return r of a step over the recorded forwards, and what was learned. See `Radius.measure`."""
        if self.sample != "all":
            return self._sampled(proposal, state)
        step, forwards = proposal.step, proposal.forwards
        known = _Memory() if state is None else _Memory.from_state(state)
        target = proposal.aim
        whole = self.method != "tiered" or proposal.always
        # By what all ranks have agreed on: they skip together, and say nothing.
        tier = "full" if whole or known.track.alarmed else self.tiers.choose(known.track, step.vitals, target)
        if tier == "skip":
            if forwards.peers.alone:
                check_recorded(forwards)
            track = known.track.skipped()
            predicted = track.expected(step.length)
            return self._reading(step, predicted, "skip", age=track.age), replace(known, track=track).as_state()
        agreed = averaged if self.over == "mean" else largest
        reading, known = agreed(proposal, lambda: self._measured(proposal, known, tier), known)
        if reading.finite and self.method != "exact":
            known = replace(known, track=known.track.measured(reading.ratio, step.vitals))
        return reading, known.as_state()

    def _measured(self, proposal: Proposal, known: _Memory, tier: Tier) -> tuple[Reading, _Memory]:
        """Measure on this rank."""
        check_forwards(proposal.forwards, self._resolve)
        if self.method == "exact":
            return self._differentiated(proposal, known)
        ratio, way, track = Probing(self, proposal, known.track).measure(sample=tier == "sample")
        known = replace(known, track=track)
        if ratio is None:
            return self._differentiated(proposal, known)
        return self._reading(proposal.step, ratio, way, message=proposal.forwards.kept_of_all), known

    def _sampled(self, proposal: Proposal, state: State) -> tuple[Reading, State]:
        """Measure the mean on a sample of the rows; on the whole batch where no probe tells it."""
        state = state or {"route": as_state(Route()), "rows": RowTrack().as_state()}

        track, length = RowTrack.from_state(state["rows"]), proposal.step.length
        free = already(proposal, self.sample, track, mode=self.mode, every=self.every)
        if self.method == "tiered" and not free and track.quiet(predicted := track.ratio_rate * length, proposal):
            check_forwards(proposal.forwards, self._resolve)
            later = replace(track, age=track.age + 1)
            reading = self._reading(proposal.step, predicted, "skip", age=later.age)
            return reading, {**state, "rows": later.as_state()}

        def found() -> tuple[Reading, State]:
            check_forwards(proposal.forwards, self._resolve)
            there, rows = sampled(proposal, self.sample, track, mode=self.mode, every=self.every)
            if there is None:
                reading, memory = self._differentiated(proposal, _Memory(from_state(state["route"])))
                return reading, {"route": as_state(memory.route), "rows": rows.as_state()}
            spread, bend = there.spread(), there.bend()
            ratio, error = step_ratio(spread.value), step_ratio(spread.standard_error)
            reading = self._reading(proposal.step, ratio, there.way, message=proposal.forwards.kept_of_all)
            rows = rows.measured(length, ratio)
            return replace(reading, standard_error=error, kl=bend.value / 2), {**state, "rows": rows.as_state()}

        return averaged(proposal, found, state)

    def predict(self, proposal: Proposal, state: State) -> Prediction | None:
        r"""Return what a step is without reading the device; None if it has to be measured.

        Equation:
            ``r <= margin R ||p||`` with ``R`` the largest ``r / ||p||`` of the last measurements.
        """
        step, forwards = proposal.step, proposal.forwards
        if (
            not forwards.peers.alone
            or self.sync == "auto"
            or self.method != "tiered"
            or self.sample != "all"
            or proposal.always
            or state is None
            or not forwards.kept
        ):
            return None
        known = _Memory.from_state(state)
        track, tiers, target = known.track, self.tiers, proposal.aim
        if track.alarmed or not track.enough or track.age + 1 >= tiers.every:
            return None
        square, directional_derivative = step.sums(directional_derivative=tiers.needs_bound(track, target))
        length, half_l1_logit_grad = square.sqrt(), forwards.half_l1_logit_grad()
        unknown = torch.full_like(length, math.nan)
        numbers = [
            length,
            unknown if directional_derivative is None else directional_derivative,
            unknown if half_l1_logit_grad is None else half_l1_logit_grad.to(length),
        ]

        def resolve(values: list[float]) -> Resolved:
            product, half_l1 = (None if math.isnan(value) else value for value in values[1:])
            vitals = Vitals(values[0], product, half_l1)
            alarmed = tiers.choose(track, vitals, target) != "skip"
            later = replace(track.skipped(), alarmed=alarmed)
            reading = self._reading(step, track.expected(vitals.length), "skip", age=later.age)
            return Resolved(reading, vitals, replace(known, track=later).as_state())

        return Prediction(tiers.margin * track.expected(1.0) * length, length, torch.stack(numbers), resolve)

    def _differentiated(self, proposal: Proposal, known: _Memory) -> tuple[Reading, _Memory]:
        step, forwards = proposal.step, proposal.forwards
        tangents, spreads = Tangents(step, forwards, self.mode, known.route), Spreads(every=self.every)
        for output, value, tangent in tangents:
            spreads.add(output, value, tangent)
        # Of an empty batch that the others could not do without, what was learned counts, and no sample does.
        idle = forwards.peers.lockstep and spreads.empty
        ratio = -math.inf if idle else step_ratio(spreads.statistic(self.over)) * tangents.unit
        exact = tangents.exact and self.over in ("max", "mean", 1.0)
        return self._reading(step, ratio, tangents.way, exact=exact, message=forwards.kept_of_all), replace(
            known, route=tangents.route
        )

    def _reading(
        self, step: Step, ratio: float, way: str, *, exact: bool = False, age: int = 0, message: str = ""
    ) -> Reading:
        over = "" if self.over in ("max", 1.0) else "/mean" if self.over == "mean" else f"/quantile {self.over:g}"
        return Reading(step.index, ratio, f"{way}/{self.mode}{over}", exact, message, age)

    def _resolve(self, forwards: Forwards) -> None:
        forwards.resolve(self.head)
        say_doubts_of_heads(forwards)


@dataclass(frozen=True, slots=True)
class _Memory:
    """What was learned of the model (`Route`) and of earlier steps (`Track`)."""

    route: Route = field(default_factory=Route)
    track: Track = field(default_factory=Track)

    def as_state(self) -> dict[str, Any]:
        return {"route": as_state(self.route), "track": self.track.as_state()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> _Memory:
        return cls(from_state(state["route"]), Track.from_state(state["track"]))
