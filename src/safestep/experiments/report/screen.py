"""What a run shows on screen: how far it is, and its outcome as a table."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from safestep.experiments.runner.experiment import Column, Experiment, Row, columns_of, seeds_of
from safestep.experiments.runner.rundir import RECORDS

_HUGE = 1e5
"""Numbers from here on are written in scientific notation."""
_WIDEST = 10_000
"""More columns than any table takes."""
_TICK = 0.2
"""Seconds between two looks at the records."""

Finished = Callable[[Row], None]


def console() -> Console:
    """Return a console for standard output; colours only on a terminal, and no text is taken for markup."""
    return Console(markup=False, highlight=False, emoji=False)


def say(screen: Console, text: str) -> None:
    """Print a text, however long, as one line."""
    screen.print(text, soft_wrap=True)


@contextmanager
def progress(screen: Console, experiment: Experiment[Any], runs: int, records: int, path: Path) -> Iterator[Finished]:
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
        told = ", ".join(f"{c.heading} {cell(row.get(c.key), c.form)}" for c in experiment.columns[1:])
        say(screen, f"{done} of {runs}  {row['label']}, seed {row['seed']}: {told}")

    if screen.is_terminal:
        with _bar(screen, runs, records, path) as finished:
            yield finished
    else:
        yield line


@contextmanager
def _bar(screen: Console, runs: int, records: int, path: Path) -> Iterator[Finished]:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    done, over, count = 0, threading.Event(), _LineCount(path / RECORDS)
    with Progress(*columns, console=screen, transient=True) as bar:
        task = bar.add_task(f"0 of {runs} runs", total=runs * records)

        def follow() -> None:  # runs report from other processes: what they have in common is the file
            while not over.wait(_TICK):
                bar.update(task, completed=count.new())

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


class _LineCount:
    """Counts the lines that are appended to a file from now on."""

    def __init__(self, path: Path) -> None:
        self._path, self._lines = path, 0
        self._read_to = path.stat().st_size if path.exists() else 0

    def new(self) -> int:
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._read_to)
                piece = file.read()
            self._read_to += len(piece)
            self._lines += piece.count(b"\n")
        return self._lines


def tell(screen: Console, experiment: Experiment[Any] | None, results: Mapping[str, Any]) -> None:
    """Print the outcome as a table: the rows of a single seed, or the summaries over several.

    Args:
        screen: where to print it. Lines that it is too narrow for are left to it to wrap: no digit is lost.
        experiment: whose columns they are; None for one that this version does not know, which shows what is there.
        results: of results.json.
    """
    rows, summary = results["rows"], results.get("summary", [])
    seeds = seeds_of(rows)
    several = len(seeds) > 1
    shown = summary if summary and (several or (experiment is not None and experiment.summary_always)) else rows
    if experiment is None:
        columns = columns_of(shown)
    else:
        columns = experiment.columns if shown is rows else experiment.summary_columns
    if several and shown is rows:
        columns = (*columns[:1], Column("seed", "seed"), *columns[1:])
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column.short or column.heading, justify="left" if column.key == "label" else "right")
    for row in shown:
        table.add_row(*(cell(row.get(column.key), column.form) for column in columns))
    over = f"{len(seeds)} seeds" if several else f"seed {seeds[0]}" if seeds else "no run finished yet"
    say(screen, f"{results['experiment']}, {over}")
    show(screen, table)


def show(screen: Console, table: Table) -> None:
    """Print a table as wide as it is, however narrow the screen."""
    table.width = screen.measure(table, options=screen.options.update(max_width=_WIDEST)).maximum
    screen.print(table, crop=False)


def cell(value: Any, form: str) -> str:
    """Return a value of a record as text.

    Example:
        >>> cell(0.25, ".3f"), cell(4.25e9, ".3f"), cell(2e-7, ".3f"), cell(True, ""), cell(None, "")
        ('0.250', '4.25e+09', '2e-07', 'yes', '–')
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        text = f"{value:{form or '.5g'}}"
        lost = value != 0 and not text.strip("-0.%")  # every digit
        return f"{value:.3g}" if lost or abs(value) >= _HUGE else text
    return str(value)
