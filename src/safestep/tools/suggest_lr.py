"""suggest_lr(): the learning rate at which the next step would reach the boundary."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import nn
from torch.optim import LBFGS, Optimizer

from safestep.distributed.ranks import EVERYONE, Ranks, check_ranks
from safestep.errors import MeasurementError
from safestep.guard.validation import check_attachment, check_functions, check_parts
from safestep.policy import Watch
from safestep.radius import Radius, SoftmaxRadius
from safestep.recording.logits import LogitsFinder
from safestep.recording.optimizer_hooks import innermost
from safestep.tools.learning_rate import LearningRate, Outcome
from safestep.tools.rates import Rates
from safestep.tools.trial import Trial, trial_steps

_AGREES = 1e-4
"""How far, relative to the target, r of the trial step at the suggested rate may be from it."""
_NEAR = 0.05
"""Up to which such a distance the rate is still worth suggesting: the excess that safestep's own protection allows."""
_TRIES = 5
"""Trial steps towards the target. Where r is proportional to the rate the first one hits it, but for rounding."""
_FALLBACKS = (1e-3, 1e3, 1e9)
"""Rates to look at where the step at the present one tells nothing: none, lost in rounding, or overflowing."""


def suggest_lr(
    model: nn.Module,
    optimizer: Optimizer | Sequence[Optimizer],
    closure: Callable[[], object],
    *,
    target: float = 1.0,
    radius: Radius | None = None,
    logits: LogitsFinder | None = None,
    ranks: Ranks | None = EVERYONE,
) -> LearningRate:
    r"""Return the largest learning rate whose next step would have r = target, for this model, optimizer and batch.

    Equation:
        ``eta* = eta target / r(eta)``, as ``r(c p) = c r(p)`` and the step ``p`` is proportional to the rate. That is
        not taken on trust: a trial step is taken at ``eta*`` too, and r measured there.

    The closure runs once. The steps are taken by copies of the optimizers and undone, so that afterwards parameters,
    ``.grad``, buffers, flags, the optimizers with their state and rates, an attached guard and every random generator
    are bit for bit as before, also if the closure raises. It takes the time of about five training steps.

    Call it between steps: parameters are written to and written back, which torch notices in a graph that still waits
    for its backward.

    Args:
        model: the module that the closure calls; its output holds the logits.
        optimizer: as for `safestep.attach`: one, a wrapper, or several of one model. All rates, of all groups, are
            scaled by the same factor; a rate of 0 stays 0. Where all are 0 (the first step of a warm-up) the
            proportions are those of the groups' ``initial_lr``, else all are equal.
        closure: what the training loop does before ``optimizer.step()``: forward, backward (of every micro-batch),
            gradient clipping. Gradients are None when it begins, so ``zero_grad`` may be in it or not. No
            ``optimizer.step()``, and no gradient scaler: its factor would be taken for gradient.
        target: the r to aim at, dimensionless, above 0; 1 is the boundary.
        radius: how far a step may go; ``SoftmaxRadius(method="exact")`` by default.
        logits: from the model's output to its logits, where they are neither the output itself nor its ``.logits``.
        ranks: as for `safestep.attach`.

    Returns:
        The rates, r at the present ones, and how far to believe it. ``str()`` is one line, ``.plot()`` a picture.

    Raises:
        AttachError: if the model or optimizer is not one, or they share no parameter.
        MeasurementError: if r cannot be measured, the closure steps an optimizer, a group has no learning rate, or
            the optimizer is LBFGS, whose step is a search and no function of the rate.
        TypeError: if ``closure`` is no function.
        ValueError: if ``target`` is not a positive number.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(4, 3)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> x, y = torch.randn(8, 4), torch.randint(0, 3, (8,))
        >>> def closure():
        ...     torch.nn.functional.cross_entropy(model(x), y).backward()
        >>> found = suggest_lr(model, optimizer, closure)
        >>> found.status, round(found.reached, 4), round(found.lr * found.ratio / 0.1, 3)
        (<Outcome.FOUND: 'found'>, 1.0, 1.0)

    Note:
        The answer is for the *next* step on *this* batch: it is no promise for the run. Gradients, momentum and the
        spread of the logits change within a few steps; Adam's first step, with its empty moments, is not typical. Ask
        again during training, on several batches, and take the smallest; or let a guard keep every step inside. Below
        the boundary the local picture of the loss holds; that its rate trains best, nobody promises. On several ranks
        all ask together and get one answer, for the whole batch. Forward hooks and step hooks of your own run as in a
        step.
    """
    if not callable(closure):
        raise TypeError(
            f"closure={closure!r}: expected a function without arguments that runs forward and backward on the batch, "
            "such as lambda: loss_fn(model(x), y).backward()"
        )
    if not (isinstance(target, (int, float)) and math.isfinite(target) and target > 0):
        raise ValueError(f"target={target!r}: expected a positive number, in units of the radius")
    radius = SoftmaxRadius(method="exact") if radius is None else radius
    optimizers = [innermost(one) for one in (optimizer if isinstance(optimizer, (list, tuple)) else [optimizer])]
    check_functions(logits, ())
    check_ranks(model, ranks)
    check_parts(radius, Watch())
    check_attachment(model, optimizers, "undo")
    if any(isinstance(one, LBFGS) for one in optimizers):
        raise MeasurementError(
            "LBFGS searches its own step, which is no function of its learning rate: expected another optimizer. "
            "attach(model, optimizer) watches the r of its steps"
        )
    rates = Rates.of(optimizers)
    with trial_steps(model, optimizers, closure, radius, logits, ranks) as trial:
        status, lr, trials = _search(lambda lr: trial(rates.at(lr)), rates.lead, target)
    return _answer(status, lr, trials, rates, float(target))


