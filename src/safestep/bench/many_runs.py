"""What simulating many runs at once costs beside one run after another, and that memory does not grow with steps."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from safestep.bench.measure import Columns, Say
from safestep.bench.memory import PeakMeter
from safestep.bench.timing import Quartiles, paired, take_turns
from safestep.descent import PLANE, PUBLISHED_FIRST, Function, Gaussian, Objective, simulate
from safestep.schedules import Polynomial

CLOSED, AUTOGRAD = "simulate, gradient in closed form", "simulate, user's function by autograd"
FLOATS = "a plain Python loop over floats"
ALONE, ALONE_BACKWARD = "torch.optim run by run, closed form", "torch.optim run by run, by backward"
PEERS = {CLOSED: {"floats": FLOATS, "alone": ALONE}, AUTOGRAD: {"floats": FLOATS, "alone": ALONE_BACKWARD}}
"""What each way to simulate is compared to, by the name of its columns: the same work, run by run."""
_LONGER = 10
"""So many times more steps than before must not take more memory."""
RATE, BETA, ALPHA = 0.1, 0.1, 0.5
"""Base learning rate, and the polynomial schedule ``(1 + BETA t)^(-ALPHA)``."""
SCHEDULE = Polynomial(BETA, ALPHA)
_USERS = Function(lambda x: x[..., 0] ** 2 + 2 * x[..., 1] ** 2, start=PLANE.start)
"""The plane as a user would write it, differentiated by torch."""

Walk = Callable[..., Tensor]
"""From runs, steps and the scale of the noise to the last points, shape ``(runs, 2)``, float64."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """How much is walked.

    Attributes:
        rounds: how often all ways take turns.
        runs: simulated at once.
        steps: of every run.
        float_runs: how many of them the loop over floats takes, whose time is scaled.
        optimizer_runs: how many of them go one by one through torch.optim.
        memory_runs: simulated at once where memory is counted.
    """

    rounds: int = 7
    runs: int = 20_000
    steps: int = 1000
    float_runs: int = 200
    optimizer_runs: int = 10
    memory_runs: int = 2000


QUICK = Work(rounds=2, runs=200, steps=100, float_runs=4, optimizer_runs=2, memory_runs=20)
"""Enough to see everything work, not to see a result."""


def descent(work: Work, say: Say) -> Iterator[list[Columns]]:
    """Measure times, then memory; yields the rows of each."""
    yield _times(work, say)
    yield _memory(work, say)


def ways(work: Work) -> dict[str, tuple[Walk, int]]:
    """Return each way to walk the same noisy descent, and how many runs it takes."""
    return {
        CLOSED: (partial(_all_at_once, PLANE), work.runs),
        AUTOGRAD: (partial(_all_at_once, _USERS), work.runs),
        FLOATS: (_floats, work.float_runs),
        ALONE: (partial(_one_by_one, PLANE), work.optimizer_runs),
        ALONE_BACKWARD: (partial(_one_by_one, _USERS), work.optimizer_runs),
    }


def _all_at_once(objective: Objective, runs: int, steps: int, scale: float = 1.0) -> Tensor:
    noise = Gaussian(scale)
    return simulate(objective, partial(SGD, lr=RATE), schedule=SCHEDULE, noise=noise, steps=steps, runs=runs).last


def _floats(runs: int, steps: int, scale: float = 1.0) -> Tensor:
    """Walk in a plain Python loop over floats, one run after another: the least that one would write."""
    gauss, last = random.Random(0).gauss, []
    for _ in range(runs):
        x1, x2 = PLANE.start
        for t in range(PUBLISHED_FIRST, PUBLISHED_FIRST + steps):
            rate = RATE * (1.0 + BETA * t) ** -ALPHA
            x1, x2 = x1 - rate * (2 * x1 + gauss(0.0, scale)), x2 - rate * (4 * x2 + gauss(0.0, scale))
        last.append((x1, x2))
    return torch.tensor(last, dtype=torch.float64)


def _one_by_one(objective: Objective, runs: int, steps: int, scale: float = 1.0) -> Tensor:
    """Walk with a torch optimizer and scheduler for each run, one run after another.

    The gradient of a user's function comes from backward, as everybody has it; that of the plane from its formula.
    """
    generator, curvatures = torch.Generator().manual_seed(0), torch.tensor([2.0, 4.0], dtype=torch.float64)
    by_backward, last = objective is not PLANE, []
    for _ in range(runs):
        x = torch.nn.Parameter(torch.tensor(PLANE.start, dtype=torch.float64))
        optimizer = SGD([x], lr=RATE)
        scheduler = LambdaLR(optimizer, lambda step: SCHEDULE(step + PUBLISHED_FIRST))
        for _ in range(steps):
            x.grad = scale * torch.randn(2, generator=generator, dtype=torch.float64)
            if by_backward:
                objective.value(x).backward()  # adds to the noise
            else:
                x.grad += curvatures * x.detach()
            optimizer.step()
            scheduler.step()
        last.append(x.detach())
    return torch.stack(last)


def _times(work: Work, say: Say) -> list[Columns]:
    about = f"SGD with Gaussian noise on a plane, {work.runs} runs of {work.steps} steps, polynomial schedule"
    walks = ways(work)
    say("warming up")
    # Without noise every way must end where the loop over floats does: that it is the same work.
    ends = {name: walk(1, work.steps, 0.0)[0] for name, (walk, _) in walks.items()}
    turns = {name: partial(walk, runs, work.steps) for name, (walk, runs) in walks.items()}
    for turn in turns.values():
        turn()
    taken = list(take_turns(turns, work.rounds, lambda number: say(f"round {number + 1} of {work.rounds}")))
    # nanoseconds of one step of one run
    rounds = [{name: 1e9 * times[name] / (runs * work.steps) for name, (_, runs) in walks.items()} for times in taken]
    rows = []
    for name, (_, runs) in walks.items():
        apart = (ends[name] - ends[FLOATS]).abs().max() / ends[FLOATS].abs().max()
        row: Columns = {"about": about, "method": name, "timed_runs": runs, "noiseless_difference": apart.item()}
        row |= Quartiles.of([times[name] for times in rounds]).columns("ns")
        for column, peer in PEERS.get(name, {}).items():
            row |= paired(rounds, peer, name).columns(column)
        rows.append(row)
    return rows


def _memory(work: Work, say: Say) -> list[Columns]:
    about, rows = f"Peak memory of the tensors of {work.memory_runs} runs at once, no traces", []
    for steps in (work.steps, _LONGER * work.steps):
        say(f"memory of {steps} steps")
        with PeakMeter(torch.device("cpu")) as meter, meter.window("all"):
            _all_at_once(PLANE, work.memory_runs, steps)
        rows.append({"about": about, "method": f"{steps} steps", "steps": steps, "peak_bytes": meter.peaks["all"]})
    return rows
