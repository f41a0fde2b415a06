"""What a page is made of: pictures with their words, tables of texts, times."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from safestep._torch.extras import need
from safestep.experiments.report.cells import cell
from safestep.experiments.runner.experiment import Column

_WIDE = 6.0
"""Inches from which a picture has several columns: it takes all the width, and scrolls where that is too little."""
_DPI = 220


@dataclass(frozen=True)
class Picture:
    """A figure as the page shows it: the bytes as a data URI, what they show in words, and whether it is wide."""

    name: str
    source: str
    title: str
    explained: str
    width: int
    height: int
    wide: bool


@dataclass(frozen=True)
class Table:
    """A table as the page shows it: columns, and rows of texts, each with whether it is of a diverged run."""

    columns: Sequence[Column]
    rows: Sequence[tuple[Sequence[str], bool]]


def pictures(folder: Path, names: Iterable[str]) -> list[Picture]:
    """Return the figures of these names, in this order; other files in the folder are not looked at."""
    image = need("PIL.Image", "plots")
    found = []
    for file in (folder / f"{name}.png" for name in names):
        if not file.is_file():
            continue
        data = file.read_bytes()
        with image.open(file) as opened:
            texts, (width, height), (dots, _) = opened.text, opened.size, opened.info.get("dpi", (_DPI, _DPI))
        source = f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}"
        title = texts.get("Title", file.stem.replace("_", " "))
        found.append(
            Picture(file.stem, source, title, texts.get("Description", ""), width, height, width > _WIDE * dots)
        )
    return found


def table(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return rows of results.json, or summaries over seeds, as texts."""
    texts = [[cell(row.get(column.key), column.form) for column in columns] for row in rows]
    return Table(columns, [(cells, bool(row.get("diverged"))) for cells, row in zip(texts, rows, strict=True)])


def moment(text: str | None) -> str:
    """Return a time of results.json as one reads it.

    Example:
        >>> moment("2026-03-04T05:06:07+00:00"), moment(None)
        ('4 March 2026, 05:06 UTC', '')
    """
    if not text:
        return ""
    time = datetime.fromisoformat(text)
    return f"{time.day} {time:%B %Y, %H:%M} UTC"


def duration(started: str | None, finished: str | None) -> str:
    """Return how long a run took; empty if that is not known.

    Example:
        >>> duration("2026-03-04T05:06:07+00:00", "2026-03-04T05:07:12+00:00")
        '1 min 5 s'
    """
    if not started or not finished:
        return ""
    seconds = int((datetime.fromisoformat(finished) - datetime.fromisoformat(started)).total_seconds())
    hours, minutes = seconds // 3600, seconds % 3600 // 60
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"
