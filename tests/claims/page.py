"""The table of docs/private-corners.md, made from source and reasons; ``python tests/claims`` writes it."""

from __future__ import annotations

import re
from pathlib import Path

from claims.corners import found
from claims.reasons import CORNERS, ELSEWHERE

PAGE = Path(__file__).parents[2] / "docs" / "private-corners.md"
BEGIN, END = "<!-- made by tests/claims -->", "<!-- end -->"


def unexplained() -> list[str]:
    """Return the names that the source uses and no reason stands for."""
    known = {name for corner in CORNERS for name in corner.names} | ELSEWHERE.keys()
    return sorted(found().keys() - known)


def made() -> str:
    """Return the table as the source is now."""
    files = found()
    lines = ["| name | in `src/safestep` | what for, and why nothing public | the test that goes through it |"]
    lines.append("|---|---|---|---|")
    for corner in CORNERS:
        names = "<br>".join(f"`{name}`" for name in corner.names)
        where = ", ".join(
            f"`{file}`" for file in sorted({file for name in corner.names for file in files.get(name, ())})
        )
        lines.append(f"| {names} | {where} | {corner.why} | `{corner.test}` |")
    return "\n".join(lines) + "\n"


def read() -> str:
    """Return the table of the page."""
    return PAGE.read_text(encoding="utf-8").partition(f"{BEGIN}\n")[2].partition(END)[0]


def write() -> None:
    """Put the table into the page."""
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(re.sub(f"(?<={BEGIN}\n).*(?={END})", lambda _: made(), page, flags=re.DOTALL), encoding="utf-8")
