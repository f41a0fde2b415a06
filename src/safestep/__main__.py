"""The command `safestep`, also `python -m safestep`: says which extra it needs where that is missing."""

from __future__ import annotations

import io
import sys

from safestep._torch.extras import need
from safestep._version import __version__
from safestep.errors import MissingExtraError

_HELP = """Usage: safestep COMMAND ...

Measures how far a training step may go, and keeps it inside.

In Python, with torch alone:  guard = safestep.attach(model, optimizer)

Commands, which need the extra 'experiments':
  list, run   experiments that show what the guard does
  report      a page of an experiment, or of the log of a guard
  watch       the log of a run, live
  autopsy     why the loss jumped, asked of a checkpoint
  simulate    noisy descent
  bench       what measuring costs
"""


def main() -> None:
    """Run the command line; without its extra tell version and help all the same."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a "ρ" that cannot be printed must not end what was computed
    try:
        need("typer", "experiments")
        need("rich", "experiments")
        from safestep.cli.app import (
            app,  # here and not above: a process that carries out runs imports no more than this
        )
    except MissingExtraError as error:
        asked = {"--version": f"safestep {__version__}", "--help": _HELP}.get(" ".join(sys.argv[1:]))
        if asked:
            print(asked)
        print(f"safestep: {error}", file=sys.stderr)
        raise SystemExit(0 if asked else 2) from None
    except KeyboardInterrupt:
        print("safestep: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    app()


if __name__ == "__main__":
    main()
