"""Cost of every contestant on one case: paired times, peak memory, and what the records say of the steps timed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch

from safestep.bench.cases import Batch, Case
from safestep.bench.contestants import AGAIN, PLAIN, Contestant, Entry
from safestep.bench.memory import PeakMeter
from safestep.bench.timing import Clock, paired, quartiles, take_turns

_MEASUREMENTS = 9
"""A guard checks its derivative at the 1st, 2nd, 4th and 8th measurement; warming up goes past that."""
_SOONER, _LATER = 4, 3
"""Steps of which memory is measured: the first, with the checks at the 1st, 2nd and 4th, and the 5th to 7th."""

Told = Callable[[str], object]
"""Called with a line on what is being measured."""


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


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one contestant costs on one case; None where it was not measured.

    Attributes:
        model: name of the case.
        about: its sizes in words.
        method: see `Entry`.
        situation: see `Entry`.
        ratio_median: time of its steps to that of the plain ones of the same round, dimensionless, median over rounds.
        ratio_low: first quartile of the same ratios.
        ratio_high: third quartile.
        ratio_mean: mean.
        ms_median: milliseconds of a step, median over rounds.
        added_us: microseconds that it adds to a plain step of the same round, median over rounds.
        rows_per_ms: rows of logits (samples, or tokens) in a millisecond.
        peak_bytes: peak of the tensors over the 5th to 7th step, model and optimizer included.
        extra_peak_bytes: that less the same of the plain step.
        peak_ratio: that through the same of the plain step, dimensionless.
        first_peak_ratio: the same over the first four steps, where the guard checks its derivative.
        statuses: how many of the timed steps had which status; of those measured for memory where none was timed.
        methods: by which method they were measured, in the words of the record.
        ratios: smallest, median and largest r of them.
        flag: what is wrong with this row; empty if nothing is.
    """

    model: str
    about: str
    method: str
    situation: str
    ratio_median: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    ratio_mean: float | None = None
    ms_median: float | None = None
    added_us: float | None = None
    rows_per_ms: float | None = None
    peak_bytes: int | None = None
    extra_peak_bytes: int | None = None
    peak_ratio: float | None = None
    first_peak_ratio: float | None = None
    statuses: Mapping[str, int] = field(default_factory=dict)
    methods: Mapping[str, int] = field(default_factory=dict)
    ratios: Sequence[float] = ()
    flag: str = ""

    def as_record(self) -> dict[str, Any]:
        """Return the row as plain data."""
        return asdict(self)


def measure(
    case: Case, entries: Sequence[Entry], device: torch.device, effort: Effort, told: Told, *, memory: bool = True
) -> list[Row]:
    """Return a row for each contestant.

    Args:
        case: what is trained.
        entries: who takes part, the plain step among them.
        device: where.
        effort: how long.
        told: is told what happens.
        memory: whether to measure memory too.
    """
    timed = _timed(case, entries, device, effort, told) if case.timed else {}
    once = [entry for entry in entries if entry.method != AGAIN]
    peaks = _peaks(case, once, device, told) if memory else {}
    return [
        Row(
            model=case.name,
            about=case.about,
            method=entry.method,
            situation=entry.situation,
            **{**peaks.get(entry, {}), **timed.get(entry, {})},
        )
        for entry in (entries if case.timed else once)
    ]


