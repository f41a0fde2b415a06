"""Checks before a descent begins, so that a mistake is named as one and does not show as a tensor's shape later."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from safestep.descent.driver import MakeOptimizer
from safestep.descent.objective import DescentError, Objective, by_variable
from safestep.descent.rule import Rule
from safestep.errors import first_line

_OFF = (0.0, 1e-3, -2e-3)
"""Where three points lie around the start, in units of its size: rows that are equal could hide that they mix."""
_REASONS = {
    "LBFGS": "it searches along one line for all runs together",
    "Muon": "it orthogonalises the parameter as one matrix, and the runs are its rows",
    "Adafactor": "its second moments are means over rows and columns, and the runs are the rows",
    "SparseAdam": "it takes sparse gradients only",
}
"""Why optimizers of torch cannot step an ensemble, where the trial below would say less."""


def check_counts(
    *, steps: int, runs: int, seed: int, records: int, traces: int | None, limit: float, first: int = 0
) -> None:
    """Raise DescentError for numbers that make no ensemble."""
    counts = {"steps": (steps, 0), "runs": (runs, 1), "seed": (seed, 0), "records": (records, 2), "first": (first, 0)}
    for name, (value, least) in (counts | {"traces": (0 if traces is None else traces, 0)}).items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise DescentError(f"{name} = {value!r}: expected a whole number of at least {least}")
    if traces is not None and traces > runs:
        raise DescentError(f"traces = {traces} of {runs} runs: expected at most as many as there are runs")
    if seed >= 2**63:
        raise DescentError(f"seed = {seed}: expected one below 2**63")
    if not limit > 0:
        raise DescentError(f"limit = {limit!r}: expected a positive distance")


def start_of(objective: Objective, start: Sequence[float] | Tensor | None, runs: int, dtype: torch.dtype) -> Tensor:
    """Return where the runs begin, shape ``(d,)`` or ``(runs, d)``."""
    if not dtype.is_floating_point:
        raise DescentError(f"dtype = {dtype}: expected a floating one, such as torch.float64")
    begin = torch.as_tensor(objective.start if start is None else start, dtype=dtype).detach()
    d = objective.dimension
    if begin.shape not in {(d,), (runs, d)}:
        raise DescentError(
            f"start of shape {tuple(begin.shape)}: expected ({d},), the numbers of one point of {objective!r}, or "
            f"({runs}, {d}), one point a run"
        )
    begin = begin[0] if begin.dim() == 2 and runs == 1 else begin
    if not begin.isfinite().all():
        raise DescentError(f"start = {begin.tolist()}: expected finite numbers")
    return begin


def check_objective(objective: Objective, begin: Tensor) -> None:
    """Evaluate the objective near its start and refuse one that gives wrong shapes, nan, or mixes its rows."""
    point = begin if begin.dim() == 1 else begin[0]
    x = by_variable(point + torch.tensor(_OFF, dtype=begin.dtype)[:, None] * (1.0 + point.abs()))
    for name, function, shape in (("value", objective.value, x.shape[:1]), ("gradient", objective.gradient, x.shape)):
        result = _evaluated(name, function, x, shape)
        if not result[0].isfinite().all():
            raise DescentError(
                f"the {name} at the start {point.tolist()} is {result[0].tolist()}: expected finite numbers; start "
                "elsewhere, or mend the function"
            )
        if not torch.equal(function(x.clone()), result):
            continue  # it has randomness of its own: another value says nothing
        alone = function(x[:1].clone())[0]
        size = result[0].abs().max() + torch.finfo(begin.dtype).tiny
        if not (alone - result[0]).abs().max() <= 1e-4 * size:
            raise DescentError(
                f"the {name} of one row depends on the rows beside it: expected operations along the last dimension "
                "only, such as x[..., 0] or x.sum(-1); no .sum() or .mean() over all of x"
            )


def _evaluated(name: str, function: Callable[[Tensor], Tensor], x: Tensor, shape: tuple[int, ...]) -> Tensor:
    try:
        result = function(x.clone())
    except DescentError:
        raise
    except Exception as error:
        raise DescentError(
            f"the {name} failed at x of shape {tuple(x.shape)}, one point a row, {x.dtype}: {first_line(error)}. "
            "Expected a function of such tensors; write x[..., 0] for the first variable, or take "
            "Function.of_coordinates for a function of x1, x2, ..."
        ) from error
    if not isinstance(result, Tensor) or result.shape != shape:
        seen = f"shape {tuple(result.shape)}" if isinstance(result, Tensor) else type(result).__name__
        raise DescentError(
            f"the {name} at x of shape {tuple(x.shape)} is of {seen}: expected a tensor of shape {tuple(shape)}, "
            f"{'one number' if len(shape) == 1 else 'as many numbers as variables'} a row"
        )
    return result


def check_elementwise(make: MakeOptimizer, dimension: int) -> None:
    """Refuse an optimizer under which runs would act on each other.

    Three runs take a few steps together, one a row, and then each alone, with the same gradients.
    """
    if not callable(make):
        raise DescentError(
            f"optimizer = {make!r}: expected a function from a list with one parameter to an optimizer, such as "
            "partial(torch.optim.SGD, lr=0.1)"
        )
    kind: Any = make.func if isinstance(make, partial) else make
    name = kind.__name__ if hasattr(kind, "__name__") else type(kind).__name__
    if name in _REASONS:
        raise _refusal(name, _REASONS[name])
    # a start and four gradients of three runs, of sizes so different that normalising over the runs shows
    drawn = torch.randn(5, 3, dimension, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    start, gradients = drawn[0], drawn[1:] * torch.tensor([[1.0], [100.0], [0.01]], dtype=torch.float64)
    together = _stepped(make, name, start, list(gradients))
    for run in range(3):
        # an optimizer alone has one vector; a rule is promised rows
        row = slice(run, run + 1) if isinstance(make, Rule) else run
        alone = _stepped(make, name, start[row], [gradient[row] for gradient in gradients])
        length = (alone - start[row]).abs().max()
        # vectorised and single arithmetic round differently
        if not (together[row] - alone).abs().max() <= 1e-9 * (length + 1e-3):
            reason = (
                "a run goes elsewhere beside other runs than alone (or by chance of its own, which belongs into noise=)"
            )
            raise _refusal(name, reason)


def _stepped(make: MakeOptimizer, name: str, start: Tensor, gradients: Sequence[Tensor]) -> Tensor:
    """Return where an optimizer goes from a start with these gradients, whatever the points."""
    parameter = torch.nn.Parameter(start.clone())
    try:
        optimizer = make([parameter])
    except (RuntimeError, ValueError, TypeError) as error:
        raise DescentError(f"{name} cannot be made: {first_line(error)}. Mend its options") from error
    if not hasattr(optimizer, "step"):
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
