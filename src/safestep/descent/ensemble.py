"""What a simulation returns: statistics over the runs, their last points, and the traces that were kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from safestep.descent.moments import Moments
from safestep.descent.noise import Noise
from safestep.descent.objective import DescentError, Objective


@dataclass(frozen=True, eq=False)
class Setting:
    """What an ensemble was made with, as far as the exact law needs it.

    Attributes:
        objective: that was descended on.
        noise: on its gradients.
        start: of the runs, shape ``(d,)`` if all began at one point, or ``(runs, d)``.
        rates: returns the learning rate of every step, shape ``(steps,)``; computed anew at each call.
        no_law: why the exact law does not hold, or an empty text for plain gradient descent.
    """

    objective: Objective
    noise: Noise
    start: Tensor
    rates: Callable[[], Tensor]
    no_law: str


@dataclass(frozen=True, eq=False, repr=False)
class Ensemble:
    """Many runs of one descent.

    Attributes:
        setting: what it was made with.
        steps: how many were taken.
        runs: how many runs.
        at: the recorded steps, rising from 0 (the start) to ``steps``, shape ``(k,)``.
        moments: the statistics at these.
        rates: learning rate of the last step before each record, shape ``(k,)``; nan at the start.
        scales: mean over the runs of what the policy multiplied that step by, shape ``(k,)``; None without a policy.
        ratios: median over the runs of that step's ``r`` before it was scaled, shape ``(k,)``; None without a policy.
        shortened: share of all steps that the policy shortened or held, from 0 to 1.
        held: share of all steps that it held because they went uphill.
        last: where the runs ended, shape ``(runs, d)``.
        traces: the first runs whole, shape ``(kept, steps + 1, d)``, the start included.
        diverged: which runs were not finite, or farther than ``limit`` from their start, at any record, ``(runs,)``.
        trouble: what went wrong first, or an empty text.
    """

    setting: Setting
    steps: int
    runs: int
    at: Tensor
    moments: Moments
    rates: Tensor
    scales: Tensor | None
    ratios: Tensor | None
    shortened: float
    held: float
    last: Tensor
    traces: Tensor
    diverged: Tensor
    trouble: str

    @property
    def lost(self) -> int:
        """How many runs diverged."""
        return int(self.diverged.sum())

    def last_point(self, run: int = 0) -> str:
        """Return the last point of a run as a line of text.

        Example:
            >>> from safestep.descent import PLANE, simulate
            >>> print(simulate(PLANE, steps=20).last_point())
            epoch 20, x1: -0.057646, x2: -0.000073

        Source:
            The format is that of "Stochastic Gradient Descent", Dive into Deep Learning (d2l.ai).
        """
        if not -self.runs <= run < self.runs:
            raise DescentError(f"run {run} of {self.runs}: expected one from 0 to {self.runs - 1}")
        point = self.last[run].tolist()
        # as published, as long as that can be read
        numbers = [f"x{i}: {value:{'f' if abs(value) < 1e9 else 'e'}}" for i, value in enumerate(point, 1)]
        return f"epoch {self.steps}, {', '.join(numbers)}"

    def trace(self, run: int = 0) -> Tensor:
        """Return the points of one run, shape ``(steps + 1, d)``.

        Raises:
            DescentError: if that run was not kept.
        """
        if not 0 <= run < len(self.traces):
            raise DescentError(
                f"no trace of run {run}: {len(self.traces)} of {self.runs} runs were kept whole; "
                f"simulate with traces={max(run + 1, 1)}"
            )
        return self.traces[run]

    def __repr__(self) -> str:
        return (
            f"<Ensemble of {self.runs} runs and {self.steps} steps on {self.setting.objective!r}; {self.lost} diverged>"
        )

    def __str__(self) -> str:
        if self.runs == 1:
            return "\n".join(filter(None, [self.last_point(), self.trouble]))
        mean = ", ".join(f"x{i}: {value:.6g}" for i, value in enumerate(self.moments.mean[-1].tolist(), 1))
        spread = ", ".join(f"{math.sqrt(value):.6g}" for value in self.moments.variance[-1].tolist())
        lines = [
            f"epoch {self.steps}, mean of {self.runs} runs: {mean}",
            f"standard deviations: {spread}, mean f: {self.moments.loss[-1].item():.6g}",
        ]
        if self.scales is not None:
            lines.append(f"of all steps {self.shortened:.1%} shortened, {self.held:.1%} held still")
        return "\n".join([*lines, *([self.trouble] if self.trouble else [])])


def recorded(steps: int, records: int) -> Tensor:
    """Return at most ``records`` steps from 0 to ``steps``, evenly spaced, both ends among them.

    Example:
        >>> recorded(10, 3), recorded(2, 100), recorded(0, 100)
        (tensor([ 0,  5, 10]), tensor([0, 1, 2]), tensor([0]))
    """
    return torch.linspace(0, steps, min(steps + 1, records), dtype=torch.float64).round().long()
