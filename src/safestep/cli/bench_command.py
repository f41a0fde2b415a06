"""The command line of the benchmarks: `safestep bench overhead`, `scale`, `fixed`, `run` and `descent`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
import typer
from rich.console import Console

from safestep._torch.extras import need
from safestep.bench import many_runs, plan
from safestep.bench.bench_tables import tables, who
from safestep.bench.cases import AXES, FIXED, NAMES, ON_CPU
from safestep.bench.grid import in_markdown
from safestep.bench.measure import Columns, Effort, Say
from safestep.bench.tuned_cases import TUNED
from safestep.bench.whole_run import Turns
from safestep.cli.user_errors import errors_told
from safestep.errors import RunDirectoryError, UnknownNameError
from safestep.experiments.report.screen import console, say, show
from safestep.experiments.runner.names import nearest
from safestep.experiments.runner.rundir import RESULTS, RunDirectory
from safestep.experiments.runner.settings import SettingError
from safestep.records.report import plain

bench = typer.Typer(name="bench", help="Measure what measuring costs.", no_args_is_help=True)

_CPU = torch.device("cpu")
Amount = TypeVar("Amount", Effort, Turns, many_runs.Work)

Rounds = Annotated[int | None, typer.Option(min=1, help="How often the contestants take turns.", show_default="20")]
Device = Annotated[str, typer.Option(help="Where to compute: cpu or cuda.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads of torch on the CPU.")]
Out = Annotated[Path | None, typer.Option(help="Directory of the results.", show_default="runs/bench-NAME")]
Quick = Annotated[bool, typer.Option("--quick", help="Tiny models and two rounds, to see everything work.")]


@bench.command()
def overhead(
    models: Annotated[
        str,
        typer.Option(help=f"Which, separated by commas: {', '.join(NAMES)}.", show_default="those the device affords"),
    ] = "",
    rounds: Rounds = None,
    device: Device = "cpu",
    threads: Threads = 2,
    out: Out = None,
    quick: Quick = False,
) -> None:
    """Time and memory of every method beside a plain step, clip_grad_norm_ and a torch.func.jvp written by hand.

    All contestants take turns in one run, and only times of the same round are
    compared. The directory gets results.json, tables.md and figures.
    """
    with errors_told():
        names = _chosen(models, NAMES if device.startswith("cuda") else ON_CPU, NAMES, "model")
        effort, where = _effort(plan.QUICK if quick else Effort(), rounds), _device(device)
        settings = {"models": names, **asdict(effort), "device": device, "threads": threads, "quick": quick}
        _carry_out("overhead", settings, out, partial(plan.overhead, names, where, effort, quick=quick), where)


@bench.command()
def scale(
    axes: Annotated[str, typer.Option(help=f"Which, separated by commas: {', '.join(AXES)}.", show_default="all")] = "",
    rounds: Rounds = None,
    device: Device = "cpu",
    threads: Threads = 2,
    out: Out = None,
    quick: Quick = False,
) -> None:
    """How the cost grows with parameters, batch, sequence length and classes of a GPT.

    One of them is varied at a time. The directory gets results.json, tables.md
    and a figure.
    """
    with errors_told():
        names = _chosen(axes, AXES, AXES, "axis")
        effort, where = _effort(plan.QUICK if quick else Effort(), rounds), _device(device)
        settings = {"axes": names, **asdict(effort), "device": device, "threads": threads, "quick": quick}
        _carry_out("scale", settings, out, partial(plan.scale, names, where, effort, quick=quick), where)


@bench.command()
def fixed(
    models: Annotated[str, typer.Option(help=f"Which: {', '.join(FIXED)}.", show_default="both")] = "",
    rounds: Annotated[int | None, typer.Option(min=1, help="How often they take turns.", show_default="60")] = None,
    out: Out = None,
    quick: Quick = False,
) -> None:
    """What a guard adds to any step, however small the model: microseconds by method, in one thread.

    The directory gets results.json and tables.md.
    """
    with errors_told():
        names = _chosen(models, tuple(FIXED), tuple(FIXED), "model")
        effort = _effort(plan.QUICK if quick else plan.LONG, rounds)
        settings = {"models": names, **asdict(effort), "device": "cpu", "threads": 1, "quick": quick}
        _carry_out("fixed", settings, out, partial(plan.fixed, names, _CPU, effort))


@bench.command()
def run(
    models: Annotated[str, typer.Option(help=f"Which: {', '.join(TUNED)}.", show_default="all")] = "",
    rounds: Annotated[int | None, typer.Option(min=1, help="How often everyone trains.", show_default="3")] = None,
    factor: Annotated[float, typer.Option(help="Multiplies the learning rates, which are the best ones.")] = 1.0,
    device: Device = "cpu",
    threads: Threads = 2,
    out: Out = None,
    quick: Quick = False,
) -> None:
    """What guards cost over a whole training run with warm-up and cosine, beside plain and clip_grad_norm_.

    Stretches of the same run are taken in turns, and only times of the same
    stretch are compared. The directory gets results.json and tables.md.
    """
    with errors_told():
        names = _chosen(models, TUNED, TUNED, "model")
        if not 0.0 < factor < math.inf:
            raise SettingError(f"factor={factor:g}: expected a positive number, of which 1 is the best learning rate")
        turns, where = _effort(plan.QUICK_TURNS if quick else Turns(), rounds), _device(device)
        settings = {"models": names, **asdict(turns), "factor": factor, "device": device, "threads": threads}
        measured = partial(plan.run, names, where, turns, factor=factor, quick=quick)
        _carry_out("run", settings | {"quick": quick}, out, measured, where)


@bench.command()
def descent(
    rounds: Annotated[int | None, typer.Option(min=1, help="How often they take turns.", show_default="7")] = None,
    threads: Threads = 2,
    out: Out = None,
    quick: Annotated[bool, typer.Option("--quick", help="A few runs, to see everything work.")] = False,
) -> None:
    """How much faster many runs of a noisy descent are at once than one after another, and what memory they take.

    Beside a plain Python loop over floats and torch.optim run by run, on
    samples of either. The directory gets results.json and tables.md.
    """
    with errors_told():
        work = _effort(many_runs.QUICK if quick else many_runs.Work(), rounds)
        settings = {**asdict(work), "threads": threads, "quick": quick}
        _carry_out("descent", settings, out, partial(many_runs.descent, work))


def _carry_out(
    name: str,
    settings: dict[str, Any],
    out: Path | None,
    measured: Callable[[Say], Iterator[list[Columns]]],
    device: torch.device = _CPU,
) -> None:
    """Measure, show each case as it comes, and write results, tables and figures."""
    need("matplotlib", "experiments")  # before the work, not after it
    path = Path("runs") / f"bench-{name}{'-quick' if settings['quick'] else ''}" if out is None else out
    if path == Path():  # also what --out '' gives
        raise RunDirectoryError("--out is the current directory: expected a directory of its own")
    screen, shown = console(), set[str]()
    with plan.threads_set(settings["threads"]), RunDirectory(path) as directory:
        _check_vacant(path / RESULTS)
        environment = plan.environment(device, settings["threads"])
        results: dict[str, Any] = {"bench": name, "settings": settings, "environment": environment}
        results |= {"rows": [], "finished": None}
        for rows in measured(_teller(screen)):
            results["rows"] += plain(rows)
            directory.save(results)  # at once: an interrupt keeps what was measured
            for headline, table in tables([row for row in rows if row["about"] not in shown]):
                say(screen, f"\n{headline}")
                show(screen, table)
            shown |= {row["about"] for row in rows}
        environment["load_after"], results["finished"] = plan.load(), plan.now()
        directory.save(results)
        from safestep.bench.pictures import draw  # loads matplotlib: not before it is needed

        page = path / "tables.md"
        page.write_text(in_markdown(tables(results["rows"])), encoding="utf-8")
        files = [path / RESULTS, page, *draw(results, path / "figures")]
    for row in results["rows"]:
        if row.get("flag"):
            say(screen, f"not what it should be: {row['about']}, {who(row)}: {row['flag']}")
    for file in files:
        say(screen, f"written: {file}")


def _teller(screen: Console) -> Say:
    """Return what tells how far the benchmark is: on a terminal, one line that changes."""
    if not screen.is_terminal:
        return lambda line: None
    return lambda line: screen.print(f"{line[: screen.width - 1]:<{screen.width - 1}}", end="\r")


def _effort(usual: Amount, rounds: int | None) -> Amount:
    return usual if rounds is None else replace(usual, rounds=rounds)


def _chosen(text: str, usual: Sequence[str], known: Sequence[str], kind: str) -> list[str]:
    names = [part.strip() for part in text.split(",")] if text else list(usual)
    for name in names:
        if name not in known:
            raise UnknownNameError(f"no {kind} {name!r}{nearest(name, known)}")
    return list(dict.fromkeys(names))


def _device(name: str) -> torch.device:
    """Return the device, if torch can compute and count memory there."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without this device
        reason = str(error).partition("\n")[0]
        raise SettingError(f"device={name}: expected a device that torch finds here ({reason})") from None
    if device.type not in {"cpu", "cuda"}:
        raise SettingError(f"device={name}: expected cpu or cuda, where memory can be counted")
    return device


def _check_vacant(file: Path) -> None:
    """Refuse a directory that holds something else than a benchmark; an earlier one gives way."""
    if not file.exists():
        return
    try:
        known = json.loads(file.read_text(encoding="utf-8"))["bench"]
    except (ValueError, KeyError, TypeError):
        known = None
    if known is None:
        raise RunDirectoryError(f"{file} was not written by `safestep bench`: choose another directory with --out")
