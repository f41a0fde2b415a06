"""A real optimizer and scheduler on the parameter of an ensemble."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from safestep.descent.elementwise import MakeOptimizer
from safestep.descent.objective import DescentError

Schedule = Callable[[int], float]
MakeScheduler = Callable[[Optimizer], LRScheduler]


@dataclass(frozen=True)
class Driver:
    """How a parameter is stepped: makes the optimizer, and the scheduler that goes with it.

    Attributes:
        optimizer: from a list with one parameter to an optimizer.
        schedule: factor of the base rate by ``t``, or None.
        first: ``t`` of the first step.
        scheduler: from the optimizer to a torch scheduler, or None.

    Raises:
        DescentError: at construction, for a schedule and a scheduler at once.
    """

    optimizer: MakeOptimizer
    schedule: Schedule | None = None
    first: int = 0
    scheduler: MakeScheduler | None = None

    def __post_init__(self) -> None:
        """Check that there is one schedule at most."""
        if self.schedule is not None and self.scheduler is not None:
            raise DescentError(
                "schedule and scheduler were given: expected one of them; multiply them by hand if needed"
            )
        if isinstance(self.first, bool) or not isinstance(self.first, int) or self.first < 0:
            raise DescentError(
                f"first = {self.first!r}: expected a whole number of at least 0, the t of the first step"
            )
        for name in ("schedule", "scheduler"):
            if getattr(self, name) is not None and not callable(getattr(self, name)):
                raise DescentError(f"{name} = {getattr(self, name)!r}: expected a function")

    def on(self, parameter: Tensor) -> tuple[Optimizer, LRScheduler | None]:
        """Return an optimizer of the parameter, and its scheduler."""
        optimizer = _own_rates(self.optimizer([parameter]))
        if self.schedule is not None:
            schedule, first = self.schedule, self.first
            return optimizer, LambdaLR(optimizer, lambda step: schedule(step + first))
        if self.scheduler is None:
            return optimizer, None
        scheduler = self.scheduler(optimizer)
        if isinstance(scheduler, ReduceLROnPlateau) or not callable(getattr(scheduler, "step", None)):
            raise DescentError(
                f"scheduler {type(scheduler).__name__}: expected one that needs no loss to step; the runs of an "
                "ensemble share one rate and have a loss each"
            )
        return optimizer, scheduler

    def rates(self, steps: int) -> Tensor:
        """Return the learning rate of every step, shape ``(steps,)``, by stepping a scheduler alone."""
        optimizer, scheduler = self.on(torch.nn.Parameter(torch.zeros(1, 1)))
        found = torch.empty(steps, dtype=torch.float64)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step\\(\\)` before `optimizer.step")
            for step in range(steps):
                found[step] = rate_of(optimizer)
                if scheduler is not None:
                    scheduler.step()
        return found


def _own_rates(optimizer: Optimizer) -> Optimizer:
    """Return the optimizer with copies of rates that are tensors: a scheduler writes into the one that was given."""
    for group in optimizer.param_groups:
        if isinstance(group.get("lr"), Tensor):
            group["lr"] = group["lr"].clone()
    return optimizer


def rate_of(optimizer: Optimizer) -> float:
    """Return the learning rate as it is now; nan for an optimizer without one."""
    return float(optimizer.param_groups[0].get("lr", float("nan")))


def why_not_plain(optimizer: Optimizer) -> str:
    """Return why an optimizer is not ``x <- x - eta g``, or an empty text."""
    if type(optimizer) is not SGD:
        return f"{type(optimizer).__name__} is not plain SGD"
    group = optimizer.param_groups[0]
    used = [f"{name}={group[name]}" for name in ("momentum", "weight_decay", "nesterov", "maximize") if group[name]]
    return f"SGD with {', '.join(used)} is not plain" if used else ""
