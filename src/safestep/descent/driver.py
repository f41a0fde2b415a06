"""A real torch optimizer and scheduler on the parameter of an ensemble."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from safestep.descent.objective import DescentError

MakeOptimizer = Callable[[list[Tensor]], Optimizer]
Schedule = Callable[[int], float]
MakeScheduler = Callable[[Optimizer], LRScheduler]


@dataclass(frozen=True)
class Driver:
    """Makes the optimizer of a parameter, and the scheduler that goes with it; see `simulate` for the arguments."""

    optimizer: MakeOptimizer
    schedule: Schedule | None = None
    first: int = 0
    scheduler: MakeScheduler | None = None

    def __post_init__(self) -> None:
        """Check that there are functions, and one schedule at most."""
        for name, function in (("schedule", self.schedule), ("scheduler", self.scheduler)):
            if function is not None and not callable(function):
                raise DescentError(f"{name} = {function!r}: expected a function")
        if self.schedule is not None and self.scheduler is not None:
            raise DescentError(
                "schedule and scheduler were given: expected one of them; multiply them by hand if needed"
            )

    def on(self, parameter: Tensor) -> tuple[Optimizer, LRScheduler | None]:
        """Return an optimizer of the parameter, and its scheduler."""
        optimizer = self.optimizer([parameter])
        for group in optimizer.param_groups:  # a scheduler would write into a rate that the user gave as a tensor
            if isinstance(group.get("lr"), Tensor):
                group["lr"] = group["lr"].clone()
        if self.schedule is not None:
            schedule, first = self.schedule, self.first
            return optimizer, LambdaLR(optimizer, lambda step: schedule(step + first))
        scheduler = None if self.scheduler is None else self.scheduler(optimizer)
        if scheduler is not None and (isinstance(scheduler, ReduceLROnPlateau) or not hasattr(scheduler, "step")):
            raise DescentError(
                f"scheduler {type(scheduler).__name__}: expected one that needs no loss to step; the runs of an "
                "ensemble share one rate and have a loss each"
            )
        return optimizer, scheduler

    def rates(self, steps: int) -> Tensor:
        """Return the learning rate of every step, shape ``(steps,)``, by stepping a scheduler alone."""
        optimizer, scheduler = self.on(torch.nn.Parameter(torch.zeros(1, 1)))
        rates = torch.empty(steps, dtype=torch.float64)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step\\(\\)` before `optimizer.step")
            for step in range(steps):
                rates[step] = rate_of(optimizer)
                if scheduler is not None:
                    scheduler.step()
        return rates


def rate_of(optimizer: Optimizer) -> float:
    """Return the learning rate as it is now; nan for an optimizer without one."""
    return float(optimizer.param_groups[0].get("lr", math.nan))


def why_not_plain(optimizer: Optimizer) -> str:
    """Return why an optimizer is not ``x <- x - eta g``, or an empty text."""
    if type(optimizer) is not SGD:
        return f"{type(optimizer).__name__} is not plain SGD"
    group = optimizer.param_groups[0]
    used = [f"{name}={group[name]}" for name in ("momentum", "weight_decay", "nesterov", "maximize") if group[name]]
    return f"SGD with {', '.join(used)} is not plain" if used else ""