Trials = dict[float, Trial]
"""Trial steps by the rate of the leading group, in the order they were taken."""


def _search(
    trial: Callable[[float], Trial], present: float, target: float
) -> tuple[Outcome, float, dict[float, Trial]]:
    """Go from a rate whose step tells something to the one whose step has r = target.

    Returns:
        What came of it, the rate (nan or inf if there is none), and the trials.
    """
    trials: Trials = {}

    def ratio(lr: float) -> float:
        if lr not in trials:
            trials[lr] = trial(lr)
        return trials[lr].reading.ratio

    def off(lr: float) -> float:
        return abs(ratio(lr) / target - 1.0) if math.isfinite(ratio(lr)) else math.inf

    rates = (present, *_FALLBACKS) if present else _FALLBACKS
    lr = next((lr for lr in rates if math.isfinite(ratio(lr)) and trials[lr].moved), math.nan)
    if math.isnan(lr) and any(known.moved for known in trials.values()):
        return Outcome.NONFINITE, math.nan, trials
    if math.isnan(lr) or ratio(lr) == 0.0:
        return Outcome.UNBOUNDED, math.inf, trials
    for _ in range(_TRIES):
        lr *= target / ratio(lr)
        if not 0.0 < lr < math.inf or not 0.0 < ratio(lr) < math.inf or off(lr) <= _AGREES:
            break
    best = min(trials, key=off)
    if off(best) > _NEAR:
        return Outcome.UNREACHED, math.nan, trials
    return Outcome.FOUND if off(best) <= _AGREES else Outcome.NEAR, best, trials


def _answer(status: Outcome, lr: float, trials: Trials, rates: Rates, target: float) -> LearningRate:
    reading = trials[lr].reading if lr in trials else next(reversed(trials.values())).reading
    return LearningRate(
        lr=lr,
        lrs=rates.at(lr),
        present_lr=rates.lead,
        present_lrs=rates.present,
        ratio=trials[rates.lead].reading.ratio if rates.lead else 0.0,
        target=target,
        reached=reading.ratio if lr in trials else math.nan,
        status=status,
        exact=status is Outcome.FOUND and reading.exact,
        method=reading.method,
        message=_message(status, trials),
        trials=tuple((tried, trial.reading.ratio) for tried, trial in trials.items()),
    )


def _message(status: Outcome, trials: Trials) -> str:
    tried = ", ".join(f"r = {trial.reading.ratio:.4g} at {lr:.4g}" for lr, trial in trials.items())
    return {
        Outcome.FOUND: "",
        Outcome.NEAR: f"r follows the rate only roughly (coarsely rounded parameters?): {tried}",
        Outcome.UNBOUNDED: "the step moves no logit against another at any rate",
        Outcome.UNREACHED: "r does not follow the learning rate to the target: the optimizer keeps or limits its step "
        f"sizes itself, or the parameters round the step away: {tried}",
        Outcome.NONFINITE: "the gradient, the step or its r is not finite: look at the loss and the data",
    }[status]
