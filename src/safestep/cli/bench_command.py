"""The command line of the benchmarks: `safestep bench overhead`, `scale`, `fixed` and `descent`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from safestep._torch.extras import need
from safestep.bench import descent, plan
from safestep.bench.cases import AXES, FIXED, NAMES, ON_CPU
from safestep.bench.descent_table import cells as cells_of
from safestep.bench.grid import in_markdown, on_screen
from safestep.bench.measure import Effort
from safestep.bench.table import markdown, tables
from safestep.cli.user_errors import errors_told
from safestep.errors import RunDirectoryError, UnknownNameError
from safestep.experiments.report.screen import console, say, show
from safestep.experiments.runner.names import nearest
from safestep.experiments.runner.rundir import RESULTS, RunDirectory
from safestep.experiments.runner.settings import SettingError
from safestep.records.report import plain

bench = typer.Typer(name="bench", help="Measure what measuring costs.", no_args_is_help=True)

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
        _carry_out("overhead", {"models": names}, rounds, device, threads, out, quick)


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
        _carry_out("scale", {"axes": names}, rounds, device, threads, out, quick)


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
        _carry_out("fixed", {"models": names}, rounds, "cpu", 1, out, quick)


@bench.command("descent")
def descent_(
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
        work = descent.QUICK if quick else descent.Work()
        work = work if rounds is None else replace(work, rounds=rounds)
        path, screen = _directory("descent", out, quick), console()
        with plan.threads_set(threads), RunDirectory(path) as directory:
            _check_vacant(path)
            settings = {**asdict(work), "threads": threads, "quick": quick}
            results = _begun("descent", settings, torch.device("cpu"), threads)
            for rows in _kept(directory, results, descent.descent(work, _teller(screen))):
                for headline, headings, cells in cells_of(rows):
                    say(screen, f"\n{headline}")
                    show(screen, on_screen(headings, cells))
            page = path / "tables.md"
            page.write_text(in_markdown(cells_of(results["rows"])), encoding="utf-8")
        for line in [] if quick else descent.missed(results["rows"]):
            say(screen, f"missed: {line}")
        for file in (path / RESULTS, page):
            say(screen, f"written: {file}")


def _directory(name: str, out: Path | None, quick: bool) -> Path:
    path = Path("runs") / f"bench-{name}{'-quick' if quick else ''}" if out is None else out
    if path == Path():  # also what --out '' gives
        raise RunDirectoryError("--out is the current directory: expected a directory of its own")
    return path


def _begun(name: str, settings: dict[str, Any], device: torch.device, threads: int) -> dict[str, Any]:
    return {"bench": name, "settings": settings, "environment": plan.environment(device, threads)}


def _carry_out(
    name: str,
    chosen: dict[str, Sequence[str]],
    rounds: int | None,
    device: str,
    threads: int,
    out: Path | None,
    quick: bool,
) -> None:
    need("matplotlib", "experiments")  # before the work, not after it
    where, effort = _device(device), plan.QUICK if quick else plan.LONG if name == "fixed" else Effort()
    effort = effort if rounds is None else replace(effort, rounds=rounds)
    path, screen = _directory(name, out, quick), console()
    measured = getattr(plan, name)(next(iter(chosen.values())), where, effort, _teller(screen), quick=quick)
    with plan.threads_set(threads), RunDirectory(path) as directory:
        _check_vacant(path)
        settings = {**chosen, **asdict(effort), "device": device, "threads": threads, "quick": quick}
        results = _begun(name, settings, where, threads)
        for rows in _kept(directory, results, measured):
            _show(screen, rows)
        from safestep.bench.figures import draw  # loads matplotlib: not before it is needed

        page = path / "tables.md"
        page.write_text(markdown(results["rows"]), encoding="utf-8")
        files = [path / RESULTS, page, *draw(results, path / "figures")]
    for fault in plan.faults(results["rows"]):
        say(screen, f"not what it should be: {fault}")
    for file in files:
        say(screen, f"written: {file}")


def _kept(
    directory: RunDirectory, results: dict[str, Any], measured: Iterable[list[dict[str, Any]]]
) -> Iterator[list[dict[str, Any]]]:
    """Add rows to the results as they come, and write them at once: an interrupt keeps what was measured."""
    results |= {"rows": [], "finished": None}
    shown: set[str] = set()
    for rows in measured:
        results["rows"] += plain(rows)
        directory.save(results)
        if rows[0]["about"] not in shown:  # the size that several axes have in common is shown once
            shown.add(rows[0]["about"])
            yield rows
    results["environment"]["load_after"], results["finished"] = plan.load(), plan.now()
    directory.save(results)


def _show(screen: Console, rows: Sequence[dict[str, Any]]) -> None:
    for headline, table in tables(rows):
        say(screen, f"\n{headline}")
        show(screen, table)


def _teller(screen: Console) -> Any:
    """Return what tells how far the benchmark is: on a terminal, one line that changes."""
    if not screen.is_terminal:
        return lambda line: None
    return lambda line: screen.print(f"{line[: screen.width - 1]:<{screen.width - 1}}", end="\r")


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


def _check_vacant(path: Path) -> None:
    """Refuse a directory that holds something else than a benchmark; an earlier one gives way."""
    file = path / RESULTS
    if not file.exists():
        return
    try:
        bench = json.loads(file.read_text(encoding="utf-8"))["bench"]
    except (ValueError, KeyError, TypeError):
        bench = None
    if bench is None:
        raise RunDirectoryError(f"{file} was not written by `safestep bench`: choose another directory with --out")
