"""How large a simulation may be: what cannot fit or finish is refused, and what takes long says how far it is."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from safestep.experiments.runner.settings import SettingError

_BYTES = 8
_TENSORS = 8
"""So many tensors of every run's numbers are there at once, at least: points, gradient, noise, what a step computes."""
_MOST_STEPS = 10**9
"""A step of one run takes some 30 µs, whatever is simulated: these take most of a day."""
_EVERY = 10.0
"""Seconds between two lines where no bar can be drawn."""


def check_size(runs: int, steps: int, dimension: int, traces: int) -> None:
    """Refuse what cannot fit or finish, before any of it is begun.

    Raises:
        SettingError: with the limit and what to do.
    """
    need, there = _BYTES * dimension * (_TENSORS * runs + traces * (steps + 1)), available()
    if steps > _MOST_STEPS:
        raise SettingError(f"steps = {steps}: expected at most {_MOST_STEPS}, which take most of a day")
    if there is not None and need > there:
        most = max(0, (there // (_BYTES * dimension) - traces * (steps + 1)) // _TENSORS)
        advice = f"expected at most {most} runs" if most else "expected fewer --traces or --steps"
        raise SettingError(
            f"{runs} runs do not fit into memory: with {steps} steps and {traces} traces they need at least "
            f"{need / 1e9:.3g} GB, and {there / 1e9:.3g} GB are free; {advice}"
        )


def available() -> int | None:
    """Return how many bytes of memory this machine has to give, None where it does not tell."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") + _cached()
    except (AttributeError, OSError, ValueError):
        return None


def _cached() -> int:
    """Return the bytes that Linux lends to file caches and takes back when they are wanted; 0 elsewhere."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123
            sizes = dict(line.split(":", 1) for line in file)
        return 1024 * (int(sizes["MemAvailable"].split()[0]) - int(sizes["MemFree"].split()[0]))
    except (OSError, KeyError, ValueError):
        return 0


@contextmanager
def shown(screen: Console, runs: int, steps: int) -> Iterator[Callable[[int], None]]:
    """Yield what is to be called with every step's number: a bar on a terminal, elsewhere a line now and then."""
    told = f"{runs} runs of {steps} steps"
    if screen.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        with Progress(*columns, console=screen, transient=True) as bar:
            task = bar.add_task(told, total=steps)
            yield lambda step: bar.update(task, completed=step)
        return
    last = time.monotonic()

    def line(step: int) -> None:
        nonlocal last
        if (now := time.monotonic()) - last >= _EVERY:
            last = now
            typer.echo(f"{told}: {step} done", err=True)

    yield line
