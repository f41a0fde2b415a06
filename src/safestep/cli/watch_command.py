"""The command line of looking at a run while it goes on: `safestep watch`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from safestep.cli.user_errors import errors_told
from safestep.experiments.report.screen import console
from safestep.looking.watch import watch


def watch_command(
    log: Annotated[
        Path, typer.Argument(metavar="LOG", help="The .csv or .jsonl file that attach(..., log=LOG) writes.")
    ],
    once: Annotated[bool, typer.Option("--once", help="Print what there is now, and end.")] = False,
    every: Annotated[float, typer.Option(min=0.05, help="Seconds between two looks.")] = 1.0,
) -> None:
    """Show the log of a guarded run live: r, scale, cap share, effective rate, the last events.

    A log that is not there yet is waited for. Ctrl-C ends. Without a terminal,
    as through a pipe, it is --once.
    """
    try:
        with errors_told():
            watch(log, console(), once=once, every=every)
    except typer.Exit as end:
        if end.exit_code == 130:  # how one leaves a live view is no failure
            raise typer.Exit from None
        raise
