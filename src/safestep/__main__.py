"""The command `safestep`, also `python -m safestep`: says which extra it needs where that is missing."""

from __future__ import annotations

import io
import sys

from safestep._torch.extras import need
from safestep.errors import MissingExtraError


def main() -> None:
    """Run the command line."""
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
        print(f"safestep: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("safestep: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    app()


if __name__ == "__main__":
    main()
