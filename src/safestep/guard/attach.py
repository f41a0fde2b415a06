"""attach(): the one line that wires step, radius and policy to an optimizer."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from torch import nn
from torch.optim import Optimizer

from safestep.averaging import Averaged
from safestep.distributed.ranks import EVERYONE, Ranks, check_ranks
from safestep.errors import AttachError
from safestep.guard.diagnose import Diagnostic
from safestep.guard.guard import Guard
from safestep.guard.guard_options import GuardOptions
from safestep.guard.silence import disarm
from safestep.guard.validation import (
    averaged_apart,
    check_attachment,
    check_forward,
    check_functions,
    check_model,
    check_most,
    check_only_guard,
    check_parts,
)
from safestep.logs.sinks import Log, Sinks
from safestep.policy import Cap, Policy
from safestep.radius import Radius, SoftmaxRadius, default_limit
from safestep.radius.default_limit import targets_for
from safestep.recording.logits import LogitsFinder
from safestep.recording.nonfinite import parameters_of
from safestep.recording.optimizer_hooks import innermost, layers
from safestep.recording.readout import Readout, readout_of

_guarded: weakref.WeakKeyDictionary[Optimizer, weakref.ref[Guard]] = weakref.WeakKeyDictionary()


def attach(
    model: nn.Module,
    optimizer: Optimizer | Sequence[Optimizer],
    *,
    radius: Radius | None = None,
    policy: Policy | None = None,
    logits: LogitsFinder | None = None,
    forward: Callable[..., Any] | Readout | None = None,
    diagnostics: Iterable[Diagnostic] = (),
    log: Log | Sequence[Log] | None = None,
    log_every: int = 1,
    history: int = 10_000,
    on_nonfinite: Literal["undo", "skip"] = "undo",
    ranks: Ranks | None = EVERYONE,
    max_forwards: int = 256,
    probes: Iterable[Diagnostic] = (),
) -> Guard:
    r"""Guard the steps of an optimizer; the training loop stays as it is.

    Before each step the parameters are copied, after it the displacement ``p`` is measured along the forwards that
    backward reached, and the parameters are put at ``theta_before + s p`` with the scale ``s`` that the policy says.
    A step whose scale is 1 is not written to: training inside the radius is bit for bit training without a guard.

    Args:
        model: the module that the loop calls; its output holds the logits.
        optimizer: a torch optimizer, a wrapper with one in ``.optimizer``, or several optimizers of one model. With
            several the guard acts after the last of them stepped, or on what has moved before the model is used or one
            of them steps again.
        radius: how far a step may go; by default the one the policy is made for: curvature for `Throttle`, else
            `default_limit`, the length that training wants, longer under SGD and lower where learning rates come down
            (the softmax radius for an optimizer that maximises, and with ``forward=``).
        policy: what to do about it; ``Cap(1.0)`` by default.
        logits: from the model's output to its logits of shape ``(*samples, classes)``, or to several heads in a tuple
            or dict. Without it every output that backward reaches is a head if its gradient is that of a softmax (or of
            sigmoids): its class dimension and a factor that the loss multiplies it by are read off the gradient.
        forward: a way to logits for measuring only, where training never makes them (fused or chunked cross-entropy): a
            function that takes the model and the arguments of its forward, or a `Readout` of one.
        diagnostics: functions that add columns to the records; `safestep.tools.diagnostics` has some.
        log: a path to append each step to, CSV if it ends in ``.csv`` and JSON lines if in ``.jsonl``, in a folder that
            is made if missing; a sink of `safestep.logs`, or any function that takes each report; or a list of these.
            Of several ranks only rank 0 writes. A sink that fails is said and dropped.
        log_every: log every n-th step, and those between that nobody should miss; see `safestep.logs.Every`.
        history: how many of the latest reports ``guard.history`` keeps; the log keeps them all.
        on_nonfinite: ``"undo"`` puts the parameters back after a step that is not finite; ``"skip"`` looks at the
            gradients before the step and, where they are bad, keeps the optimizer from stepping, state included (with
            a closure the gradients come too late for that: such steps are undone).
        ranks: on several processes, which of them take each step together, with one r and one scale, and how long they
            wait for each other; every one of them attaches. By default those of a DistributedDataParallel model, and
            otherwise all; None for a guard that asks no other rank.
        max_forwards: how many micro-batches of one step are kept until the step: their inputs by reference, some
            kilobytes of generators each, and under `CurvatureRadius` the gradient at their logits. Of more, r is
            measured on that many spread evenly over the step (the largest r may be on another), the record says so,
            and no reading is called exact.
        probes: the former name of ``diagnostics``, with a warning.

    Returns:
        The guard. It lives as long as the optimizer does and may be dropped. If training goes on without that
        optimizer, or by another one, a warning says so.

    Raises:
        AttachError: if the model or optimizer is not one, has a guard already, or they share no parameter. Two guards
            at a time, as of a generator and a discriminator, need models and optimizers without a common parameter.
        OSError: if a log cannot be opened.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(4, 3)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=1000.0)
        >>> guard = attach(model, optimizer)
        >>> x, y = torch.randn(8, 4), torch.randint(0, 3, (8,))
        >>> torch.nn.functional.cross_entropy(model(x), y).backward()
        >>> optimizer.step()
        >>> guard.last.status, round(guard.last.applied_ratio, 6)
        (<Status.CAPPED: 'capped'>, 1.0)

    Note:
        Nothing is promised for optimizers that keep a second copy of the weights in their state (Schedule-Free,
        Lookahead, MADGRAD, Prodigy, float32 masters): the copy does not follow the rescaled parameters. attach() warns.
        For Schedule-Free under a guard take `Averaged`, whose averages follow the steps as they were taken.
    """
    check_model(model)
    asked = list(optimizer) if isinstance(optimizer, (list, tuple)) else [optimizer]
    given = averaged_apart(asked)
    optimizers = [innermost(one) for one in given]
    for one in optimizers:
        if (reference := _guarded.get(one)) is not None and (known := reference()) is not None and known.attached:
            raise AttachError(f"this {type(one).__name__} has a guard already; call its detach() first")
    policy = Cap(1.0) if policy is None else policy
    check_parts(radius, policy)
    if radius is None:
        radius = policy.default_radius or _default_radius(asked, optimizers, unseen=forward is not None)
    if probes:
        warnings.warn("attach(probes=...) is now called diagnostics=", DeprecationWarning, stacklevel=2)
    diagnostics = (*diagnostics, *probes)
    check_functions(logits, diagnostics)
    check_forward(forward, logits)
    check_most(max_forwards)
    check_ranks(model, ranks)
    sinks = Sinks(log, log_every)  # before anything is touched: it refuses what is no log
    check_attachment(model, optimizers, on_nonfinite, [w for one in given for w in layers(one)[:-1]])
    others = {id(known): known for reference in _guarded.values() if (known := reference()) is not None}
    trained = [p for one in optimizers for p in parameters_of(one) if p.requires_grad]
    check_only_guard(model, trained, [known.trains for known in others.values() if known.attached])
    options = GuardOptions(
        radius=radius,
        policy=policy,
        logits=logits,
        diagnostics=diagnostics,
        log=sinks,
        history=history,
        skips=on_nonfinite == "skip",
        ranks=ranks,
        max_forwards=max_forwards,
        readout=readout_of(forward),
        joins=any(one in _guarded for one in optimizers),
    )
    guard = Guard(model, optimizers, options)
    disarm(model)
    for one in optimizers:
        _guarded[one] = weakref.ref(guard)
    return guard


def _default_radius(asked: Sequence[Any], optimizers: Sequence[Optimizer], *, unseen: bool) -> Radius:
    """Return the radius of steps where none is named; the logits are unseen where training makes none."""
    if unseen or any(group.get("maximize") for one in optimizers for group in one.param_groups):
        return SoftmaxRadius()
    averaged = any(isinstance(layer, Averaged) for one in asked for layer in layers(one))
    return default_limit(follow_schedule=False) if averaged else default_limit(**targets_for(optimizers))
