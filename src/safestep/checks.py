"""What attach() checks before it touches anything, and what it says once about an optimizer."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import torch
from torch import nn
from torch.optim import Optimizer

from safestep.errors import AttachError, SafestepWarning
from safestep.nonfinite import parameters_of
from safestep.wrappers import bare

SECOND_COPIES = {
    "ScheduleFree": "the fast iterate z",
    "Lookahead": "the slow weights",
    "Prodigy": "the starting point x0",
    "DAdapt": "the starting point x0",
    "MixedPrecisionOptimizer": "float32 masters",
    "FP16_Optimizer": "float32 masters",
}
"""Optimizers (by a part of the class name) that keep a second copy of the weights, and which one."""


def check_attachment(
    model: object,
    optimizers: Sequence[Optimizer],
    radius: object,
    policy: object,
    on_nonfinite: str,
    wrappers: Sequence[object] = (),
) -> None:
    """Raise AttachError for what cannot be guarded; warn of what can only be guarded in part."""
    if not isinstance(model, nn.Module):
        raise AttachError(f"expected a torch.nn.Module as model, saw {type(model).__name__}")
    if isinstance(bare(model), torch.jit.ScriptModule):
        raise AttachError(
            f"{type(model).__name__}: scripted and traced modules call no hooks, so a guard cannot see their forwards. "
            "Attach to the module that was scripted and train that, or use torch.compile"
        )
    if not optimizers:
        raise AttachError("expected at least one optimizer, saw an empty list")
    if len({id(optimizer) for optimizer in optimizers}) < len(optimizers):
        raise AttachError("the same optimizer was given twice")
    for value, name, method in ((radius, "radius", "measure"), (policy, "policy", "scale")):
        if isinstance(value, type) or not hasattr(value, method):
            raise AttachError(f"{name}={value!r}: expected an object with a {method}() method, such as Cap(1.0)")
    if on_nonfinite not in ("undo", "skip"):
        raise AttachError(f"on_nonfinite={on_nonfinite!r}: expected 'undo' or 'skip'")
    doubts = [*_parameter_doubts(model, optimizers)]
    for optimizer in (*optimizers, *wrappers):
        for part, copy in SECOND_COPIES.items():
            if part in type(optimizer).__name__:
                doubts.append(
                    f"{type(optimizer).__name__} keeps a second copy of the weights ({copy}), which does not follow "
                    "the rescaled parameters: use policy=Watch() with it, or another optimizer"
                )
    for doubt in doubts:
        warnings.warn(doubt, SafestepWarning, stacklevel=3)


def check_functions(logits: object, probes: Sequence[object]) -> None:
    """Raise AttachError for an option that is no function."""
    if logits is not None and not callable(logits):
        raise AttachError(f"logits={logits!r}: expected a function from the model's output to its logits")
    if broken := [probe for probe in probes if not callable(probe)]:
        raise AttachError(f"probes: expected functions of (step, seen, report), saw {broken[0]!r}")


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
