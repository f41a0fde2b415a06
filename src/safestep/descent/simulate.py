"""Gradient descent of many runs at once: real torch optimizers and schedulers on one parameter, a run a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.optim import SGD

from safestep._torch.threads import one_thread
from safestep.descent.checks import check_counts, check_elementwise, check_objective, start_of
from safestep.descent.driver import Driver, MakeOptimizer, MakeScheduler, Schedule, why_not_plain
from safestep.descent.ensemble import Ensemble, Setting, stacked
from safestep.descent.noise import Noise, Silent
from safestep.descent.objective import Objective, by_variable
from safestep.descent.quadratic import Quadratic
from safestep.descent.quadratic_sum import QuadraticSum
from safestep.descent.rows import RowGuard
from safestep.descent.walk import Walk
from safestep.policy import Policy

PLAIN: MakeOptimizer = partial(SGD, lr=0.1)
"""Plain gradient descent at the published base rate."""
RECORDS = 100
"""At most so many steps are recorded by default, whatever the number of steps."""
PUBLISHED_FIRST = 2
"""``t`` of the first step in the published runs: their counter starts at 1 and is raised before it is used."""
_TRACES = 8


def simulate(
    objective: Objective,
    optimizer: MakeOptimizer = PLAIN,
    *,
    schedule: Schedule | None = None,
    first: int = PUBLISHED_FIRST,
    scheduler: MakeScheduler | None = None,
    noise: Noise | None = None,
    start: Sequence[float] | Tensor | None = None,
    steps: int = 50,
    runs: int = 1,
    seed: int = 0,
    policy: Policy | None = None,
    records: int = RECORDS,
    traces: int | None = None,
    limit: float = 1e6,
    dtype: torch.dtype = torch.float64,
    progress: Callable[[int], None] | None = None,
) -> Ensemble:
    r"""Descend on an objective, many runs at once.

    Equation:
        For plain SGD, run by run: ``x_k = x_{k-1} - eta_k g_k(x_{k-1})``, ``eta_k = eta_0 s(t)`` with the schedule's
        factor ``s`` at ``t = first + k - 1`` for step ``k = 1, 2, ...``

    Args:
        objective: ``f``, of ``d`` variables.
        optimizer: from a list with one parameter, shape ``(runs, d)``, to a torch optimizer; a class, or a partial of
            one with its options. `Rule` makes one of a function. It must treat every number by itself.
        schedule: factor of the base learning rate by ``t``, such as those of `safestep.schedules`.
        first: ``t`` of the first step: 2 as in the published runs, 0 as torch's own schedulers count.
        scheduler: from the optimizer to a torch scheduler instead; it steps after every step of the optimizer.
        noise: on the gradients: `Gaussian`, `Batches`, or None.
        start: where the runs begin, ``d`` numbers or one row a run; the objective's by default.
        steps: at least 0.
        runs: at least 1.
        seed: of the noise. Equal arguments give equal runs; a run is another one in an ensemble of another size.
        policy: `Cap`, `Pin`, `Throttle` or `Watch` on the curvature ratio of every run's own step.
        records: statistics are recorded at so many steps at most, evenly spaced; at least 2.
        traces: so many of the first runs are recorded whole. By default 1 of one run, 8 of up to 8, none of more: memory
            does not grow with the number of steps unless traces do.
        limit: a run farther than this from its start, in any coordinate, counts as diverged; it goes on all the same.
        dtype: of the points.
        progress: is called with the number of every step that was taken.

    Returns:
        The ensemble.

    Raises:
        DescentError: for numbers outside the ranges above, shapes that do not go together, an optimizer that mixes
            runs, and an objective that gives no finite values where the runs start.

    Example:
        >>> import math
        >>> from safestep.descent import PLANE, Gaussian, simulate
        >>> decay = lambda t: math.exp(-0.1 * t)
        >>> ensemble = simulate(PLANE, schedule=decay, noise=Gaussian(), steps=1000, runs=2000)
        >>> round(ensemble.moments.mean[-1, 0].item(), 1)  # stalls far from the minimum at 0
        -0.8

    Note:
        Memory is that of a few tensors of shape ``(runs, d)``. The objective's own randomness, if it has any, is
        seeded too and the global generator is left alone.

    Source:
        "Stochastic Gradient Descent", Dive into Deep Learning (d2l.ai), for the published counter and runs.
    """
    check_counts(steps=steps, runs=runs, seed=seed, records=records, traces=traces, limit=limit, first=first)
    noise, driver = Silent() if noise is None else noise, Driver(optimizer, schedule, first, scheduler)
    begin = start_of(objective, start, runs, dtype)
    at = torch.linspace(0, steps, min(steps + 1, records), dtype=torch.float64).round().long()
    if traces is None:
        traces = runs if runs <= _TRACES else 0
    # one thread: the tensors are too small to gain by more, and sums keep their order
    with torch.random.fork_rng(devices=[]), one_thread(), torch.inference_mode(False):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU, too
        check_objective(objective, begin)
        check_elementwise(optimizer, objective.dimension)
        parameter = torch.nn.Parameter(by_variable(begin.expand(runs, -1)))
        stepper, pace = driver.on(parameter)
        guard = None if policy is None else RowGuard(policy, runs)
        losses = noise.losses(objective, runs, torch.Generator().manual_seed(seed))
        paths = torch.empty(traces, steps + 1, objective.dimension, dtype=dtype)
        walk = Walk(parameter, stepper, pace, losses, guard, limit)
        walk.go(objective, at.tolist(), paths, progress)
    why = why_not_plain(stepper) or ("a policy changes the steps" if policy is not None and policy.writes else "")
    moves = max(1, runs * steps)
    return Ensemble(
        setting=Setting(objective, noise, begin.double().clone(), partial(driver.rates, steps), why),
        steps=steps,
        runs=runs,
        at=at,
        moments=stacked(walk.moments),
        rates=torch.tensor(walk.rates, dtype=torch.float64),
        scales=torch.tensor(walk.scales, dtype=torch.float64) if guard else None,
        ratios=torch.tensor(walk.ratios, dtype=torch.float64) if guard else None,
        shortened=guard.shortened / moves if guard else 0.0,
        held=guard.held / moves if guard else 0.0,
        last=parameter.detach(),
        traces=paths,
        diverged=walk.diverged,
        trouble="; ".join(filter(None, [walk.trouble, _divergence(walk.diverged, objective, driver, steps)])),
    )


def _divergence(diverged: Tensor, objective: Objective, driver: Driver, steps: int) -> str:
    """Return how many runs diverged, and why where that is plain."""
    if not diverged.any():
        return ""
    text = f"{int(diverged.sum())} of {len(diverged)} runs diverged"
    if isinstance(objective, (Quadratic, QuadraticSum)):
        steepest = torch.linalg.eigvalsh(objective.matrix)[-1].item()
        margin = driver.rates(steps).max().item() * steepest
        if margin > 2:
            text += f": the largest rate times the steepest curvature is {margin:.3g}, and 2 is the limit of plain SGD"
    return text
