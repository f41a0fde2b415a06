"""What a picture of traces shows, checked: the runs, the places among them, and the frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from safestep.plots import style
from safestep.plots.plane import Limits, plane_limits, runs_of

Place = Sequence[float] | Tensor
MOST_RUNS = 200
"""So many runs of a label are drawn at most, and choose the frame."""


@dataclass(frozen=True)
class Scene:
    """Traces, places and the frame.

    Attributes:
        runs: by label, shape ``(runs, points, 2)``, nan where not finite.
        limits: of the frame.
        minimum: where f is lowest, if known.
        start: where all runs start, if given.
    """

    runs: Mapping[str, Tensor]
    limits: Limits
    minimum: tuple[float, float] | None
    start: tuple[float, float] | None

    @property
    def colours(self) -> dict[str, str]:
        """By label, the same in every picture of the same traces."""
        return style.palette(self.runs)

    @property
    def names(self) -> dict[str, str]:
        """What a picture calls each label: itself, with how many of its runs are drawn if not all are."""
        counts = {label: len(stack) for label, stack in self.runs.items()}
        return {label: label if n <= MOST_RUNS else f"{label}, {MOST_RUNS} of {n} runs" for label, n in counts.items()}


def scene_of(traces: Mapping[str, Tensor], frame: Limits | None, minimum: Place | None, start: Place | None) -> Scene:
    """Check what a picture was given, and choose its frame where none was.

    Raises:
        TypeError: if the traces have no labels.
        ValueError: if a trace, a place or the frame has another shape, or is not finite.

    Example:
        >>> scene_of({}, None, (0.0, 0.0), (-5.0, -2.0)).limits
        ((-5.6, 0.6), (-2.24, 0.24))
    """
    runs, lowest, begin = runs_of(traces), _place(minimum, "minimum"), _place(start, "start")
    places = [place for place in (lowest, begin) if place]
    if frame is None:
        return Scene(runs, plane_limits([stack[:MOST_RUNS] for stack in runs.values()], places), lowest, begin)
    sides = torch.as_tensor(frame, dtype=torch.float64)
    if sides.shape != (2, 2) or not bool(sides.isfinite().all()) or not bool((sides[:, 0] < sides[:, 1]).all()):
        raise ValueError(f"frame is {frame}; expected ((lowest x₁, highest x₁), (lowest x₂, highest x₂)), finite")
    (left, right), (low, high) = sides.tolist()
    return Scene(runs, ((left, right), (low, high)), lowest, begin)


def _place(place: Place | None, name: str) -> tuple[float, float] | None:
    if place is None:
        return None
    point = torch.as_tensor(place, dtype=torch.float64).detach().cpu()
    if point.shape != (2,) or not bool(point.isfinite().all()):
        raise ValueError(f"{name} is {place}; expected the two finite coordinates of a place, such as (0.0, 0.0)")
    x, y = point.tolist()
    return x, y
