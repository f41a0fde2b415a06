"""The curvature radius from some rows: p.Gp of a sample, g.p of the gradients that are there anyway."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from safestep.formulas.quadratic_ratio import curvature_ratio
from safestep.heads.output import Output
from safestep.jvp.tangents import check_forwards
from safestep.radius.across_ranks import mean
from safestep.radius.fresh_slope import Along
from safestep.radius.gradient_factor import WITNESSES, gradient_factor, witnessed
from safestep.radius.losses import LOSSES, NamedLoss
from safestep.radius.row_sample import Sample
from safestep.radius.sampling import RowTrack, sampled
from safestep.radius.spreads import head_of
from safestep.radius.told_loss import ToldLoss
from safestep.recording.forwards import Forwards
from safestep.recording.gradient_witness import factor_of
from safestep.recording.proposal import Proposal
from safestep.recording.step import Step
from safestep.records.reading import Reading


@dataclass(frozen=True, slots=True)
class SampleMemory:
    """What was learned of measuring on a sample.

    Attributes:
        rows: how rows are run again.
        sees: whether the gradients of the parameters tell g.p of this loss.
    """

    rows: RowTrack = field(default_factory=RowTrack)
    sees: bool = True

    def as_state(self) -> dict[str, Any]:
        """Return plain data, for a checkpoint."""
        return {"rows": self.rows.as_state(), "sees": self.sees}

    @classmethod
    def from_state(cls, state: dict[str, Any] | None) -> SampleMemory:
        """Return the memory of a checkpoint; None is the untried one."""
        return cls() if state is None else cls(RowTrack.from_state(state["rows"]), state["sees"])


def estimate(
    told: ToldLoss, sample: Sample, proposal: Proposal, memory: SampleMemory
) -> tuple[Reading | None, Along, SampleMemory]:
    """Return r of a step from a sample of its rows, None if that cannot be had, of what, and what was learned.

    Equation:
        ``r = p.Gp / (-2 g.p)`` with ``g.p = sum_k p_k g_k / c`` over all parameters, ``c`` the factor that their
        gradients were multiplied by since backward, and ``p.Gp`` the weighted mean of the sample's bends.
    """
    step, forwards = proposal.step, proposal.forwards
    slope = step.vitals.directional_derivative
    left, now = witnessed(forwards)
    blind = all(map(math.isnan, now))  # sharded parameters have no witness
    if not memory.sees or forwards.searched or slope is None or blind or _hidden(step):
        return None, Along(), memory
    rows, way = memory.rows, ""
    if rows.bends and len(rows.bends) > 1 and slope < 0.0:
        predicted = curvature_ratio(max(rows.bends) * step.length**2, slope / factor_of(left, now))
        if rows.quiet(predicted, proposal):
            check_forwards(forwards, lambda seen: seen.resolve(told.wanted(seen)))
            reading = Reading(step.index, predicted, "skip", exact=False, age=rows.age + 1)
            return reading, Along(), replace(memory, rows=replace(rows, age=rows.age + 1))
    loss = LOSSES[told.main.loss]

    def found() -> list[float]:
        nonlocal rows, way
        check_forwards(forwards, lambda seen: seen.resolve(told.wanted(seen)))
        there = None
        if told.even(head.path for forward in forwards.kept for head in forward.heads):
            there, rows = sampled(proposal, sample, rows, every=not loss.ignores)
        if there is None:
            return [math.nan] * (3 + WITNESSES)
        way = there.way
        bend = there.bend(lambda output: _weight(told.at(output.path), forwards, output))
        kl = there.bend().value / 2 if loss.wanted != "any" else math.nan
        return [bend.value, bend.standard_error**2, kl, *left]

    bend, variance, kl, *left = mean(proposal, found, 3 + WITNESSES)
    slope /= factor_of(left, now)
    if not (math.isfinite(bend) and math.isfinite(slope)):
        return None, Along(), replace(memory, rows=rows)
    ratio = curvature_ratio(bend, slope)
    error = math.sqrt(variance / forwards.peers.count) / (2.0 * abs(slope)) if slope else math.nan
    uphill = ratio == math.inf and slope >= 0.0
    message = "uphill on this batch: g.p >= 0" if uphill else forwards.kept_of_all
    rows = rows.measured(step.length, ratio, bend)
    reading = Reading(
        step.index,
        ratio,
        f"{way}/train",
        exact=False,
        message=message,
        uphill=uphill,
        standard_error=error,
        kl=kl,
    )
    return reading, Along(slope, bend), replace(memory, rows=rows)


def confirmed(proposal: Proposal, along: Along, memory: SampleMemory) -> SampleMemory:
    """Return whether the gradients of the parameters told the same g.p as those at the logits.

    Args:
        proposal: the step.
        along: of the step itself, measured on the whole batch.
        memory: what was known before.
    """
    factor = gradient_factor(proposal)
    slope = proposal.step.vitals.directional_derivative
    if slope is None or not math.isfinite(factor) or along.slope == 0.0:
        return memory  # nothing was learned
    sees = along.agrees(slope / factor) or proposal.forwards.dropped > 0
    return replace(memory, sees=sees)


def _weight(named: NamedLoss, forwards: Forwards, output: Output) -> float:
    """Return what the mean bend of an entry of a head is multiplied by in the loss."""
    loss = LOSSES[named.loss]
    classes = output.shape[head_of(output).axis] if loss.entries and output.shape else 1
    twice = 2.0 if named.loss == "mse" else 1.0
    if named.reduction == "mean":
        return named.scale * twice / classes
    same = [one for forward in forwards.kept for one in forward.heads if one.path == output.path]
    trained = [one.rows() if loss.ignores else None for one in same]
    rows = sum(
        one.max_logits.numel() if active is None else int(active.sum())
        for one, active in zip(same, trained, strict=True)
    )
    parts = 1.0 + forwards.dropped / max(1, len(forwards.kept))
    return named.scale * twice * parts * rows


def _hidden(step: Step) -> bool:
    """Return whether a parameter moved whose gradient is not there any more, so that g.p is not to be had."""
    return any(q.grad is None and not torch.equal(q.detach(), start) for q, start in step.start.items())
