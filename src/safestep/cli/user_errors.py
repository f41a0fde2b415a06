"""How a command tells a user's error: one message, and the exit code 2."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from safestep.errors import SafestepError


@contextmanager
def errors_told() -> Iterator[None]:
    """Print an error of the user's side as one message and leave with 2; anything else is ours, with its traceback."""
    try:
        yield
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        typer.echo("safestep: interrupted", err=True)
        raise typer.Exit(130) from None
    except (SafestepError, OSError) as error:
        typer.echo(f"safestep: {error}", err=True)
        raise typer.Exit(2) from None
