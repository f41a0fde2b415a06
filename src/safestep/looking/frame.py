"""One frame of the live view of a run: the latest step, a line of r, and what happened last."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import islice

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from safestep.looking.counting import share
from safestep.looking.events import events, gathered
from safestep.looking.meanings import meanings
from safestep.records.report import StepReport

_BARS = "▁▂▃▄▅▆▇█"
_RECENT, _WIDEST, _TOLD, _GROUPS = 100, 60, 6, 4
"""Steps that a recent share is of, bars of a line, events of a frame, and rates of parameter groups, at most."""
_NARROWEST, _BESIDE = 4, 40
"""Bars of a line, at least, and the columns that are taken by what stands before and behind it."""


def frame(
    name: str,
    reports: Sequence[StepReport],
    dropped: Mapping[str, int] | None = None,
    age: float = math.nan,
    width: int = 100,
) -> RenderableType:
    """Return what a terminal shows of a run.

    Args:
        name: of the log.
        reports: the latest steps, oldest first.
        dropped: how many lines of the log are left out, by the reason.
        age: seconds since the log was last written.
        width: of the terminal, in columns.
    """
    head = Text(name, style="bold")
    if not reports:
        return Group(head, Text("no step yet: waiting for the first whole line"))
    last, recent = reports[-1], reports[-_RECENT:]
    state, written = f"step {last.step}, {last.status}", "" if math.isnan(age) else f"  written {age:.0f} s ago"
    head.append("  " if cell_len(f"{name}  {state}{written}") <= width else "\n")  # a long name stands alone
    head.append(state, style="not bold")
    head.append(written, style="dim")
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
        ("effective rate", _rates(last)),
        ("step length", f"{last.step_length:.4g} → {last.applied_length:.4g}"),
        ("r so far", line([report.known_ratio for report in reports], min(_WIDEST, max(_NARROWEST, width - _BESIDE)))),
        *meanings(reports).items(),
    ):
        table.add_row(Text(what, style="dim"), Text(value))
    parts: list[RenderableType] = [head, table]
    for why, many in (dropped or {}).items():
        if many:
            parts.append(Text(f"{many} line{'s' if many > 1 else ''} of the log left out: {why}", style="yellow"))
    last_events = islice(reversed(gathered(events(reports))), _TOLD)
    parts += [Text(f"step {event.step}: {event.text}", overflow="ellipsis", no_wrap=True) for event in last_events]
    return Group(*parts)


def line(values: Sequence[float], width: int = _WIDEST) -> str:
    """Return numbers as a line of bars on a logarithmic scale, with what the lowest and the highest stand for.

    Each bar is the largest of as many numbers; ``!`` is an infinite one, a blank stands for none.

    Example:
        >>> line([0.1, 2.0, float("nan"), 10.0, float("inf")])
        '▁▆ █!  0.1 … 10'
    """
    size = max(1, -(-len(values) // width))
    parts = [values[begin : begin + size] for begin in range(0, len(values), size)]
    largest = [max((value for value in part if not math.isnan(value)), default=math.nan) for part in parts]
    if all(map(math.isnan, largest)):
        return "nothing measured"
    # an infinite one hides no other from the scale
    finite = ([value for value in part if 0.0 < value < math.inf] for part in parts)
    usable = [max(part) for part in finite if part]
    low, high = min(usable, default=1.0), max(usable, default=1.0)
    span = math.log(high) - math.log(low) or 1.0

    def bar(value: float) -> str:
        if math.isnan(value):
            return " "
        if math.isinf(value):
            return "!"
        place = (math.log(value) - math.log(low)) / span if value > 0.0 else 0.0
        return _BARS[min(int(place * len(_BARS)), len(_BARS) - 1)]

    bars = "".join(map(bar, largest))
    return f"{bars}  {low:.3g} … {high:.3g}" if usable else bars


def _rates(report: StepReport) -> str:
    given, effective = _groups(report.lrs), _groups(report.effective_lrs)
    return effective if given == effective else f"{effective}   given {given}"


def _groups(rates: Sequence[float]) -> str:
    """Return the rates of the parameter groups, in their order; one that all have once, and of many the range."""
    texts = [f"{rate:.4g}" for rate in rates]
    if len(set(texts)) == 1:
        return texts[0]
    if len(texts) <= _GROUPS:
        return " ".join(texts)
    known = [rate for rate in rates if not math.isnan(rate)]
    return f"{min(known):.4g} … {max(known):.4g} in {len(rates)} groups"
