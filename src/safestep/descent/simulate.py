"""Gradient descent of many runs at once: real torch optimizers and schedulers on one parameter, a run a row."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

from safestep._torch.threads import one_thread
from safestep.descent.checks import check_counts, check_elementwise, check_objective, start_of
from safestep.descent.driver import Driver, MakeOptimizer, MakeScheduler, Schedule, rate_of, why_not_plain
from safestep.descent.ensemble import Ensemble, Setting, snapshot, stacked
from safestep.descent.noise import Noise, Silent, StepLoss
from safestep.descent.objective import Objective, by_variable
from safestep.descent.quadratic import Quadratic
from safestep.descent.quadratic_sum import QuadraticSum
from safestep.descent.rows import RowGuard
from safestep.descent.rule import RuleOptimizer
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
        traces: so many of the first runs are recorded whole. By default all of up to 8 runs, none of more: memory does
            not grow with the number of steps unless traces do.
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
    # beyond the largest number of a narrow type there is inf, which no limit may pass
    limit = min(limit, torch.finfo(dtype).max)
    if traces is None:
        traces = runs if runs <= _TRACES else 0
    # one thread: the tensors are too small to gain by more, and sums keep their order
    with torch.random.fork_rng(devices=[]), one_thread(), torch.inference_mode(False):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU, too
        check_objective(objective, begin)
        check_elementwise(optimizer, objective.dimension)
        paths = torch.empty(traces, steps + 1, objective.dimension, dtype=dtype)
        parameter = torch.nn.Parameter(by_variable(begin.expand(runs, -1)))
        stepper, pace = driver.on(parameter)
        losses = noise.losses(objective, runs, torch.Generator().manual_seed(seed))
        guard = None if policy is None else RowGuard(policy, runs)
        wanted, moments, rates, scales, ratios = set(at.tolist()), [], [], [], []
        diverged, trouble, rate = torch.zeros(runs, dtype=torch.bool), "", math.nan
        points = parameter.detach()
        for step in range(steps + 1):
            if step > 0:
                rate, loss = rate_of(stepper), next(losses)
                gradient = _as_laid_out(loss.gradient(points), points)
                if not trouble and not math.isfinite(gradient.sum().item()):
                    trouble = _not_finite(gradient, points, _near(points, begin, limit), step)
                _take_step(parameter, gradient, stepper, loss, guard, step - 1)
                if pace is not None:
                    pace.step()
                if progress is not None:
                    progress(step)
            points = parameter.detach()  # anew: some optimizers put another tensor in its place
            if traces:
                paths[:, step] = points[:traces]
            if step in wanted:
                moments.append(snapshot(points, objective))
                rates.append(rate)
                diverged |= ~_near(points, begin, limit)
                if guard is not None:
                    scales.append(guard.scales.mean().item() if step else math.nan)
                    ratios.append(guard.ratios.median().item() if step else math.nan)
    why = why_not_plain(stepper) or ("a policy changes the steps" if policy is not None and policy.writes else "")
    moves = max(1, runs * steps)
    return Ensemble(
        setting=Setting(objective, noise, begin.double().clone(), partial(driver.rates, steps), why),
        steps=steps,
        runs=runs,
        at=at,
        moments=stacked(moments),
        rates=torch.tensor(rates, dtype=torch.float64),
        scales=torch.tensor(scales, dtype=torch.float64) if guard else None,
        ratios=torch.tensor(ratios, dtype=torch.float64) if guard else None,
        shortened=guard.shortened / moves if guard else 0.0,
        held=guard.held / moves if guard else 0.0,
        last=points,
        traces=paths,
        diverged=diverged,
        trouble="; ".join(filter(None, [trouble, _divergence(diverged, objective, driver, steps)])),
    )


def _as_laid_out(gradient: Tensor, points: Tensor) -> Tensor:
    """Return a gradient of the type and memory order of the points: fused optimizers take the order for granted."""
    if gradient.dtype == points.dtype and gradient.stride() == points.stride():
        return gradient
    return torch.empty_like(points).copy_(gradient)


def _take_step(
    parameter: torch.nn.Parameter,
    gradient: Tensor,
    optimizer: Optimizer,
    loss: StepLoss,
    guard: RowGuard | None,
    step: int,
) -> None:
    """Take one step of every run, as far as the guard lets it go."""
    if isinstance(optimizer, RuleOptimizer):
        optimizer.gradient = loss.gradient
    if guard is None:
        parameter.grad = gradient
        optimizer.step()
        return
    # copies: an optimizer may write into the gradient, as a clipping hook or Nesterov's momentum does
    before, parameter.grad = parameter.detach().clone(), gradient.clone()
    optimizer.step()
    after = parameter.detach()
    p = after - before
    slope, bend = (gradient * p).sum(-1), loss.bend(before, p)
    with torch.no_grad():
        parameter.copy_(guard.settle(before, after, slope, bend, step))


def _near(points: Tensor, begin: Tensor, limit: float) -> Tensor:
    """Return which runs are not diverged, shape ``(runs,)``."""
    return ((points - begin).abs() <= limit).all(-1)  # nan compares false


def _not_finite(gradient: Tensor, points: Tensor, near: Tensor, step: int) -> str:
    """Return where a gradient that is not finite was seen; far away it is divergence and no surprise."""
    bad = ~gradient.isfinite().all(-1) & near
    if not bad.any():
        return ""
    run = int(bad.nonzero()[0])
    return (
        f"the gradient of {int(bad.sum())} of {len(bad)} runs was not finite in step {step}: "
        f"{gradient[run].tolist()} at {points[run].tolist()} (run {run})"
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
