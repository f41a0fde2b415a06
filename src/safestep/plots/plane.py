"""The part of a plane that shows traces: limits that a trace which blows up does not move, and where one leaves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Limits = tuple[tuple[float, float], tuple[float, float]]
"""Lowest and highest x₁, lowest and highest x₂."""
EDGES: Mapping[str, str] = {"left": "<", "right": ">", "bottom": "v", "top": "^"}
"""The mark on each edge where a trace leaves the frame."""
_GROWTH = 3.0
"""A run whose reach from its start grows by more than this factor while its steps double is running away."""
_SETTLED = 4
"""Before so many steps noise alone can do that."""
_LARGEST = 1e100
"""Coordinates beyond it are drawn as not finite: squares of them must not overflow."""
_MARGIN = 0.12
_FLATTEST = 1e-3
"""The least extent of one axis, in units of the other."""


@dataclass(frozen=True)
class Departure:
    """Where a trace leaves the frame.

    Attributes:
        x: first coordinate.
        y: second coordinate.
        edge: a key of `EDGES`; "nowhere" where the next point is not finite.
        step: the number of the last point inside.
    """

    x: float
    y: float
    edge: str
    step: int


def runs_of(traces: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return traces as float64 on the CPU, shape ``(runs, points, 2)``, with nan for what is not finite.

    Args:
        traces: by label, each of shape ``(points, 2)`` or ``(runs, points, 2)``.

    Raises:
        TypeError: if the traces have no labels.
        ValueError: if one has another shape.

    Example:
        >>> runs_of({"sgd": torch.tensor([[-5.0, -2.0], [1.0, math.inf]])})["sgd"].tolist()
        [[[-5.0, -2.0], [nan, nan]]]
    """
    if not isinstance(traces, Mapping):
        raise TypeError(
            f"traces is a {type(traces).__name__}; expected a mapping from labels to tensors, such as {{'sgd': trace}}"
        )
    found = {}
    for label, trace in traces.items():
        runs = torch.as_tensor(trace).detach().to("cpu", torch.float64)
        if runs.ndim not in {2, 3} or runs.shape[-1] != 2:
            raise ValueError(
                f"the trace {label!r} has the shape {tuple(runs.shape)}; expected (points, 2) or (runs, points, 2): "
                "a picture has two variables, so choose two of more with trace[..., [0, 1]]"
            )
        runs = runs if runs.ndim == 3 else runs[None]
        finite = (runs.abs() <= _LARGEST).all(-1, keepdim=True)
        found[str(label)] = runs.where(finite, math.nan)
    return found


def plane_limits(runs: Sequence[Tensor], anchors: Sequence[Sequence[float]] = ()) -> Limits:
    """Choose limits that show where runs begin, the anchors, and the runs as far as they are tame.

    A run is tame if its reach, its largest distance from its start so far, at most triples while the number of steps
    doubles. Of a run that is not, the points count which lie within one extent of what is to be seen anyway: the
    starts, the anchors and the tame runs; where these are one place, the run until it ran away takes their part.

    Args:
        runs: tensors of shape ``(runs, points, 2)``, nan where not finite.
        anchors: places that must be inside, such as the minimum; those that are not finite are ignored.

    Example:
        >>> away = torch.tensor([[[-5.0 * 0.8**k, 2.0 * (-1.5) ** k] for k in range(99)]])
        >>> (left, right), (low, high) = plane_limits([away], anchors=[(0.0, 0.0)])
        >>> left < -5.0 < 0.0 < right < 5.0, -7.5 < low < 0.0 < 2.0 < high < 7.5
        (True, True)
    """
    points = [torch.tensor(place, dtype=torch.float64).reshape(1, 2) for place in anchors]
    tame: list[Tensor] = []
    wild: list[Tensor] = []
    early: list[Tensor] = []
    for run in (run for stack in runs for run in stack if len(run)):
        until = _tame_until(run)
        points.append(run[:1])
        (tame if until == len(run) else wild).append(run)
        early.append(run[:until])
    seen = _finite([*points, *tame])
    if seen.shape[0] == 0:
        return (-1.0, 1.0), (-1.0, 1.0)
    if not float((seen.amax(0) - seen.amin(0)).max()) > 0:
        seen = _finite([*points, *early])
    low, high = seen.amin(0), seen.amax(0)
    reach = (high - low).max()
    more = _finite(wild)
    near = more[((more >= low - reach) & (more <= high + reach)).all(-1)]
    return _widened(_finite([seen, near]))


