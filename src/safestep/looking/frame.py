"""One frame of the live view of a run: the latest step, a line of r, and what happened last."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from safestep.looking.counting import share
from safestep.looking.events import events
from safestep.records.report import StepReport

_BARS = "▁▂▃▄▅▆▇█"
_RECENT, _WIDEST, _TOLD = 100, 60, 6
"""Steps that a recent share is of, bars of a line, and events of a frame, at most."""


def frame(name: str, reports: Sequence[StepReport], left_out: int = 0, age: float = math.nan) -> RenderableType:
    """Return what a terminal shows of a run.

    Args:
        name: of the log.
        reports: the latest steps, oldest first.
        left_out: lines of the log that are no records.
        age: seconds since the log was last written.
    """
    head = Text(name, style="bold")
    if not reports:
        return Group(head, Text("no step yet: waiting for the first whole line"))
    last, recent = reports[-1], reports[-_RECENT:]
    head.append(f"  step {last.step}, {last.status}", style="not bold")
    if not math.isnan(age):
        head.append(f"  written {age:.0f} s ago", style="dim")
    ratio, applied, _ = last.shown()
    target = "" if math.isnan(last.target) else f"   target {last.target:.3g}"
    would = "" if last.would_scale == last.scale else f"   would be {last.would_scale:.4g}"
    shares = f"{share(recent):.1%} of the last {len(recent)} steps"
    if len(reports) > len(recent):
        shares += f", {share(reports):.1%} of {len(reports)}"
    table = Table.grid(padding=(0, 2))
    for what, value in (
        ("r", f"{ratio} → {applied}{target}"),
        ("scale", f"{last.scale:.4g}{would}"),
        ("cap share", shares),
        ("effective rate", " ".join(f"{rate:.4g}" for rate in last.effective_lrs) + _given(last)),
        ("step length", f"{last.step_length:.4g} → {last.applied_length:.4g}"),
        ("r so far", line([report.known_ratio for report in reports])),
    ):
        table.add_row(Text(what, style="dim"), Text(value))
    parts: list[RenderableType] = [head, table]
    if left_out:
        parts.append(Text(f"{left_out} lines of the log are no records and left out", style="yellow"))
    last_events = islice(reversed(events(reports)), _TOLD)
    parts += [Text(f"step {event.step}: {event.text}", overflow="ellipsis", no_wrap=True) for event in last_events]
    return Group(*parts)


def line(values: Sequence[float], width: int = _WIDEST) -> str:
    """Return numbers as a line of bars on a logarithmic scale, with what the lowest and the highest stand for.

    Each bar is the largest of as many numbers; ``!`` is an infinite one, a blank stands for none.

    Example:
        >>> line([0.1, 1.0, float("nan"), 10.0, float("inf")])
        '▁▅ █!  0.1 … 10'
    """
    size = max(1, -(-len(values) // width))
    parts = [values[begin : begin + size] for begin in range(0, len(values), size)]
    largest = [max((value for value in part if not math.isnan(value)), default=math.nan) for part in parts]
    usable = [value for value in largest if 0.0 < value < math.inf]
    if not usable:
        return "nothing measured"
    low, high = min(usable), max(usable)
    span = math.log(high / low) or 1.0

    def bar(value: float) -> str:
        if math.isnan(value):
            return " "
        if math.isinf(value):
            return "!"
        place = math.log(value / low) / span if value > 0.0 else 0.0
        return _BARS[min(int(place * len(_BARS)), len(_BARS) - 1)]

    return f"{''.join(map(bar, largest))}  {low:.3g} … {high:.3g}"


def _given(report: StepReport) -> str:
    if report.lrs == report.effective_lrs:
        return ""
    return "   given " + " ".join(f"{rate:.4g}" for rate in report.lrs)
