"""The benchmarks `overhead`, `scale`, `fixed` and `run`: what each measures, case by case, and on which machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from safestep._version import __version__
from safestep.bench.cases import FIXED, cases, sizes
from safestep.bench.contestants import AGAIN, CURVATURE, DEFAULT, JVP, Entrant, entries
from safestep.bench.measure import Columns, Effort, Say, measure
from safestep.bench.tuned_cases import tuned_cases
from safestep.bench.whole_run import Turns, runners, whole_run

QUICK = Effort(rounds=2, steps=2, warmup=4)
"""Enough to see everything work, not to see a result."""
QUICK_TURNS = Turns(rounds=2, stretches=3)
"""The same for whole runs."""
LONG = Effort(rounds=60, steps=20, warmup=400)
"""Steps of a millisecond: many of them."""


def overhead(
    names: Sequence[str], device: torch.device, effort: Effort, say: Say, *, quick: bool = False
) -> Iterator[list[Columns]]:
    """Measure every contestant on each of the named cases; yields the rows of each case."""
    for name in names:
        yield measure(cases(quick=quick)[name], entries(), device, effort, say)


def scale(
    axes: Sequence[str], device: torch.device, effort: Effort, say: Say, *, quick: bool = False
) -> Iterator[list[Columns]]:
    """Measure how the cost grows along each of the named axes; yields the rows of each size, with ``axis``, ``size``.

    The size that the axes have in common is measured once.
    """
    measured: dict[str, list[Columns]] = {}
    for axis in axes:
        for case in sizes(axis, quick=quick):
            if case.about not in measured:
                measured[case.about] = measure(case, on_scale(), device, effort, say)
            yield [{"axis": axis, "size": case.size[axis], **row} for row in measured[case.about]]


def fixed(
    names: Sequence[str], device: torch.device, effort: Effort, say: Say, *, quick: bool = False
) -> Iterator[list[Columns]]:
    """Measure what a guard adds to a step whatever the model, on the named tiny ones; yields the rows of each."""
    inside = [entry for entry in entries() if entry.situation == "inside" and entry.method != JVP]
    inside += [Entrant(DEFAULT, "inside"), Entrant(DEFAULT, "capped")]
    for name in names:
        yield measure(FIXED[name], inside, device, effort, say, memory=False)


def run(
    names: Sequence[str], device: torch.device, turns: Turns, say: Say, *, factor: float = 1.0, quick: bool = False
) -> Iterator[list[Columns]]:
    """Measure whole runs of the named cases, at a multiple of the best rate; yields the rows of each."""
    for name in names:
        case = tuned_cases(quick=quick)[name].at(factor)
        yield whole_run(case, runners(), device, turns, say)


def on_scale() -> list[Entrant]:
    """Return the contestants whose growth is drawn: a method that measures every step, where it also caps."""
    often = {"exact", "probe", CURVATURE}
    return [e for e in entries() if e.method != AGAIN and not (e.method in often and e.situation == "inside")]


def environment(device: torch.device, threads: int) -> dict[str, Any]:
    """Return what the figures depend on besides the settings; the load is that of the whole machine."""
    return {
        "safestep": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": describe(device),
        "threads": threads,
        "load_before": load(),
        "began": now(),
    }


def describe(device: torch.device) -> str:
    """Return a device in words.

    Example:
        >>> describe(torch.device("cpu")).startswith("CPU")
        True
    """
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory / 2**30
        return f"GPU: {torch.cuda.get_device_name(device)}, {memory:.0f} GiB"
    processor, path = platform.processor() or platform.machine(), Path("/proc/cpuinfo")  # Linux knows it best
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
    return f"CPU: {processor}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"


def load() -> float | None:
    """Return the average number of processes that wanted to run in the last minute; None where nothing counts them."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def now() -> str:
    """Return the time, in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextmanager
def threads_set(number: int) -> Iterator[None]:
    """Let torch compute in this many threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
