"""What a page is made of: pictures with their words, tables of texts, and what is missing of a run."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from safestep.experiments.experiment import Column
from safestep.experiments.rundir import RECORDS, read_records
from safestep.extras import need
from safestep.plots.frame import plain_number
from safestep.record import number

_ORDER = ("training_loss", "test_accuracy", "effective_lr", "largest_ratio")
_SHOWN_APART = {"overview"}
"""Figures that repeat the others, for other places than the page."""
_HUGE = 1e4
_TEXTS = {"inf", "-inf", "nan"}


@dataclass(frozen=True)
class Picture:
    """A figure as the page shows it: the bytes as a data URI, and what they show in words."""

    name: str
    source: str
    title: str
    explained: str
    width: int
    height: int


@dataclass(frozen=True)
class Table:
    """A table as the page shows it: columns, and rows of texts, each with whether it is of a diverged run."""

    columns: Sequence[Column]
    rows: Sequence[tuple[Sequence[str], bool]]


def gaps(results: Mapping[str, Any], directory: Path, drawn: Sequence[Picture]) -> list[str]:
    """Return what is missing of a run, one sentence each; none for a whole one."""
    records, cut = read_records(directory)
    rows = results["rows"]
    done = {(row["label"], row["seed"]) for row in rows}
    begun = {(record.get("label"), record.get("seed")) for record in records} - done
    found = []
    if not results.get("finished"):
        here = "1 row is" if len(rows) == 1 else f"{len(rows)} rows are"
        found.append(f"This run is not finished: {here} here so far. The command below continues it.")
    else:
        labels, seeds = dict.fromkeys(label for label, _ in done), dict.fromkeys(seed for _, seed in done)
        absent = [f"{label}, seed {seed}" for label in labels for seed in seeds if (label, seed) not in done]
        found += [f"Rows are missing: {'; '.join(sorted(absent))}."] if absent else []
    if begun:
        names = "; ".join(sorted(f"{label}, seed {seed}" for label, seed in begun))
        found.append(f"Begun but not ended, so without a row: {names}. Their epochs are in the pictures.")
    if cut:
        lines = "1 line was" if cut == 1 else f"{cut} lines were"
        found.append(f"{lines} cut short in {RECORDS}, as by a kill or a full disk, and left out.")
    if records and not drawn:
        found.append("The pictures are not drawn yet: `safestep report` draws them.")
    if rows and not records:
        found.append(f"There are no records ({RECORDS}), so nothing could be drawn.")
    return found


def pictures(folder: Path) -> list[Picture]:
    """Return the figures in the order in which they were drawn."""
    image = need("PIL.Image", "plots")
    place = {name: i for i, name in enumerate(_ORDER)}
    files = [file for file in folder.glob("[!.]*.png") if file.stem not in _SHOWN_APART]
    found = []
    for file in sorted(files, key=lambda file: (place.get(file.stem, len(_ORDER)), file.stem)):
        data = file.read_bytes()
        with image.open(file) as opened:
            texts, (width, height) = opened.text, opened.size
        source = f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}"
        title = texts.get("Title", file.stem.replace("_", " "))
        found.append(Picture(file.stem, source, title, texts.get("Description", ""), width, height))
    return found


def columns_of(rows: Sequence[Mapping[str, Any]]) -> tuple[Column, ...]:
    """Return columns for the rows of an experiment that this version does not know."""
    keys = dict.fromkeys(key for row in rows for key in row if key != "seed")
    return tuple(Column(key, key.replace("_", " ")) for key in sorted(keys, key=lambda key: key != "label"))


def table(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return rows of results.json, or summaries over seeds, as texts."""
    texts = [[_cell(row.get(column.key), column.form) for column in columns] for row in rows]
    return Table(columns, [(cells, bool(row.get("diverged"))) for cells, row in zip(texts, rows, strict=True)])


def _cell(value: Any, form: str = "") -> str:
    """Return a value of a row as text.

    Example:
        >>> _cell(0.9622, ".3f"), _cell(1.85e30, ".3f"), _cell("inf", ".3f"), _cell(None), _cell(True)
        ('0.962', '2·10³⁰', '∞', '–', 'diverged')
    """
    if value is None:
        return "–"
    if isinstance(value, bool):  # the one flag of a row
        return "diverged" if value else "no"
    if isinstance(value, str) and value in _TEXTS:
        value = number(value)
    if isinstance(value, float):
        return f"{value:{form}}" if form and abs(value) < _HUGE else plain_number(value)
    return str(value)


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
