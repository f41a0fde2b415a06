"""Ways to walk the same noisy descent: all runs at once, and one run after another."""

from __future__ import annotations

import random
from functools import partial

import torch
from torch import Tensor
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from safestep.descent import PLANE, PUBLISHED_FIRST, Function, Gaussian, Objective, simulate
from safestep.schedules import Polynomial

RATE, BETA, ALPHA = 0.1, 0.1, 0.5
"""Base learning rate, and the polynomial schedule ``(1 + BETA t)^(-ALPHA)``."""
SCHEDULE = Polynomial(BETA, ALPHA)
USERS = Function(lambda x: x[..., 0] ** 2 + 2 * x[..., 1] ** 2, start=PLANE.start)
"""The plane as a user would write it, differentiated by torch."""


def all_at_once(objective: Objective, runs: int, steps: int, scale: float = 1.0) -> Tensor:
    """Return the last points of runs that are simulated as one ensemble, shape ``(runs, 2)``."""
    noise = Gaussian(scale)
    return simulate(objective, partial(SGD, lr=RATE), schedule=SCHEDULE, noise=noise, steps=steps, runs=runs).last


def floats(runs: int, steps: int, scale: float = 1.0) -> Tensor:
    """Return the same of a plain Python loop over floats, one run after another: the least that one would write."""
    gauss, last = random.Random(0).gauss, []
    for _ in range(runs):
        x1, x2 = PLANE.start
        for t in range(PUBLISHED_FIRST, PUBLISHED_FIRST + steps):
            rate = RATE * (1.0 + BETA * t) ** -ALPHA
            x1, x2 = x1 - rate * (2 * x1 + gauss(0.0, scale)), x2 - rate * (4 * x2 + gauss(0.0, scale))
        last.append((x1, x2))
    return torch.tensor(last, dtype=torch.float64)


def one_by_one(objective: Objective, runs: int, steps: int, scale: float = 1.0) -> Tensor:
    """Return the same of a torch optimizer and scheduler for each run, one run after another.

    The gradient of a user's function comes from backward, as everybody has it; that of the plane from its formula.
    """
    generator, curvatures = torch.Generator().manual_seed(0), torch.tensor([2.0, 4.0], dtype=torch.float64)
    by_backward, last = objective is not PLANE, []
    for _ in range(runs):
        x = torch.nn.Parameter(torch.tensor(PLANE.start, dtype=torch.float64))
        optimizer = SGD([x], lr=RATE)
        scheduler = LambdaLR(optimizer, lambda step: SCHEDULE(step + PUBLISHED_FIRST))
        for _ in range(steps):
            x.grad = scale * torch.randn(2, generator=generator, dtype=torch.float64)
            if by_backward:
                objective.value(x).backward()  # adds to the noise
            else:
                x.grad += curvatures * x.detach()
            optimizer.step()
            scheduler.step()
        last.append(x.detach())
    return torch.stack(last)
