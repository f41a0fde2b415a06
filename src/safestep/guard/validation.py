"""What attach() checks before it touches anything, and what it says once about an optimizer."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.optim import Optimizer

from safestep._torch.unwrap import bare
from safestep._torch.warn_once import warn
from safestep.averaging import Averaged
from safestep.errors import AttachError
from safestep.policy import Policy, Watch
from safestep.radius import Radius
from safestep.recording.nonfinite import parameters_of
from safestep.recording.optimizer_hooks import layers

SECOND_COPIES = {
    "ScheduleFree": "the fast iterate z",
    "Lookahead": "the slow weights",
    "Prodigy": "the starting point x0",
    "DAdapt": "the starting point x0",
    "DoG": "the starting point x0",
    "MADGRAD": "the starting point x0, and the next parameters are built from it",
    "Ranger": "Lookahead's slow weights",
    "MixedPrecisionOptimizer": "float32 masters",
    "FP16_Optimizer": "float32 masters",
}
"""Optimizers (by a part of the class name) that keep a second copy of the weights, and which one."""
_INSTEAD = {"ScheduleFree": "safestep.Averaged around the plain optimizer, as Averaged(AdamW(..., betas=(0.0, 0.999)))"}


def check_attachment(
    model: object,
    optimizers: Sequence[Optimizer],
    on_nonfinite: str,
    wrappers: Sequence[object] = (),
) -> None:
    """Raise AttachError for what cannot be guarded; warn of what can only be guarded in part."""
    model = check_model(model)
    if isinstance(bare(model), torch.jit.ScriptModule):
        raise AttachError(
            f"{type(model).__name__}: scripted and traced modules call no hooks, so a guard cannot see their forwards. "
            "Attach to the module that was scripted and train that, or use torch.compile"
        )
    unmade = [*bare(model).parameters(), *(p for optimizer in optimizers for p in parameters_of(optimizer))]
    if any(isinstance(parameter, UninitializedParameter) for parameter in unmade):
        raise AttachError(
            f"{type(model).__name__} has lazy layers whose parameters have no shape yet: run one forward, such as "
            "model(inputs), then make the optimizer and attach"
        )
    if not optimizers:
        raise AttachError("expected at least one optimizer, saw an empty list")
    if len({id(optimizer) for optimizer in optimizers}) < len(optimizers):
        raise AttachError("the same optimizer was given twice")
    if on_nonfinite not in ("undo", "skip"):
        raise AttachError(f"on_nonfinite={on_nonfinite!r}: expected 'undo' or 'skip'")
    doubts = [*_parameter_doubts(model, optimizers)]
    for optimizer in (*optimizers, *wrappers):
        for part, copy in SECOND_COPIES.items():
            if part in type(optimizer).__name__:
                doubts.append(
                    f"{type(optimizer).__name__} keeps a second copy of the weights ({copy}), which does not follow "
                    f"the rescaled parameters: use policy=Watch() with it, or {_INSTEAD.get(part, 'another optimizer')}"
                )
    for doubt in doubts:
        warn(doubt)


def averaged_apart(given: list[Any]) -> list[Any]:
    """Return the optimizers to guard: of several that are averaged together each by itself.

    Raises:
        AttachError: if some are averaged and others not, or apart: a guard decides once all have stepped, and an
            average has to be of what it decided.
    """
    averaged = [layer for one in given for layer in layers(one) if isinstance(layer, Averaged)]
    if averaged and len(given) > 1:
        raise AttachError(
            f"expected one Averaged around all optimizers, saw it around {len(averaged)} of {len(given)}: a guard "
            "decides once all have stepped, so make one Averaged(first, second, ...) and attach(model, averaged)"
        )
    ends = [(one, layers(one)[-1]) for one in given]  # at an Averaged only where it has several
    return [part for one, end in ends for part in (end.optimizers if isinstance(end, Averaged) else (one,))]


def check_parts(radius: object, policy: object) -> None:
    """Raise AttachError for what is no radius, or no policy."""
    for name, part, kind, such in (
        ("radius", radius, Radius, "SoftmaxRadius()"),
        ("policy", policy, Policy, "Cap(1.0)"),
    ):
        if not (isinstance(part, kind) or (part is None and kind is Radius)):
            own = isinstance(part, type) and issubclass(part, kind)
            uncalled = f"; a class is none yet: {name}={getattr(part, '__name__', part)}(...)" if own else ""
            raise AttachError(
                f"{name}={part!r}: expected a safestep.{kind.__name__}, such as {such} or one of your own{uncalled}"
            )
    inner = policy.policy if isinstance(policy, Watch) and policy.policy is not None else policy
    _check_signature(inner, "scale", ("ratio", "length", "target", "state"))
    if radius is not None:
        _check_signature(radius, "measure", ("proposal", "state"))


def _check_signature(part: object, name: str, arguments: tuple[str, ...]) -> None:
    signature = inspect.signature(getattr(part, name))
    try:
        signature.bind(*arguments)
    except TypeError as error:
        raise AttachError(
            f"{type(part).__name__}.{name}{signature}: expected {name}({', '.join(arguments)}), see docs/extending.md"
        ) from error


def check_model(model: object) -> nn.Module:
    """Return a model; raise AttachError for what is none."""
    if isinstance(model, Optimizer):
        raise AttachError(
            "expected a torch.nn.Module as model, saw an optimizer: attach(model, optimizer), in this order"
        )
    if not isinstance(model, nn.Module):
        raise AttachError(f"expected a torch.nn.Module as model, saw {type(model).__name__}")
    return model


def check_only_guard(
    model: nn.Module, trained: Iterable[Tensor], others: Iterable[tuple[nn.Module, list[Tensor]]]
) -> None:
    """Raise AttachError if another guard would measure what this one moves, or the other way round.

    Args:
        model: to be guarded.
        trained: the parameters that its optimizers may move.
        others: the same of every other guard.
    """
    own, moved = set(bare(model).parameters()), set(trained)
    for other, theirs in others:
        if bare(other) is bare(model) or not own.isdisjoint(theirs) or not moved.isdisjoint(bare(other).parameters()):
            raise AttachError(
                f"{type(bare(other)).__name__} has a guard already, and each of two guards would keep only its own "
                "optimizer's part of the step inside, not the step: give both optimizers to one guard, "
                "attach(model, [a, b]), or call detach() of the other one first"
            )


def check_functions(logits: object, diagnostics: Sequence[object]) -> None:
    """Raise AttachError for an option that is no function."""
    if logits is not None and not callable(logits):
        raise AttachError(f"logits={logits!r}: expected a function from the model's output to its logits")
    if broken := [one for one in diagnostics if not callable(one)]:
        raise AttachError(f"diagnostics: expected functions of (step, forwards, report), saw {broken[0]!r}")


def check_forward(forward: object, logits: object) -> None:
    """Raise AttachError for a way to logits that is none, or two at once."""
    if forward is not None and not callable(getattr(forward, "function", forward)):
        raise AttachError(
            f"forward={forward!r}: expected a function of the model and its arguments, or a Readout of one"
        )
    if forward is not None and logits is not None:
        raise AttachError(
            "both forward= and logits=: forward= makes the logits itself, let it return what logits= would"
        )


def check_most(max_forwards: object) -> None:
    """Raise AttachError for a number of forwards that is none."""
    if isinstance(max_forwards, bool) or not isinstance(max_forwards, int) or max_forwards < 1:
        raise AttachError(
            f"max_forwards={max_forwards!r}: expected how many micro-batches of a step may be kept, a whole number of "
            "at least 1"
        )


def _parameter_doubts(model: nn.Module, optimizers: Sequence[Optimizer]) -> Iterator[str]:
    own = set(bare(model).parameters())
    stepped = [parameter for optimizer in optimizers for parameter in parameters_of(optimizer)]
    outside = sum(parameter not in own for parameter in stepped)
    if outside == len(stepped):
        raise AttachError(
            f"none of the optimizer's {len(stepped)} parameters belongs to the model ({type(model).__name__} with "
            f"{len(own)} parameters): attach the model that this optimizer trains"
        )
    if outside:
        yield (
            f"{outside} of the optimizer's {len(stepped)} parameters are not the model's: they are scaled with the "
            "step, but r does not see them"
        )
    if low := sorted({str(p.dtype) for p in stepped if p.dtype in (torch.bfloat16, torch.float16)}):
        yield (
            f"parameters in {', '.join(low)} round away most of a small step, so neither r nor the scale is exact: "
            "keep the parameters in float32 and use autocast"
        )


def is_scaler_step(optimizer: Optimizer) -> bool:
    """Return whether a gradient scaler drives this (fused) step: it unscales and skips by itself."""
    return getattr(optimizer, "found_inf", None) is not None