def _timed(
    case: Case, entries: Sequence[Entry], device: torch.device, effort: Effort, told: Told
) -> dict[Entry, dict[str, Any]]:
    contestants = {entry: Contestant(entry, case, device) for entry in entries}
    batches: list[Batch] = []
    for entry, contestant in contestants.items():
        told(f"{case.about}: warming up ({entry})")
        _warm_up(contestant, _draw(case, device, effort.steps, seed=1), effort.warmup)
    marks = {entry: contestant.count for entry, contestant in contestants.items()}

    def prepare(number: int) -> None:
        told(f"{case.about}: round {number + 1} of {effort.rounds}")
        batches[:] = _draw(case, device, effort.steps, seed=2 + number)

    turns = {entry: partial(contestant.train, batches) for entry, contestant in contestants.items()}
    rounds = list(take_turns(turns, effort.rounds, prepare, _clock(device)))
    plain = next(entry for entry in entries if entry.method == PLAIN)
    columns = {}
    for entry, contestant in contestants.items():
        _, middle, _ = quartiles([times[entry] for times in rounds])
        milliseconds, ratios = middle / effort.steps * 1e3, paired(rounds, entry, plain)
        columns[entry] = {
            "ratio_median": ratios.median,
            "ratio_low": ratios.low,
            "ratio_high": ratios.high,
            "ratio_mean": ratios.mean,
            "ms_median": milliseconds,
            "added_us": quartiles([times[entry] - times[plain] for times in rounds])[1] / effort.steps * 1e6,
            "rows_per_ms": case.rows / milliseconds,
            **_confirmed(contestant, marks[entry], effort.rounds * effort.steps),
        }
    return columns


def _warm_up(contestant: Contestant, batches: Sequence[Batch], most: int) -> None:
    """Train until a guard has measured often enough, or ``most`` steps, or where nothing is measured a few."""
    steps = 0
    while steps < most:
        contestant.train(batches)
        steps += len(batches)
        if contestant.guard is None or sum(report.age == 0 for report in contestant.reports()) >= _MEASUREMENTS:
            return


def _peaks(case: Case, entries: Sequence[Entry], device: torch.device, told: Told) -> dict[Entry, dict[str, Any]]:
    found: dict[Entry, dict[str, Any]] = {}
    peaks: dict[Entry, dict[str, int]] = {}
    for entry in entries:
        told(f"{case.about}: memory ({entry})")
        peaks[entry], found[entry] = _watched(case, entry, device)
    plain = next(peak for entry, peak in peaks.items() if entry.method == PLAIN)
    for entry, mine in peaks.items():
        found[entry] |= {
            "peak_bytes": mine["later"],
            "extra_peak_bytes": mine["later"] - plain["later"],
            "peak_ratio": mine["later"] / plain["later"],
            "first_peak_ratio": mine["first"] / plain["first"],
        }
    return found


def _watched(case: Case, entry: Entry, device: torch.device) -> tuple[dict[str, int], dict[str, Any]]:
    with PeakMeter(device) as meter:
        contestant = Contestant(entry, case, device)
        batches = _draw(case, device, _SOONER + _LATER, seed=1)
        with meter.window("first"):
            contestant.train(batches[:_SOONER])
        with meter.window("later"):
            contestant.train(batches[_SOONER:])
    return meter.peaks, _confirmed(contestant, _SOONER, _LATER)


def _confirmed(contestant: Contestant, mark: int, steps: int) -> dict[str, Any]:
    """Return what the records say of the steps since ``mark``, and whether that is what was to be measured."""
    reports, wanted = contestant.reports(mark), contestant.entry.wanted
    statuses = Counter(str(report.status) for report in reports)
    flag = "" if contestant.finite else "the parameters are not finite"
    if contestant.guard is not None and statuses != {str(wanted): steps}:
        seen = ", ".join(f"{count} {status}" for status, count in statuses.items()) or "none recorded"
        flag = f"expected {steps} steps {wanted}, saw {seen}"
    ratios = sorted(report.known_ratio for report in reports)
    return {
        "statuses": dict(statuses),
        "methods": dict(Counter(report.method for report in reports)),
        "ratios": (ratios[0], ratios[len(ratios) // 2], ratios[-1]) if ratios else (),
        "flag": flag,
    }


def _draw(case: Case, device: torch.device, count: int, seed: int) -> list[Batch]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return [(inputs.to(device), labels.to(device)) for inputs, labels in (case.draw() for _ in range(count))]


def _clock(device: torch.device) -> Clock:
    """Return a clock that waits for the device first."""
    if device.type != "cuda":
        return time.perf_counter

    def clock() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return clock
