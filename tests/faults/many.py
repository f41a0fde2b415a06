"""Many schedules, in several processes: what happened in all of them together, and which failed."""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import joblib
import torch

from faults.book import Broken
from faults.run import Run
from faults.schedule import Schedule

_SHRINKS = 200
"""How many shorter schedules are tried at most."""


@dataclass
class Outcome:
    """What became of one schedule.

    Attributes:
        schedule: what was played.
        error: what was not as it had to be; an empty text if all was.
        steps: steps begun.
        measured: records whose r was held against the true one.
        again: steps repeated after a kill and found to be the same, bit for bit.
        faults: how many of each kind.
        statuses: how many records of each.
        seconds: how long it took.
    """

    schedule: Schedule
    error: str = ""
    steps: int = 0
    measured: int = 0
    again: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


def play(schedule: Schedule, device: str = "cpu") -> Outcome:
    """Play one schedule in a folder of its own."""
    torch.set_num_threads(1)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run, error = Run(schedule, Path(folder), device), ""
        try:
            run.play()
        except Broken as broken:
            error = str(broken)
        except Exception as unexpected:  # a loop that cannot go on is a failure like any other
            error = f"{type(unexpected).__name__}: {unexpected}"
    book = run.book
    seconds = time.perf_counter() - began
    return Outcome(schedule, error, run.steps, book.measured, book.again, run.faults, book.statuses, seconds)


def shrink(schedule: Schedule, device: str = "cpu") -> Schedule:
    """Return a schedule that fails too, with as few faults and odd batches as could be found."""
    tries = 0
    usual = schedule.plans[0].sizes
    for index in range(len(schedule.plans)):
        for simpler in (replace(schedule.plans[index], fault="", where="", sizes=usual), None):
            plain = replace(schedule.plans[index], fault="", where="") if simpler is None else simpler
            if plain == schedule.plans[index] or tries >= _SHRINKS:
                continue
            tries += 1
            shorter = replace(schedule, plans=(*schedule.plans[:index], plain, *schedule.plans[index + 1 :]))
            if play(shorter, device).error:
                schedule = shorter
                break
    return schedule


def run_many(first: int, count: int, steps: int, jobs: int, device: str) -> list[Outcome]:
    """Play schedules of consecutive seeds."""
    schedules = (Schedule.of(seed, steps) for seed in range(first, first + count))
    return list(joblib.Parallel(n_jobs=jobs)(joblib.delayed(play)(schedule, device) for schedule in schedules))


def print_table(outcomes: list[Outcome]) -> int:
    """Print what happened; return how many failed."""
    failed = [outcome for outcome in outcomes if outcome.error]
    for outcome in failed:
        _say(f"FAILED {outcome.error}\n{shrink(outcome.schedule)}\n")
    faults, statuses = (sum((getattr(o, name) for o in outcomes), Counter()) for name in ("faults", "statuses"))
    _say(f"{len(outcomes)} schedules, {sum(o.steps for o in outcomes)} steps, {len(failed)} failed")
    _say("faults:   " + ", ".join(f"{name} {count}" for name, count in sorted(faults.items())))
    _say("records:  " + ", ".join(f"{name} {count}" for name, count in sorted(statuses.items())))
    _say(f"r held against the true one: {sum(o.measured for o in outcomes)} records")
    _say(f"repeated after a kill, bit for bit the same: {sum(o.again for o in outcomes)} steps")
    for name in ("optimizer", "policy", "method", "model", "precision", "on_nonfinite"):
        counts = Counter(str(getattr(o.schedule.setting, name)) for o in outcomes)
        _say(f"{name + ':':<13}" + ", ".join(f"{value} {count}" for value, count in sorted(counts.items())))
    _say(f"{sum(o.seconds for o in outcomes):.0f} s of computing")
    return len(failed)


def print_one(seed: int, steps: int, device: str) -> int:
    """Play one schedule and print it; return 1 if it failed."""
    schedule = Schedule.of(seed, steps)
    outcome = play(schedule, device)
    _say(f"{schedule}\n{outcome.error or 'as it had to be'}")
    if outcome.error:
        _say(f"as short as it gets:\n{shrink(schedule, device)}")
    return int(bool(outcome.error))


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
