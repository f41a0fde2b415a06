"""When to measure r at all: what is remembered of earlier measurements, and what it allows to leave out."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from safestep.recording.step import Vitals

Tier = Literal["skip", "sample", "full"]
"""Measure nothing; measure a part of the rows, to confirm that the step is far inside; measure all of them."""

_KEPT = 3
_FORMER = {"effort": "half_l1_logit_grad"}
"""Names in checkpoints of earlier versions."""


@dataclass(frozen=True, kw_only=True)
class Tiers:
    r"""How much the tiered method may leave out. All thresholds are in units of the target.

    With ``R`` the largest ``r / ||p||`` of the last three measurements, ``R ||p||`` predicts r.

    Attributes:
        margin: a step is skipped only while ``margin * R ||p|| <= inside``: r may have grown by ``margin / inside``
            relative to the prediction before a skipped step passes the target.
        inside: r at or below this part of the target needs no exact value; in [0, 1].
        bound: the free bound ``|g.p| / (pi e) <= r`` above which a step is not skipped.
        length_jump: growth of ``||p||`` since the last measurement above which a step is not skipped.
        logit_grad_jump: growth of ``e`` since then, likewise.
        every: steps after which r is measured again in any case; at least 1.
        sampled: a prediction ``R ||p||`` above this part of ``inside`` is not left to a sample; in [0, 1].
        wired: the free bound is looked at from ``margin * R ||p||`` of this part of ``inside`` on; in [0, 1]. It costs
            a look at every gradient, and a shorter step has the wider margin.
        rows: one in how many rows of the batch a sample takes; 1 never samples.
        floor: a sample is not believed below this part of ``R ||p||``.

    Raises:
        ValueError: at construction, for a value outside its range.

    Example:
        >>> Tiers(every=4).every
        4

    Note:
        What is skipped is not seen: between two measurements nothing bounds r but the free bound. The defaults were
        audited on whole runs (``safestep run protection``); ``guard.audit()`` does it on yours.
    """

    margin: float = 3.0
    inside: float = 0.5
    bound: float = 0.15
    length_jump: float = 3.0
    logit_grad_jump: float = 2.0
    every: int = 16
    sampled: float = 0.5
    wired: float = 0.25
    rows: int = 4
    floor: float = 0.8

    def __post_init__(self) -> None:
        """Check the ranges."""
        ranges = {"margin": (1.0, math.inf), "inside": (0.0, 1.0), "bound": (0.0, math.inf), "floor": (0.0, 1.0)}
        ranges |= {"sampled": (0.0, 1.0), "wired": (0.0, 1.0)}
        ranges |= {"length_jump": (1.0, math.inf), "logit_grad_jump": (1.0, math.inf)}
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"Tiers({name}={getattr(self, name)!r}): expected a number from {low:g} to {high:g}")
        for name in ("every", "rows"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"Tiers({name}={value!r}): expected a whole number of at least 1")

    def needs_bound(self, track: Track, target: float) -> bool:
        """Return whether the free bound is worth its price at the next step."""
        expected = track.expected(track.length) / target
        return not (track.enough and self.margin * expected < self.wired * self.inside)

    def choose(self, track: Track, vitals: Vitals, target: float) -> Tier:
        """Return how thoroughly a step must be measured."""
        expected = track.expected(vitals.length) / target
        if not expected < self.inside or not track.rates:  # not (>=): nan measures
            return "full"
        bound = track.bound(vitals) / target
        quiet = (
            track.enough
            and self.margin * expected <= self.inside
            and bound <= self.bound
            and vitals.length <= self.length_jump * track.length
            and (
                vitals.half_l1_logit_grad is None
                or vitals.half_l1_logit_grad <= self.logit_grad_jump * track.half_l1_logit_grad
            )
            and track.age + 1 < self.every
        )
        if quiet:
            return "skip"
        sampled = self.rows > 1 and track.samples is not False and expected <= self.sampled * self.inside
        return "sample" if sampled else "full"


@dataclass(frozen=True, slots=True)
class Track:
    """What earlier measurements showed, as far as later ones need it.

    Attributes:
        rates: the last three ``r / ||p||``, per unit of the parameters; oldest first.
        length: ``||p||`` when r was last measured.
        half_l1_logit_grad: ``e`` then; inf where it was not seen.
        age: steps since then.
        probes: how many steps were probed. At every power of two the replay is compared with the training forward.
        samples: whether some rows of a batch can be run without the others; None where nobody has tried.
        repeats: whether a replay repeats the training forward; if not, r is measured by differentiation.
        alarmed: whether a step that nobody waited for turns out to have needed a measurement: the next one gets it.
        rough: whether logits that look like float32 were computed in less; None where nobody has looked.
    """

    rates: tuple[float, ...] = ()
    length: float = 0.0
    half_l1_logit_grad: float = math.inf
    age: int = 0
    probes: int = 0
    samples: bool | None = None
    repeats: bool = True
    alarmed: bool = False
    rough: bool | None = None

    @property
    def enough(self) -> bool:
        """Whether there are measurements enough to leave one out."""
        return len(self.rates) == _KEPT

    def expected(self, length: float) -> float:
        """Return ``R ||p||``; nan before the first measurement."""
        return max(self.rates) * length if self.rates else math.nan

    def bound(self, vitals: Vitals) -> float:
        """Return the free bound ``|g.p| / (pi e)`` on r; 0 where it cannot be had."""
        if vitals.directional_derivative is None or not vitals.half_l1_logit_grad:
            return 0.0
        return abs(vitals.directional_derivative) / (math.pi * vitals.half_l1_logit_grad)

    def skipped(self) -> Track:
        """Return what is known after a step that was not measured."""
        return replace(self, age=self.age + 1)

    def measured(self, ratio: float, vitals: Vitals) -> Track:
        """Return what is known after r was measured."""
        rates = self.rates if not vitals.length > 0.0 else (*self.rates, ratio / vitals.length)[-_KEPT:]
        half_l1_logit_grad = math.inf if vitals.half_l1_logit_grad is None else vitals.half_l1_logit_grad
        return replace(
            self, rates=rates, length=vitals.length, half_l1_logit_grad=half_l1_logit_grad, age=0, alarmed=False
        )

    def as_state(self) -> dict[str, Any]:
        """Return plain data, for a checkpoint."""
        return {field.name: getattr(self, field.name) for field in fields(self)} | {"rates": list(self.rates)}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Track:
        """Return the track of a checkpoint."""
        state = {_FORMER.get(name, name): value for name, value in state.items()}
        return cls(**state | {"rates": tuple(state["rates"])})
