"""What a run shows on screen: how far it is, and its outcome as a table."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from safestep.experiments.report.tables import cell, run_table, summary_table
from safestep.experiments.runner.experiment import Experiment, Row, seeds_of
from safestep.experiments.runner.rundir import RECORDS

_WIDEST = 10_000
"""More columns than any table takes."""
_TICK = 0.2
"""Seconds between two looks at the records."""


def console() -> Console:
    """Return a console for standard output; colours only on a terminal, and no text is taken for markup."""
    return Console(markup=False, highlight=False, emoji=False)


def say(screen: Console, text: str) -> None:
    """Print a text, however long, as one line."""
    screen.print(text, soft_wrap=True)


@contextmanager
def progress(
    screen: Console, experiment: Experiment[Any], runs: int, records: int, path: Path
) -> Iterator[Callable[[Row], None]]:
    """Show how far the runs are: a bar with the remaining time on a terminal, a line for each run elsewhere.

    Args:
        screen: where to show it.
        experiment: whose columns tell the outcome of a run.
        runs: how many are to be executed.
        records: how many records each of them yields.
        path: the run directory, before the first of them.

    Yields:
        A function to call with the row of each finished run.
    """
    done = 0

    def line(row: Row) -> None:
        nonlocal done
        done += 1
        numbers = ", ".join(f"{c.heading} {cell(row.get(c.key), c.form)}" for c in experiment.columns[1:])
        say(screen, f"{done} of {runs}  {row['label']}, seed {row['seed']}: {numbers}")

    if screen.is_terminal:
        with _bar(screen, runs, records, path) as finished:
            yield finished
    else:
        yield line


@contextmanager
def _bar(screen: Console, runs: int, records: int, path: Path) -> Iterator[Callable[[Row], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    done, over = 0, threading.Event()
    with Progress(*columns, console=screen, transient=True) as bar, (path / RECORDS).open("a+b") as file:
        file.seek(0, os.SEEK_END)
        task = bar.add_task(f"0 of {runs} runs", total=runs * records)

        def follow() -> None:  # runs report from other processes: what they have in common is the file
            while not over.wait(_TICK):
                bar.advance(task, file.read().count(b"\n"))

        def finished(_: Row) -> None:
            nonlocal done
            done += 1
            bar.update(task, description=f"{done} of {runs} runs")

        follower = threading.Thread(target=follow, daemon=True)
        follower.start()
        try:
            yield finished
        finally:
            over.set()
            follower.join()


def tell(screen: Console, experiment: Experiment[Any] | None, results: Mapping[str, Any]) -> None:
    """Print the outcome as a table: the rows of a single seed, or the summaries over several.

    Args:
        screen: where to print it. Lines that it is too narrow for are left to it to wrap: no digit is lost.
        experiment: whose columns they are; None for one that this version does not know, which shows what is there.
        results: what results.json holds.
    """
    outcome = summary_table(experiment, results) or run_table(experiment, results)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for column in outcome.columns:
        table.add_column(column.short or column.heading, justify="left" if column.key == "label" else "right")
    for row in outcome.cells:
        table.add_row(*row)
    seeds = seeds_of(results["rows"])
    which = f"{len(seeds)} seeds" if len(seeds) > 1 else f"seed {seeds[0]}" if seeds else "no run finished yet"
    say(screen, f"{results['experiment']}, {which}")
    show(screen, table)


def show(screen: Console, table: Table) -> None:
    """Print a table as wide as it is, however narrow the screen."""
    table.width = screen.measure(table, options=screen.options.update(max_width=_WIDEST)).maximum
    screen.print(table, crop=False)