def departures(run: Tensor, limits: Limits) -> list[Departure]:
    """Return where a run leaves the frame.

    Args:
        run: shape ``(points, 2)``.
        limits: of the frame.

    Example:
        >>> departures(torch.tensor([[0.0, 0.0], [4.0, 2.0], [0.0, 0.0], [math.nan, 0.0]]), ((-1, 1), (-1, 1)))
        [Departure(x=1.0, y=0.5, edge='right', step=0), Departure(x=0.0, y=0.0, edge='nowhere', step=2)]
    """
    inside = within(run, limits)
    return [_departure(run, int(step), limits) for step in (inside[:-1] & ~inside[1:]).nonzero()]


def within(points: Tensor, limits: Limits) -> Tensor:
    """Return which points, shape ``(..., 2)``, lie in the frame; none that is not finite."""
    low, high = torch.tensor(limits, dtype=torch.float64).unbind(-1)
    inside: Tensor = (points >= low) & (points <= high)
    return inside.all(-1)


def drawable(run: Tensor, limits: Limits) -> Tensor:
    """Return a run as a line that a canvas can draw: gaps between points outside, and no coordinate far outside."""
    low, high = torch.tensor(limits, dtype=torch.float64).unbind(-1)
    middle, half = (low + high) / 2, (high - low) / 2
    away = ((run - middle) / half).abs().amax(-1, keepdim=True)
    # 10⁴ frames away the last segment still crosses the edge where the true one does, to the width of a hair.
    near: Tensor = middle + (run - middle) * (1e4 / away.clamp(min=1e4))
    inside = within(run, limits)
    beside = inside.clone()
    beside[1:] |= inside[:-1]
    beside[:-1] |= inside[1:]
    return run.where(inside[:, None], near).where(beside[:, None], math.nan)


def _tame_until(run: Tensor) -> int:
    """Return how many points a run has before it runs away: all, or after half, a quarter … of its steps."""
    reach = torch.nan_to_num((run - run[0]).abs(), nan=math.inf).cummax(0).values.amax(-1)
    end, tame = len(run) - 1, len(run)
    while end > _SETTLED:
        if not math.isfinite(reach[end]) or reach[end] > _GROWTH * reach[end // 2]:
            tame = end // 2 + 1
        end //= 2
    return tame if math.isfinite(reach[end]) else 1


def _finite(parts: Sequence[Tensor]) -> Tensor:
    points = torch.cat([torch.empty(0, 2, dtype=torch.float64), *parts])
    return points[points.isfinite().all(-1)]


def _widened(points: Tensor) -> Limits:
    (left, low), (right, high) = points.amin(0).tolist(), points.amax(0).tolist()
    extent = max(right - left, high - low)
    if not extent > 0:  # one place: nothing tells how much around it matters
        extent = max(1.0, abs(left), abs(low))
        left, right, low, high = left - extent, right + extent, low - extent, high + extent
    sides = []
    for first, last in ((left, right), (low, high)):
        more = max((last - first) * _MARGIN, (_FLATTEST * extent - (last - first)) / 2)
        sides.append((first - more, last + more))
    return sides[0], sides[1]


def _departure(run: Tensor, step: int, limits: Limits) -> Departure:
    """Cut the segment after a point inside at the first edge that it crosses (Liang and Barsky)."""
    here, there = run[step].tolist(), run[step + 1].tolist()
    if not all(map(math.isfinite, there)):
        return Departure(here[0], here[1], "nowhere", step)
    axes = zip(here, there, limits, (("left", "right"), ("bottom", "top")), strict=True)
    share, edge = min(((bounds[y > x] - x) / (y - x), edges[y > x]) for x, y, bounds, edges in axes if x != y)
    return Departure(here[0] + share * (there[0] - here[0]), here[1] + share * (there[1] - here[1]), edge, step)
