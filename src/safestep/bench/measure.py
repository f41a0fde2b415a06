"""Cost of every contestant on one case: paired times, peak memory, and what the records say of the steps timed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch

from safestep.bench.cases import Batch, Case
from safestep.bench.contestants import AGAIN, PLAIN, Contestant, Entrant
from safestep.bench.memory import PeakMeter
from safestep.bench.timing import Quartiles, paired, take_turns

_MEASUREMENTS = 9
"""A guard checks its derivative at the 1st, 2nd, 4th and 8th measurement; warming up goes past that."""
_SOONER, _LATER = 4, 3
"""Steps of which memory is measured: the first, with the checks at the 1st, 2nd and 4th, and the 5th to 7th."""
FEW = _SOONER + _LATER
"""All of them."""

E = TypeVar("E", bound=Entrant)
Say = Callable[[str], object]
"""Called with a line on what is being measured."""
Columns = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How long to measure.

    Attributes:
        rounds: how often the contestants take turns.
        steps: how many steps each takes at its turn, all timed together.
        warmup: steps after which warming up ends even if a guard has seldom measured (a method that skips).
    """

    rounds: int = 20
    steps: int = 4
    warmup: int = 128


def measure(
    case: Case, entries: Sequence[Entrant], device: torch.device, effort: Effort, say: Say, *, memory: bool = True
) -> list[Columns]:
    """Return a row for each contestant.

    Args:
        case: what is trained.
        entries: who takes part, the plain step first.
        device: where.
        effort: how long.
        say: is told what happens.
        memory: whether to measure memory too.

    Returns:
        Rows with these columns, those of time or memory None where that was not measured:

        * ``model``, ``about``: name and sizes of the case; ``method``, ``situation``: see `Entry`.
        * ``ratio_median``, ``_low``, ``_high``, ``_mean``: time of its steps to that of the plain ones of the same
          round, dimensionless, over rounds.
        * ``ms_median``: milliseconds of a step; ``added_us``: microseconds that it adds to a plain step of the same
          round; ``rows_per_ms``: rows of logits (samples, or tokens) in a millisecond.
        * ``peak_bytes``: peak of the tensors over the 5th to 7th step, model and optimizer included;
          ``extra_peak_bytes`` is that less the plain step's, ``peak_ratio`` that through the plain step's,
          ``first_peak_ratio`` the same over the first four steps, where the guard checks its derivative.
        * ``statuses``, ``methods``: how many of the timed steps (of those measured for memory where none was timed)
          had which status, and were measured how; ``ratios``: smallest, median and largest r of them.
        * ``flag``: what is wrong with this row; empty if nothing is.
    """
    taking_part = [entry for entry in entries if case.timed or entry.method != AGAIN]
    rows = {
        entry: {"model": case.name, "about": case.about, "method": entry.method, "situation": entry.situation}
        | dict.fromkeys(("ratio_median", "ratio_low", "ratio_high", "ratio_mean", "ms_median", "added_us"))
        | dict.fromkeys(("rows_per_ms", "peak_bytes", "extra_peak_bytes", "peak_ratio", "first_peak_ratio"))
        for entry in taking_part
    }
    if memory:
        builds = {e: partial(Contestant, e, case, device) for e in taking_part if e.method != AGAIN}
        for entry, columns in peaks(case, builds, device, say).items():
            rows[entry] |= columns
    if case.timed:
        for entry, columns in _times(case, taking_part, device, effort, say).items():
            rows[entry] |= columns
    return list(rows.values())


