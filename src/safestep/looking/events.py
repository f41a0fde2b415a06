"""What happened in a run, out of its records: the few steps that somebody who was away wants to be told of."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace

from safestep.logs.every import LOST, is_lost
from safestep.looking.counting import shortened
from safestep.records.report import StepReport

_MEMORY, _FEWEST, _JUMP = 100, 10, 10.0
"""A step is held against so many before it, if there are so many; r jumps where it is so many times the largest."""


@dataclass(frozen=True)
class Event:
    """Something that happened at a step, in words that follow "step 12:".

    Attributes:
        step: its first.
        text: the words.
        kind: what others may repeat word for word; empty for what happens once.
    """

    step: int
    text: str
    kind: str = ""


def events(reports: Iterable[StepReport]) -> list[Event]:
    """Return what happened, oldest first.

    Told are: the first of each series of steps that were not taken, not finite or not measured, with its length; a
    message that the record before did not have; the first shortened step of the log, or after 100 records without
    one; and an r of ten times the largest of the 100 records before it.

    Example:
        >>> events([])
        []
    """
    found: list[Event] = []
    memory: deque[StepReport] = deque(maxlen=_MEMORY)
    series: list[StepReport] = []

    def end_of_series() -> None:
        if series:
            first, many = series[0], len(series)
            what = str(first.status) if first.status in LOST else f"{first.status}, and r is infinite"
            until = f", {many} in a row" if many > 1 else ""
            found.append(Event(first.step, f"{what}{until}{_said(first)}", f"{what}{_said(first)}"))
            series.clear()

    for report in reports:
        lost = is_lost(report)
        if not (lost and series and series[-1].status is report.status):
            end_of_series()
        if lost:
            series.append(report)
        elif text := _text(report, memory):
            found.append(Event(report.step, text))
        memory.append(report)
    end_of_series()
    return found


def gathered(happened: Iterable[Event]) -> list[Event]:
    """Return events, of those of one kind the last alone and how many came before it, so that they hide no others.

    Example:
        >>> run = [Event(1, "held", "held"), Event(2, "r jumps to 9"), Event(3, "held", "held")]
        >>> [event.text for event in gathered(run)]
        ['r jumps to 9', 'held; 1 such before, from step 1']
    """
    happened = list(happened)
    kinds: dict[str, list[Event]] = {}
    for event in happened:
        kinds.setdefault(event.kind, []).append(event)
    told: list[Event] = []
    for event in happened:
        same = kinds[event.kind] if event.kind else [event]
        if event is same[-1]:
            before = f"; {len(same) - 1} such before, from step {same[0].step}" if len(same) > 1 else ""
            told.append(replace(event, text=event.text + before))
    return told


def _text(report: StepReport, memory: deque[StepReport]) -> str:
    ratio, before = report.known_ratio, memory[-1].known_ratio if memory else math.nan
    # most steps are no jump from the one before, so that the others need not be looked at
    near = math.isfinite(before) and ratio < _JUMP * before
    known = () if near else (one.known_ratio for one in memory if math.isfinite(one.known_ratio))
    largest = max(known, default=math.nan)
    if len(memory) >= _FEWEST and 0.0 < largest * _JUMP <= ratio:
        return f"r jumps to {ratio:.3g}, from at most {largest:.3g}; {_taken(report)}{_said(report)}"
    if shortened(report) and not any(map(shortened, memory)):
        rare = f", the first in {len(memory)} steps" if len(memory) > 1 else ""
        return f"{report.status}{rare}: r {ratio:.3g}, {_taken(report)}{_said(report)}"
    if report.message and not (memory and memory[-1].message == report.message):
        return f"{report.status}{_said(report)}"
    return ""


def _taken(report: StepReport) -> str:
    return f"scale {report.scale:.3g}"


def _said(report: StepReport) -> str:
    return f": {report.message}" if report.message else ""
