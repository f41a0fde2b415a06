"""The command line of one's own noisy descent: `safestep simulate`."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from safestep._torch.extras import need
from safestep.cli.user_errors import errors_told
from safestep.descent import PUBLISHED_FIRST, simulate
from safestep.experiments.report.screen import console, say, show
from safestep.experiments.runner.settings import SettingError
from safestep.simulation import options, outcome, outfile
from safestep.simulation.objectives import NAMED, read_objective

_PICTURES = (".png", ".svg", ".pdf")
_ANIMATIONS = (".gif", ".html")
_EVERY = 10.0
"""Seconds between two lines about how far a simulation is."""
_DRAWN = 8
"""So many runs are drawn unless more are asked for."""
_TENSORS = 8
"""So many tensors of every run's numbers are there at once, at least: points, gradient, noise, what a step computes."""


def command(
    objective: Annotated[
        str,
        typer.Argument(
            metavar="OBJECTIVE",
            help=f"What to descend on: {', '.join(NAMED)}; quadratic:2,4 (curvatures) or quadratic:'3,1;1,2' (a "
            "Hessian); or FILE.py:FUNCTION, a function of x of shape (runs, variables) or of x1, x2, ..., in torch "
            "operations.",
        ),
    ] = "plane",
    optimizer: Annotated[str, typer.Option(help="Any elementwise optimizer of torch.optim, by name.")] = "sgd",
    lr: Annotated[float, typer.Option("--lr", help="Base learning rate.")] = 0.1,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Of the optimizer, such as momentum=0.9; may be repeated."),
    ] = None,
    schedule: Annotated[
        str,
        typer.Option(
            help=f"Of the learning rate: {', '.join(options.SCHEDULES)}; or FILE.py:FUNCTION, a factor by t, such as "
            "schedule = WarmUp(5).then(Cosine(45))."
        ),
    ] = "constant",
    first: Annotated[
        int, typer.Option(help="t of the first step in the schedule: 2 as published, 0 as torch counts.")
    ] = PUBLISHED_FIRST,
    noise: Annotated[
        str,
        typer.Option(
            help="Standard deviation of the Gaussian noise on each gradient: one number, one a variable (1,3), the "
            "rows of a covariance ('2,1;1,2'), or none."
        ),
    ] = "1",
    batch: Annotated[int, typer.Option(help="Gradients are means over so many samples with this noise.")] = 1,
    start: Annotated[
        str, typer.Option(help="Where to begin, such as -5,-2.", show_default="that of the objective")
    ] = "",
    steps: Annotated[int, typer.Option(help="How many steps.")] = 50,
    runs: Annotated[int, typer.Option(help="How many runs.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the noise. The same command gives the same runs.")] = 0,
    policy: Annotated[
        str | None,
        typer.Option(help=f"Guards every run's own steps: {', '.join(options.POLICIES)}.", show_default="none"),
    ] = None,
    traces: Annotated[
        int | None, typer.Option(help="How many of the runs to draw.", show_default=f"at most {_DRAWN}")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help=f"The picture, {', '.join(_PICTURES)}; an earlier one gives way.",
            show_default="a new file in runs/simulate",
        ),
    ] = None,
    animation: Annotated[
        Path | None, typer.Option("--animate", help=f"Save the traces as an animation too, {', '.join(_ANIMATIONS)}.")
    ] = None,
) -> None:
    """Descend on a function with noisy gradients: tell where the runs end, and draw how they went.

    Real torch optimizers step all runs at once. For plain SGD on a quadratic
    the statistics are held against the exact law.

    A number that begins with a minus needs no quotes: --start -5,-2.
    """
    screen = console()
    with errors_told():
        need("matplotlib", "experiments")  # before the work, not after it
        goal = read_objective(objective, start)
        drawn = min(runs, _DRAWN) if traces is None else traces
        make = options.read_optimizer(optimizer, lr, option or ())
        simulation = partial(
            simulate,
            goal,
            make,
            schedule=options.read_schedule(schedule),
            first=first,
            noise=options.read_noise(noise, batch),
            steps=steps,
            runs=runs,
            seed=seed,
            policy=None if policy is None else options.read_policy(policy),
            traces=drawn,
        )
        _check_files(out, animation, goal.dimension, drawn)
        _check_memory(goal.dimension * (_TENSORS * runs + drawn * (steps + 1)))
        with Progress(console=screen, transient=True, disable=not screen.is_terminal) as bar:
            task = bar.add_task(f"{runs} runs of {steps} steps", total=steps)
            say_now = _now_and_then(f"{runs} runs of {steps} steps")

            def progress(step: int) -> None:
                bar.update(task, completed=step)
                if not screen.is_terminal:
                    say_now(step)

            ensemble = simulation(progress=progress)
        say(screen, outcome.outcome(ensemble))
        if runs > 1 and (why := outcome.why_no_law(ensemble)):
            say(screen, f"no exact law: {why}")
        elif runs > 1 and ensemble.moments.finite[-1]:
            say(screen, "")
            show(screen, outcome.law_table(ensemble))
            say(screen, "")
        from safestep.simulation import picture  # loads matplotlib: not before it is needed

        name = make.func.__name__
        label = name if schedule == "constant" else f"{name}, {schedule}"
        save = picture.draw(ensemble, label).savefig
        stem = re.sub(r"\W+", "-", f"{objective} {name}".lower()).strip("-")[:60]
        path = outfile.write_over(out, save) if out else outfile.write_new(Path("runs/simulate"), stem, ".png", save)
        if animation is not None:
            outfile.write_over(animation, partial(picture.animate, ensemble, label))
            say(screen, f"animation: {animation}")
        say(screen, f"picture: {path}")


def _check_files(out: Path | None, animation: Path | None, dimension: int, traces: int) -> None:
    if out is not None:
        outfile.check_target(out, "--out", _PICTURES)
    if animation is not None:
        outfile.check_target(animation, "--animate", _ANIMATIONS)
        if dimension != 2 or traces == 0:
            seen = f"{dimension} variables" if dimension != 2 else "no traces"
            raise SettingError(f"--animate {animation}: {seen}; expected a trace in two variables")


def _check_memory(numbers: int) -> None:
    """Refuse what cannot fit into the memory of this machine, before any of it is begun."""
    need_bytes, there = 8 * numbers, _free_memory()
    if need_bytes > there:
        raise SettingError(
            f"the runs do not fit into memory: they need at least {need_bytes / 1e9:.3g} GB, and {there / 1e9:.3g} GB "
            "are free; expected fewer --runs, --traces or --steps"
        )


def _free_memory() -> int:
    """Return how many bytes can be had: what Linux says, which counts caches that it takes back; elsewhere all."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _now_and_then(what: str) -> Callable[[int], None]:
    """Return what says, every ten seconds, how far a simulation is where no bar can show it."""
    last = time.monotonic()

    def line(step: int) -> None:
        nonlocal last
        if (now := time.monotonic()) - last >= _EVERY:
            last = now
            typer.echo(f"{what}: {step} done", err=True)

    return line
