"""What a run shows on screen: how far it is, and its outcome as a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from safestep.experiments.report.tables import cell, run_table, summary_table
from safestep.experiments.runner.experiment import Experiment, Row, seeds_of

_WIDEST = 10_000
"""More columns than any table takes."""


def console() -> Console:
    """Return a console for standard output; colours only on a terminal, and no text is taken for markup."""
    return Console(markup=False, highlight=False, emoji=False)


def say(screen: Console, text: str) -> None:
    """Print a text, however long, as one line."""
    screen.print(text, soft_wrap=True)


@contextmanager
def progress(screen: Console, experiment: Experiment[Any], runs: int) -> Iterator[Callable[[Row], None]]:
    """Show how far the runs are: a bar with the remaining time on a terminal, a line for each run elsewhere.

    What is yielded is a function to call with the row of each finished run.
    """
    columns = (MofNCompleteColumn(), TextColumn("runs"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task("", total=runs)

        def finished(row: Row) -> None:
            bar.advance(task)
            if not screen.is_terminal:
                numbers = ", ".join(f"{c.heading} {cell(row.get(c.key), c.form)}" for c in experiment.columns[1:])
                done = f"{bar.tasks[0].completed:.0f} of {runs}"
                say(screen, f"{done}  {row['label']}, seed {row['seed']}: {numbers}")

        yield finished


def tell(screen: Console, experiment: Experiment[Any] | None, results: Mapping[str, Any]) -> None:
    """Print the outcome that results.json holds as a table: the rows of a single seed, or summaries over several.

    Without an experiment, of another version of safestep, every column is shown. Lines that the screen is too narrow
    for are left to it to wrap: no digit is lost.
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
