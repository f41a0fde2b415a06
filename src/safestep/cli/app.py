"""The command line: list, run and report experiments, watch a log, examine a step, simulate a descent, bench."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from safestep._torch.extras import need
from safestep._version import __version__
from safestep.cli.autopsy_command import autopsy_command
from safestep.cli.bench_command import bench
from safestep.cli.simulate_command import command as simulate
from safestep.cli.user_errors import errors_told
from safestep.cli.watch_command import watch_command
from safestep.errors import RunDirectoryError, UnknownNameError
from safestep.experiments import NAMES, find
from safestep.experiments.report.screen import console, progress, say, tell
from safestep.experiments.runner.engine import jobs_for
from safestep.experiments.runner.experiment import Experiment
from safestep.experiments.runner.interrupts import heeded
from safestep.experiments.runner.on_dask import Engine
from safestep.experiments.runner.rundir import RunDirectory, read_records, readable, require_results
from safestep.experiments.runner.seed_ranges import read_seeds
from safestep.experiments.runner.session import Session
from safestep.experiments.runner.settings import assignment

app = typer.Typer(
    name="safestep",
    help="Measures how far a training step may go, and keeps it inside.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(bench)

_TOLD = 5
"""So many damaged lines are told one by one; the page tells more."""
_NEEDED = ("joblib", "numpy", "sklearn", "matplotlib", "jinja2")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"safestep {__version__}")
        raise typer.Exit


def _jobs(jobs: int | None) -> int | None:
    if jobs is not None and jobs != -1 and jobs < 1:
        raise typer.BadParameter(f"{jobs}: expected a number of runs at a time, or -1 for one per core")
    return jobs


@app.callback()
def safestep(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Measures how far a training step may go, and keeps it inside."""


@app.command("list")
def list_() -> None:
    """List the experiments: what each shows, and its settings."""
    screen = console()
    for name in NAMES:
        experiment = find(name)
        say(screen, f"{name}\n  {experiment.about}")
        settings = experiment.settings().as_record()
        say(screen, f"  --set {' '.join(assignment(key, value) for key, value in settings.items())}\n")


@app.command()
def run(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Which experiment; `safestep list` names them.")],
    more: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", hidden=True)] = None,
    seeds: Annotated[str, typer.Option(help="Seeds of the runs, separated by commas; 0-199 is a range.")] = "7",
    jobs: Annotated[
        int | None,
        typer.Option(
            callback=_jobs,
            help="Runs at a time, each in one thread; -1 for one per core. By default one, or one per core for long "
            "experiments. With --engine: at most so many are handed in at a time; by default, and with -1, all.",
            show_default=False,
        ),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            metavar="WHERE",
            help="Where the runs are carried out: local, or on a Dask cluster that is there: dask://HOST:PORT or "
            "dask:SCHEDULER_FILE (extra 'dask').",
        ),
    ] = "local",
    out: Annotated[
        Path | None,
        typer.Option(help="Run directory. If it holds part of this run, what is missing is added.", show_default=False),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE...",
            help="Settings to change (`safestep list` names them); commas separate lists.",
            show_default=False,
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A few epochs, to see everything work.")] = False,
) -> None:
    """Run an experiment; print its table and the path of a page that explains it.

    The run directory is runs/NAME (runs/NAME-quick with --quick) unless --out
    says otherwise. It holds results.json, records.jsonl, figures and report.html.

    Called again, the command continues what was interrupted, or adds --seeds.
    """
    screen = console()
    with errors_told():
        _check_extras()
        experiment, where = find(name), Engine.of(engine)
        settings = experiment.settings.parse([*(changes or []), *(more or [])], quick=quick)
        chosen = read_seeds(seeds)
        path = Path("runs") / (f"{name}-quick" if quick else name) if out is None else out
        if path == Path():  # also what --out '' gives
            raise RunDirectoryError("--out is the current directory: expected a directory of its own")
        with RunDirectory(path) as directory:
            session = Session(directory, experiment, settings, chosen)
            try:
                _carry_out(screen, session, path, jobs, where)
                page = _draw(path)
            except KeyboardInterrupt:
                if session.results["rows"]:  # one may have come in and not been saved yet
                    directory.save(session.results)
                kept = f"{len(session.results['rows'])} finished runs are kept in {path}"
                typer.echo(f"safestep: interrupted; {kept}, and the same command continues", err=True)
                raise typer.Exit(130) from None
        tell(screen, experiment, session.results)
        say(screen, f"page: {page}")


@app.command()
def report(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR|LOG", help="A run directory, or the log of a guard (.csv, .jsonl).")
    ],
) -> None:
    """Draw figures and page of a run directory again, from its records alone; or of a guard's log.

    The page of a log, and its figures, are put into the folder LOG.report beside it.
    """
    screen = console()
    with errors_told():
        _check_extras()
        if directory.is_file() or (directory.suffix.lower() in {".csv", ".jsonl"} and not directory.exists()):
            _report_log(screen, directory)
            return
        results = require_results(directory)
        _, faults = read_records(directory)
        if faults:
            say(
                screen,
                f"{len(faults)} lines of the records are cut short, as by a kill, or no records; they are left out",
            )
            for fault in faults[:_TOLD]:
                say(screen, f"  {fault}")
        if not results.get("finished"):
            say(
                screen,
                f"this run is not finished: {len(results['rows'])} rows so far; the command that began it continues",
            )
        page = _draw(directory)
        with readable(directory, "the table"):
            tell(screen, _known(results["experiment"]), results)
        say(screen, f"page: {page}")


app.command("watch")(watch_command)
app.command("autopsy")(autopsy_command)
app.command("simulate")(simulate)


def _carry_out(screen: Console, session: Session, path: Path, jobs: int | None, engine: Engine | None) -> None:
    if session.note:
        say(screen, session.note)
    if not session.missing:
        return
    experiment, settings, runs = session.experiment, session.settings, len(session.missing)
    if engine is None:
        most: int | None = jobs_for(runs, experiment.seconds_per_run(settings), jobs)
    else:
        most = None if jobs == -1 else jobs
    told = f", {most} at a time" if most else ""
    say(screen, f"{experiment.name}: {runs} runs{f' on {engine.name}' if engine else ''}{told}, in {path}")
    rows = session.run(most, engine)
    with heeded() as check, progress(screen, experiment, runs) as finished:
        for row in rows:
            finished(row)
            check()


def _draw(directory: Path) -> Path:
    # matplotlib and jinja2: not loaded before they are needed, so that the runs start at once.
    from safestep.experiments.report.figures import draw
    from safestep.experiments.report.page import write_page

    draw(directory)
    return write_page(directory)


def _report_log(screen: Console, log: Path) -> None:
    # matplotlib and jinja2, as above
    from safestep.looking.log_page import report_log
    from safestep.looking.watch import check_file

    check_file(log)
    say(screen, f"page: {report_log(log)}")


def _known(name: str) -> Experiment[Any] | None:
    """Return an experiment, or None for one of another version of safestep."""
    try:
        return find(name)
    except UnknownNameError:
        return None


def _check_extras() -> None:
    """Say what is missing before the work, not after it."""
    for module in _NEEDED:
        if importlib.util.find_spec(module) is None:
            need(module, "experiments")
