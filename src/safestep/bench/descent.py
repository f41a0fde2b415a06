"""What simulating many runs at once costs beside one run after another, and that memory does not grow with steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from safestep.bench.descent_ways import USERS, all_at_once, floats, one_by_one
from safestep.bench.measure import Told
from safestep.bench.memory import PeakMeter
from safestep.bench.timing import paired, quartiles, take_turns
from safestep.descent import PLANE

CLOSED, AUTOGRAD = "simulate, gradient in closed form", "simulate, user's function by autograd"
FLOATS = "a plain Python loop over floats"
ALONE, ALONE_BACKWARD = "torch.optim run by run, closed form", "torch.optim run by run, by backward"
PEERS: Mapping[str, Mapping[str, str]] = {
    CLOSED: {"floats": FLOATS, "alone": ALONE},
    AUTOGRAD: {"floats": FLOATS, "alone": ALONE_BACKWARD},
}
"""What each way to simulate is compared to, by the name of its columns: the same work, run by run."""
AIMS: Mapping[str, Mapping[str, float]] = {
    CLOSED: {"floats": 50.0, "alone": 1000.0},
    AUTOGRAD: {"floats": 25.0, "alone": 1000.0},
}
"""How many times faster each is meant to be."""
_LONGER = 10
"""So many times more steps than before must not take more memory."""


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


def descent(work: Work, told: Told) -> Iterator[list[dict[str, Any]]]:
    """Measure times, then memory; yields the rows of each.

    Args:
        work: how much.
        told: is told what happens.
    """
    yield _times(work, told)
    yield _memory(work, told)


def ways(work: Work) -> dict[str, tuple[Callable[..., Tensor], int]]:
    """Return each way to walk, as a function of runs, steps and scale of the noise, and how many runs it takes."""
    return {
        CLOSED: (partial(all_at_once, PLANE), work.runs),
        AUTOGRAD: (partial(all_at_once, USERS), work.runs),
        FLOATS: (floats, work.float_runs),
        ALONE: (partial(one_by_one, PLANE), work.optimizer_runs),
        ALONE_BACKWARD: (partial(one_by_one, USERS), work.optimizer_runs),
    }


def _times(work: Work, told: Told) -> list[dict[str, Any]]:
    about = f"SGD with Gaussian noise on a plane, {work.runs} runs of {work.steps} steps, polynomial schedule"
    walks = ways(work)
    told("warming up")
    off = _apart(walks, work.steps)
    turns = {name: partial(walk, runs, work.steps) for name, (walk, runs) in walks.items()}
    for turn in turns.values():
        turn()

    def prepare(number: int) -> None:
        told(f"round {number + 1} of {work.rounds}")

    taken = list(take_turns(turns, work.rounds, prepare))
    # seconds of one step of one run
    rounds = [{name: seconds[name] / (runs * work.steps) for name, (_, runs) in walks.items()} for seconds in taken]
    rows = []
    for name, (_, runs) in walks.items():
        low, middle, high = quartiles([times[name] for times in rounds])
        row: dict[str, Any] = {
            "about": about,
            "method": name,
            "timed_runs": runs,
            "ns_median": 1e9 * middle,
            "ns_low": 1e9 * low,
            "ns_high": 1e9 * high,
            "noiseless_difference": off[name],
        }
        for column, peer in PEERS.get(name, {}).items():
            faster = paired(rounds, peer, name)
            row |= {f"{column}_median": faster.median, f"{column}_low": faster.low, f"{column}_high": faster.high}
            row[f"{column}_aim"] = AIMS[name][column]
        rows.append(row)
    return rows


def _apart(walks: Mapping[str, tuple[Callable[..., Tensor], int]], steps: int) -> dict[str, float]:
    """Return how far each way ends from the loop over floats without noise, relatively: that it is the same work."""
    ends = {name: walk(1, steps, 0.0)[0] for name, (walk, _) in walks.items()}
    size = ends[FLOATS].abs().max()
    return {name: ((end - ends[FLOATS]).abs().max() / size).item() for name, end in ends.items()}


def _memory(work: Work, told: Told) -> list[dict[str, Any]]:
    about, rows = f"Peak memory of the tensors of {work.memory_runs} runs at once, no traces", []
    for steps in (work.steps, _LONGER * work.steps):
        told(f"memory of {steps} steps")
        with PeakMeter(torch.device("cpu")) as meter, meter.window("all"):
            all_at_once(PLANE, work.memory_runs, steps)
        rows.append({"about": about, "method": f"{steps} steps", "steps": steps, "peak_bytes": meter.peaks["all"]})
    return rows


def missed(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return which aims were missed, one line each."""
    return [
        f"{name}: {row[f'{column}_median']:.3g} times faster than {peer}, aimed at {AIMS[name][column]:.0f}"
        for row in rows
        if (name := row["method"]) in PEERS
        for column, peer in PEERS[name].items()
        if row[f"{column}_median"] < AIMS[name][column]
    ]
