"""The command `safestep`, also `python -m safestep`: says which extra it needs where that is missing."""

from __future__ import annotations

import sys

from safestep.errors import MissingExtraError
from safestep.extras import need


def main() -> None:
    """Run the command line."""
    try:
        need("typer", "experiments")
        need("rich", "experiments")
    except MissingExtraError as error:
        print(f"safestep: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    from safestep.cli import app  # here and not above: a process that carries out runs imports this file, and no more

    app()


if __name__ == "__main__":
    main()