def _times(
    case: Case, entries: Sequence[Entrant], device: torch.device, effort: Effort, say: Say
) -> dict[Entrant, Columns]:
    contestants = {entry: Contestant(entry, case, device) for entry in entries}
    batches: list[Batch] = []
    for entry, contestant in contestants.items():
        say(f"{case.about}: warming up ({entry})")
        _warm_up(contestant, draw(case, device, effort.steps, seed=1), effort.warmup)
    warmed_up = {entry: len(one.guard.history) if one.guard else 0 for entry, one in contestants.items()}

    def prepare(number: int) -> None:
        say(f"{case.about}: round {number + 1} of {effort.rounds}")
        batches[:] = draw(case, device, effort.steps, seed=2 + number)

    turns = {entry: partial(contestant.train, batches) for entry, contestant in contestants.items()}
    rounds = list(take_turns(turns, effort.rounds, prepare, partial(clock, device)))
    plain, rows = entries[0], {}
    for entry, contestant in contestants.items():
        milliseconds = Quartiles.of([times[entry] for times in rounds]).median / effort.steps * 1e3
        added = Quartiles.of([times[entry] - times[plain] for times in rounds]).median / effort.steps * 1e6
        rows[entry] = {
            **paired(rounds, entry, plain).columns("ratio"),
            "ms_median": milliseconds,
            "added_us": added,
            "rows_per_ms": case.rows / milliseconds,
            **confirmed(contestant, warmed_up[entry], effort.rounds * effort.steps),
        }
    return rows


def _warm_up(contestant: Contestant, batches: Sequence[Batch], most: int) -> None:
    """Train until a guard has measured often enough, or ``most`` steps, or where nothing is measured a few."""
    steps = 0
    while steps < most:
        contestant.train(batches)
        steps += len(batches)
        guard = contestant.guard
        if guard is None or sum(report.age == 0 for report in guard.history) >= _MEASUREMENTS:
            return


def peaks(case: Case, builds: Mapping[E, Callable[[], Contestant]], device: torch.device, say: Say) -> dict[E, Columns]:
    """Return the columns of memory of each contestant, the plain step first, and what its records say."""
    rows, plain = {}, dict[str, int]()
    for entry, build in builds.items():
        say(f"{case.about}: memory ({entry})")
        with PeakMeter(device) as meter:
            contestant = build()
            batches = draw(case, device, FEW, seed=1)
            with meter.window("first"):
                contestant.train(batches[:_SOONER])
            with meter.window("later"):
                contestant.train(batches[_SOONER:])
        if entry.method == PLAIN:
            plain = meter.peaks
        rows[entry] = {
            "peak_bytes": meter.peaks["later"],
            "extra_peak_bytes": meter.peaks["later"] - plain["later"],
            "peak_ratio": meter.peaks["later"] / plain["later"],
            "first_peak_ratio": meter.peaks["first"] / plain["first"],
            **confirmed(contestant, _SOONER, _LATER),
        }
    return rows


def confirmed(contestant: Contestant, since: int, steps: int) -> Columns:
    """Return what the records say of the steps from one on, and whether that is what was to be measured."""
    guard, wanted = contestant.guard, contestant.entry.wanted
    reports = guard.history[since:] if guard is not None else []
    statuses = Counter(str(report.status) for report in reports)
    flag = ""
    if not all(bool(parameter.isfinite().all()) for parameter in contestant.model.parameters()):
        flag = "the parameters are not finite"
    expected = {str(wanted): steps} if wanted else statuses
    if guard is not None and (statuses != expected or statuses.total() != steps):
        seen = ", ".join(f"{count} {status}" for status, count in statuses.items()) or "none recorded"
        flag = f"expected {steps} steps{f' {wanted}' if wanted else ''}, saw {seen}"
    ratios = sorted(report.known_ratio for report in reports)
    return {
        "statuses": dict(statuses),
        "methods": dict(Counter(report.method for report in reports)),
        "ratios": (ratios[0], ratios[len(ratios) // 2], ratios[-1]) if ratios else (),
        "flag": flag,
    }


def clock(device: torch.device) -> float:
    """Return the time in seconds, after what is queued on the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def draw(case: Case, device: torch.device, count: int, seed: int) -> list[Batch]:
    """Return that many batches on the device; no generator is moved."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return [(inputs.to(device), labels.to(device)) for inputs, labels in (case.draw() for _ in range(count))]
