"""Whether an optimizer treats every run of an ensemble as it would treat that run alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from safestep.descent.objective import DescentError
from safestep.descent.rule import Rule
from safestep.errors import first_line

MakeOptimizer = Callable[[list[Tensor]], Optimizer]

_REASONS = {
    "LBFGS": "it searches along one line for all runs together",
    "Muon": "it orthogonalises the parameter as one matrix, and the runs are its rows",
    "Adafactor": "its second moments are means over rows and columns, and the runs are the rows",
    "SparseAdam": "it takes sparse gradients only",
}
_TOGETHER = "a run goes elsewhere beside other runs than alone (or by chance of its own, which belongs into noise=)"
_STEPS = 4
_SCALES = (1.0, 100.0, 0.01)
"""Of the gradients of three runs: what normalises over runs treats these as one."""
_CLOSE = 1e-9
"""Relative: vectorised and single arithmetic round differently."""


def check_elementwise(make: MakeOptimizer, dimension: int) -> None:
    """Refuse an optimizer under which runs would act on each other.

    Three runs take a few steps together, one a row, and then each alone, with the same gradients.

    Args:
        make: from a list with one parameter to the optimizer.
        dimension: numbers in a row.

    Raises:
        DescentError: if a run goes elsewhere beside others than alone; the message says why where that is known.

    Example:
        >>> check_elementwise(torch.optim.Adam, 2)
        >>> check_elementwise(torch.optim.LBFGS, 2)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        safestep.descent.objective.DescentError: LBFGS ... one line for all runs together...
    """
    if not callable(make):
        raise DescentError(
            f"optimizer = {make!r}: expected a function from a list with one parameter to an optimizer, such as "
            "partial(torch.optim.SGD, lr=0.1)"
        )
    name = _name(make)
    if name in _REASONS:
        raise _refusal(name, _REASONS[name])
    generator = torch.Generator().manual_seed(0)
    scales = torch.tensor(_SCALES, dtype=torch.float64)[:, None]
    gradients = [
        scales * torch.randn(len(_SCALES), dimension, generator=generator, dtype=torch.float64) for _ in range(_STEPS)
    ]
    start = torch.randn(len(_SCALES), dimension, generator=generator, dtype=torch.float64)
    together = _walk(make, start, gradients, name)
    for run in range(len(_SCALES)):
        # an optimizer alone has one vector; a rule is promised rows
        row = slice(run, run + 1) if isinstance(make, Rule) else run
        alone = _walk(make, start[row], [gradient[row] for gradient in gradients], name)
        moved = (alone - start[row]).abs().max()
        if not (together[row] - alone).abs().max() <= _CLOSE * (moved + 1e-3):
            raise _refusal(name, _TOGETHER)


def _walk(make: MakeOptimizer, start: Tensor, gradients: Sequence[Tensor], name: str) -> Tensor:
    parameter = torch.nn.Parameter(start.clone())
    try:
        optimizer = make([parameter])
    except (RuntimeError, ValueError, TypeError) as error:
        raise DescentError(f"{name} cannot be made: {first_line(error)}. Mend its options") from error
    if not callable(getattr(optimizer, "step", None)):
        raise DescentError(
            f"{name} made {type(optimizer).__name__}: expected an optimizer, such as torch.optim.SGD makes"
        )
    try:
        for gradient in gradients:
            parameter.grad = gradient.clone()
            optimizer.step()
    except (RuntimeError, ValueError, TypeError) as error:
        if isinstance(error, DescentError) or isinstance(make, Rule):
            raise
        raise _refusal(name, first_line(error)) from error
    return parameter.detach()


def _refusal(name: str, reason: str) -> DescentError:
    return DescentError(
        f"{name} cannot step an ensemble: {reason}. Expected an optimizer that treats every number by itself, such as "
        "SGD, Adam, AdamW, RMSprop or Adagrad"
    )


def _name(make: Any) -> str:
    inner = getattr(make, "func", make)
    return str(getattr(inner, "__name__", type(inner).__name__))
