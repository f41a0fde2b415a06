"""The command line of one's own noisy descent: `safestep simulate`."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from safestep._torch.extras import need
from safestep.cli.user_errors import errors_told
from safestep.descent import PUBLISHED_FIRST, Ensemble, simulate
from safestep.descent.checks import check_counts
from safestep.descent.simulate import RECORDS
from safestep.errors import SafestepError
from safestep.experiments.report.screen import console, say, show
from safestep.experiments.runner.settings import SettingError
from safestep.simulation import noises, objectives, optimizers, outcome, outfile, policies, schedules
from safestep.simulation.size import check_size, shown

_PICTURES = (".png", ".svg", ".pdf")
_ANIMATIONS = (".gif", ".html")
_DRAWN = 8
"""So many runs are drawn unless more are asked for."""
_SEEDS = 2**63
_OBJECTIVE = (
    f"What to descend on: {', '.join(objectives.NAMED)}; quadratic:2,4 (curvatures) or quadratic:'3,1;1,2' (a "
    "Hessian); an expression in x1, x2, ... such as 'x1**2 + 2*x2**2'; or FILE.py:FUNCTION, a function of x of shape "
    "(runs, variables) or of x1, x2, ..., in torch operations."
)


def command(
    objective: Annotated[str, typer.Argument(metavar="OBJECTIVE", help=_OBJECTIVE)] = "plane",
    optimizer: Annotated[str, typer.Option(help="Any elementwise optimizer of torch.optim, by name.")] = "sgd",
    lr: Annotated[float, typer.Option("--lr", help="Base learning rate.")] = 0.1,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Of the optimizer, such as momentum=0.9; may be repeated."),
    ] = None,
    schedule: Annotated[
        str,
        typer.Option(
            help=f"Of the learning rate: {schedules.FORMS}. + follows one by the next (warmup:5+cosine:45), * "
            "multiplies."
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
        str | None, typer.Option(help=f"Guards every run's own steps: {policies.FORMS}.", show_default="none")
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

    A number that begins with a minus needs no quotes: --start -5,-2. An
    expression that does follows --: safestep simulate -- "-cos(x1)".
    """
    screen = console()
    with errors_told():
        need("matplotlib", "experiments")  # before the work, not after it
        goal = objectives.read_objective(objective, start)
        make = optimizers.read_optimizer(optimizer, lr, option or ())
        rates = schedules.read_schedule(schedule)
        shaken = noises.read_noise(noise, batch)
        guard = None if policy is None else policies.read_policy(policy)
        _check_files(out, animation, goal.dimension, traces)
        if seed >= _SEEDS:
            raise SettingError(f"seed={seed}: expected one below 2**63")
        drawn = min(runs, _DRAWN) if traces is None else traces
        simulation = partial(
            simulate,
            goal,
            make,
            schedule=rates,
            first=first,
            noise=shaken,
            steps=steps,
            runs=runs,
            seed=seed,
            policy=guard,
            traces=drawn,
        )
        check_counts(steps=steps, runs=runs, seed=seed, records=RECORDS, traces=drawn, limit=1.0)
        check_size(runs, steps, goal.dimension, drawn)
        with shown(screen, runs, steps) as progress:
            ensemble = _simulated(partial(simulation, progress=progress), runs)
        say(screen, outcome.outcome(ensemble))
        if runs > 1:
            _tell_law(screen, ensemble)
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


def _check_files(out: Path | None, animation: Path | None, dimension: int, traces: int | None) -> None:
    if out is not None:
        outfile.check_target(out, "--out", _PICTURES)
    if animation is not None:
        outfile.check_target(animation, "--animate", _ANIMATIONS)
        if dimension != 2 or traces == 0:
            seen = f"{dimension} variables" if dimension != 2 else "no traces"
            raise SettingError(f"--animate {animation}: {seen}; expected a trace in two variables")


def _simulated(simulation: Callable[[], Ensemble], runs: int) -> Ensemble:
    try:
        return simulation()
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, SafestepError) or not re.search("memory|overflow", str(error)):
            raise
        raise SettingError(f"{runs} runs do not fit into memory: expected fewer runs or --traces") from None


def _tell_law(screen: Console, ensemble: Ensemble) -> None:
    if why := outcome.why_no_law(ensemble):
        say(screen, f"no exact law: {why}")
    elif ensemble.moments.finite[-1]:
        say(screen, "")
        show(screen, outcome.law_table(ensemble))
        say(screen, "")
