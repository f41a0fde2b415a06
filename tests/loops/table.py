"""The table "What works with what" of docs/training-loops.md: read, and made from what is observed."""

from __future__ import annotations

import re
from pathlib import Path

from loops import around, compiled, precision
from loops.observe import observe
from loops.row import METHODS, Row

PAGE = Path(__file__).parents[2] / "docs" / "training-loops.md"
GROUPS = {"Mixed precision": precision.ROWS, "`torch.compile`": compiled.ROWS, "Around model and step": around.ROWS}
ROWS = tuple(row for rows in GROUPS.values() for row in rows)
BEGIN, END = "<!-- made by tests/loops -->", "<!-- end -->"
HEAD = f"| {' | '.join(('', *METHODS, ''))} |\n|---|{'---|' * len(METHODS)}---|\n"


def notes(row: Row) -> str:
    """Return the last cell of a row."""
    asides = [
        f"{' and '.join(m for m in METHODS if row.off.get(m) == why)}: {why}" for why in dict.fromkeys(row.off.values())
    ]
    refusals = [f"{method + ': ' if method else ''}“{text}”" for method, text in row.refused.items()]
    return "; ".join(part for part in (row.note, *refusals, *asides) if part)


def cell(row: Row, method: str, way: str) -> str:
    """Return what stands in the table where r was measured that way."""
    return f"*{way}*" if method in row.off else way


def read() -> dict[str, dict[str, str]]:
    """Return the table of the page: by row and method, and the notes under an empty name."""
    table = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    lines = [[part.strip() for part in line.strip("|").split(" | ")] for line in table.splitlines() if "|" in line]
    return {
        parts[0].strip(): dict(zip((*METHODS, ""), (*parts[1:], ""), strict=False))
        for parts in lines
        if len(parts) > len(METHODS) and parts[0].strip() and not parts[0].startswith("-")
    }


def made() -> str:
    """Return the table as it is observed now."""
    text = ""
    for title, rows in GROUPS.items():
        text += f"\n**{title}**\n\n{HEAD}"
        for row in rows:
            ways = [cell(row, method, observe(row, method).way) for method in METHODS]
            text += f"| {' | '.join((row.name, *ways, notes(row)))} |\n"
    return text + "\n"


def write() -> None:
    """Put the table into the page."""
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(re.sub(f"(?<={BEGIN}\n).*(?={END})", lambda _: made(), page, flags=re.DOTALL), encoding="utf-8")
