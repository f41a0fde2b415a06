"""What a guard costs over a whole tuned training run: stretches of the same run, taken in turns with the plain one."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from safestep.bench.cases import Batch, Situation
from safestep.bench.contestants import AGAIN, CLIP, PLAIN, Contestant, Entrant
from safestep.bench.measure import FEW, Columns, Say, clock, confirmed, draw, peaks
from safestep.bench.timing import Key, Quartiles, paired, take_turns
from safestep.bench.tuned_cases import TunedCase
from safestep.policy import Cap, Pin, Policy
from safestep.radius import CurvatureRadius, Radius, SoftmaxRadius, default_limit
from safestep.schedules import Cosine, WarmUp

GUARDS: Mapping[str, tuple[Radius, Policy]] = {
    "Cap, default limit": (default_limit(), Cap(1.0)),
    "Pin, default limit": (default_limit(), Pin(1.0)),
    "Cap, softmax radius": (SoftmaxRadius(), Cap(1.0)),
    "Cap, curvature 0.2": (CurvatureRadius(), Cap(0.2)),
}
"""Guards by name, one line each: what is limited, and by which policy."""


@dataclass(frozen=True, kw_only=True)
class Turns:
    """How often a run is timed.

    Attributes:
        rounds: whole runs of every contestant, all from the same start and on the same batches.
        stretches: parts of a run, in each of which the contestants take turns.
    """

    rounds: int = 3
    stretches: int = 30


@dataclass(frozen=True, slots=True)
class RunEntrant(Entrant):
    """Who trains a whole run: plain, clipped, or under one of `GUARDS`."""

    situation: Situation = "inside"

    @property
    def guarded(self) -> tuple[Radius, Policy] | None:
        """What its steps are guarded by; None if they are not."""
        return GUARDS.get(self.method)

    @property
    def wanted(self) -> None:
        """Whatever comes: which steps are capped is part of the outcome."""


class Runner(Contestant):
    """Trains a model over a whole run: a tenth of the steps warm up, the others follow a cosine to 0.

    Args:
        entry: under which guard.
        case: what.
        device: where.
    """

    def __init__(self, entry: RunEntrant, case: TunedCase, device: torch.device) -> None:
        super().__init__(entry, case, device, case.rate)
        warm = max(1, case.steps // 10)
        self._scheduler = LambdaLR(self.optimizer, WarmUp(warm).then(Cosine(case.steps - warm)))

    def train(self, batches: Sequence[Batch]) -> None:
        """Take a step on each batch, each at its own rate."""
        for batch in batches:
            super().train([batch])
            self._scheduler.step()

    @torch.no_grad()
    def loss(self, batch: Batch) -> float:
        """Return the mean cross-entropy of a batch in nats, in eval mode, in which the model stays."""
        self.model.eval()
        return float(nn.functional.cross_entropy(self.forward(batch[0]).flatten(0, -2), batch[1].flatten()))


def runners() -> list[RunEntrant]:
    """Return everyone who takes part, the plain run first.

    Example:
        >>> [str(entry) for entry in runners()][:4]
        ['plain step', 'plain step again', 'clip_grad_norm_', 'Cap, default limit']
    """
    return [RunEntrant(name) for name in (PLAIN, AGAIN, CLIP, *GUARDS)]


def whole_run(
    case: TunedCase, entries: Sequence[RunEntrant], device: torch.device, turns: Turns, say: Say
) -> list[Columns]:
    """Return a row for each contestant.

    Args:
        case: what is trained.
        entries: who takes part, the plain run first.
        device: where.
        turns: how often.
        say: is told what happens.

    Returns:
        Rows with the columns of `overheads`, those of `safestep.bench.measure.measure` on memory (over a run of seven
        steps, which begins at the peak rate and also does once what is done once in a process) and records, and

        * ``ms_median``, ``rows_per_ms``: milliseconds of a step, over the whole run; rows of logits in one.
        * ``seconds``: of each stretch of each round.
        * ``r_low``, ``_median``, ``_high``, ``_mean``: r of the proposed steps, as far as it is known and finite.
        * ``loss``: held out, at the end of the run, in nats; ``loss_beside``: that less the plain run's.
    """
    (held_out,) = draw(replace(case, draw=case.held_out), device, 1, seed=1)  # first: what it loads is nobody's memory
    short, plain = replace(case, steps=FEW), entries[0]
    builds = {entry: partial(Runner, entry, short, device) for entry in entries if entry.method != AGAIN}
    memory = peaks(short, builds, device, say)
    times: list[list[dict[RunEntrant, float]]] = []
    for number in range(turns.rounds):
        ran = {entry: Runner(entry, case, device) for entry in entries}
        times.append(_timed(case, ran, device, turns, number, say))
    losses = {entry: runner.loss(held_out) for entry, runner in ran.items()}
    rows = []
    for entry, runner in ran.items():
        row: Columns = {"model": case.name, "about": case.about, "method": entry.method}
        row |= dict.fromkeys(("peak_bytes", "extra_peak_bytes", "peak_ratio", "first_peak_ratio"))
        row |= memory.get(entry, {}) | confirmed(runner, 0, case.steps) | overheads(times, entry, plain)
        milliseconds = 1e3 * row["run_seconds"] / case.steps
        row |= {"ms_median": milliseconds, "rows_per_ms": case.rows / milliseconds}
        row |= {"seconds": [[stretch[entry] for stretch in stretches] for stretches in times]}
        known = [report.known_ratio for report in runner.guard.history] if runner.guard else []
        if finite := list(filter(math.isfinite, known)):
            row |= Quartiles.of(finite).columns("r")
        rows.append(row | {"loss": losses[entry], "loss_beside": losses[entry] - losses[plain]})
    return rows


def _timed(
    case: TunedCase, ran: Mapping[RunEntrant, Runner], device: torch.device, turns: Turns, number: int, say: Say
) -> list[dict[RunEntrant, float]]:
    """Train everyone from start to end and return the seconds of each stretch; the batches are those of every round."""
    batches: list[Batch] = []

    def prepare(stretch: int) -> None:
        say(f"{case.about}: round {number + 1} of {turns.rounds}, stretch {stretch + 1} of {turns.stretches}")
        batches[:] = draw(case, device, case.steps // turns.stretches, seed=2 + stretch)

    trained = {entry: partial(runner.train, batches) for entry, runner in ran.items()}
    return list(take_turns(trained, turns.stretches, prepare, partial(clock, device), seed=number))


def overheads(runs: Sequence[Sequence[Mapping[Key, float]]], name: Key, plain: Key) -> Columns:
    """Return what a contestant takes beside the plain run.

    Args:
        runs: seconds of each contestant by round and stretch; every round has the same stretches.
        name: the contestant.
        plain: the plain run.

    Returns:
        ``run_seconds``, the sum over the stretches of their median over rounds; ``run_ratio``, that through the plain
        run's; ``thirds``, the same of early, middle and late stretches; ``ratio_low``, ``_median``, ``_high``,
        ``_mean``: over all stretches of all rounds, to the plain one of the same stretch and round.

    Example:
        >>> one = [{"it": 2.0, "plain": 1.0}, {"it": 9.0, "plain": 9.0}, {"it": 5.0, "plain": 2.0}]
        >>> found = overheads([one], "it", "plain")
        >>> found["run_seconds"], round(found["run_ratio"], 3), found["thirds"], found["ratio_median"]
        (16.0, 1.333, [2.0, 1.0, 2.5], 2.0)
    """
    same = list(zip(*runs, strict=True))  # of each stretch its rounds
    its, plains = ([statistics.median(times[key] for times in rounds) for rounds in same] for key in (name, plain))
    thirds = pairwise(len(same) * part // 3 for part in range(4))
    return {
        **paired([stretch for run in runs for stretch in run], name, plain).columns("ratio"),
        "run_seconds": sum(its),
        "run_ratio": sum(its) / sum(plains),
        "thirds": [sum(its[begin:end]) / sum(plains[begin:end]) for begin, end in thirds],
    }
