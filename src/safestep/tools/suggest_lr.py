"""suggest_lr(): the learning rate at which the next step would reach the boundary."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from safestep.distributed.ranks import EVERYONE, Ranks, check_ranks
from safestep.errors import MeasurementError
from safestep.guard.validation import averaged_apart, check_attachment, check_functions, check_parts
from safestep.policy import Watch
from safestep.radius import Radius, SoftmaxRadius
from safestep.recording.logits import LogitsFinder
from safestep.recording.optimizer_hooks import innermost
from safestep.tools.learning_rate import LearningRate, Outcome
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

    The closure runs once. The steps are taken by copies of the optimizers and undone: afterwards model, optimizers, an
    attached guard and every random generator are bit for bit as before, also if the closure raises. It takes the time
    of about five training steps. Call it between steps, not between a forward and its backward.

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
        The rates, r at the present ones, and how far to believe it. ``str()`` is one line, and
        `safestep.plots.ratio_over_rates` draws it.

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
        The answer is for the *next* step on *this* batch, and no promise for the run: gradients, momentum and the
        spread of the logits change within a few steps, and Adam's first step is not typical. Below the boundary the
        local picture of the loss holds; that its rate trains best, nobody promises. On several ranks all ask together
        and get one answer, for the whole batch. Forward hooks and step hooks of your own run as in a step.
    """
    if not callable(closure):
        raise TypeError(
            f"closure={closure!r}: expected a function without arguments that runs forward and backward on the batch, "
            "such as lambda: loss_fn(model(x), y).backward()"
        )
    if not (isinstance(target, (int, float)) and math.isfinite(target) and target > 0):
        raise ValueError(f"target={target!r}: expected a positive number, in units of the radius")
    radius = SoftmaxRadius(method="exact") if radius is None else radius
    given = averaged_apart([*optimizer] if isinstance(optimizer, (list, tuple)) else [optimizer])
    optimizers = [innermost(one) for one in given]
    check_functions(logits, ())
    check_ranks(model, ranks)
    check_parts(radius, Watch())
    check_attachment(model, optimizers, "undo")
    if any(isinstance(one, LBFGS) for one in optimizers):
        raise MeasurementError(
            "LBFGS searches its own step, which is no function of its learning rate: expected another optimizer. "
            "attach(model, optimizer) watches the r of its steps"
        )
    present, shares = _rates(optimizers)
    lead = next((rate for rate in present if rate), 0.0)

    def rates_at(lr: float) -> tuple[float, ...]:
        # Not through the shares where nothing changes: 0.1 * (0.3 / 0.1) is not 0.3.
        return present if lr == lead else tuple(share * lr if share else 0.0 for share in shares)

    trials: Trials = {}
    with trial_steps(model, optimizers, closure, radius, logits, ranks) as trial:

        def ratio(lr: float) -> float:
            if lr not in trials:
                trials[lr] = trial(rates_at(lr))
            return trials[lr].reading.ratio

        status, lr = _search(ratio, trials, lead, target)
    reading = trials[lr].reading if lr in trials else next(reversed(trials.values())).reading
    return LearningRate(
        lr=lr,
        lrs=rates_at(lr),
        present_lr=lead,
        present_lrs=present,
        ratio=trials[lead].reading.ratio if lead else 0.0,
        target=float(target),
        reached=reading.ratio if lr in trials else math.nan,
        status=status,
        exact=status is Outcome.FOUND and reading.exact,
        method=reading.method,
        message=_message(status, trials),
        trials=tuple((tried, trial.reading.ratio) for tried, trial in trials.items()),
    )


Trials = dict[float, Trial]
"""Trial steps by the rate of the leading group, the first whose rate is not 0, in the order they were taken."""


def _rates(optimizers: Sequence[Optimizer]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the present rate of every group, and each as a multiple of the leading one.

    Where all are 0, the rates that a schedule began with tell the proportions.
    """
    groups = [(type(one).__name__, group) for one in optimizers for group in one.param_groups]
    for name, group in groups:
        if not isinstance(group.get("lr"), (int, float, Tensor)):
            raise MeasurementError(
                f"a parameter group of {name} has the learning rate {group.get('lr')!r}: expected a number. An "
                "optimizer that sets its rate itself has none to suggest"
            )
    present = tuple(float(group["lr"]) for _, group in groups)
    initial = tuple(float(group.get("initial_lr", 0.0)) for _, group in groups)
    base = next((rates for rates in (present, initial) if any(rates)), (1.0,) * len(groups))
    lead = next(rate for rate in base if rate)
    return present, tuple(rate / lead for rate in base)


def _search(ratio: Callable[[float], float], trials: Trials, present: float, target: float) -> tuple[Outcome, float]:
    """Go from a rate whose step tells something to the one whose step has r = target.

    Args:
        ratio: r of the step at a rate; fills ``trials``.
        trials: what was tried so far.
        present: the rate to begin at.
        target: r to reach.

    Returns:
        What came of it, and the rate (nan or inf if there is none).
    """

    def off(lr: float) -> float:
        return abs(ratio(lr) / target - 1.0) if math.isfinite(ratio(lr)) else math.inf

    rates = (present, *_FALLBACKS) if present else _FALLBACKS
    lr = next((lr for lr in rates if math.isfinite(ratio(lr)) and trials[lr].moved), math.nan)
    if math.isnan(lr) and any(trial.moved for trial in trials.values()):
        return Outcome.NONFINITE, math.nan
    if math.isnan(lr) or ratio(lr) == 0.0:
        return Outcome.UNBOUNDED, math.inf
    for _ in range(_TRIES):
        lr *= target / ratio(lr)
        if not 0.0 < lr < math.inf or not 0.0 < ratio(lr) < math.inf or off(lr) <= _AGREES:
            break
    best = min(trials, key=off)
    if off(best) > _NEAR:
        return Outcome.UNREACHED, math.nan
    return Outcome.FOUND if off(best) <= _AGREES else Outcome.NEAR, best


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
