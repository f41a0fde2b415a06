"""What is checked before a descent begins, so that a mistake is told as one and not by a tensor's shape later."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from safestep.descent.layout import by_variable
from safestep.descent.objective import DescentError, Objective
from safestep.errors import first_line

_OFF = (0.0, 1e-3, -2e-3)
"""Where three points lie around the start, in units of its size: rows that are equal could hide that they mix."""
_SEEDS = 2**63


def check_counts(*, steps: int, runs: int, seed: int, records: int, traces: int | None, limit: float) -> None:
    """Raise DescentError for numbers that make no ensemble."""
    for name, value, least in (
        ("steps", steps, 0),
        ("runs", runs, 1),
        ("seed", seed, 0),
        ("records", records, 2),
        ("traces", 0 if traces is None else traces, 0),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise DescentError(f"{name} = {value!r}: expected a whole number of at least {least}")
    if traces is not None and traces > runs:
        raise DescentError(f"traces = {traces} of {runs} runs: expected at most as many as there are runs")
    if seed >= _SEEDS:
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
    value = _evaluated(objective, "value", x, (len(x),))
    gradient = _evaluated(objective, "gradient", x, tuple(x.shape))
    for name, found in (("value", value), ("gradient", gradient)):
        if not found[0].isfinite().all():
            raise DescentError(
                f"the {name} at the start {point.tolist()} is {found[0].tolist()}: expected finite numbers; start "
                "elsewhere, or mend the function"
            )
        if not torch.equal(_evaluated(objective, name, x, tuple(found.shape)), found):
            continue  # it has randomness of its own: another value says nothing
        alone = getattr(objective, name)(x[:1].clone())[0]
        scale = found[0].abs().max() + torch.finfo(begin.dtype).tiny
        if not (alone - found[0]).abs().max() <= 1e-4 * scale:
            raise DescentError(
                f"the {name} of one row depends on the rows beside it: expected operations along the last dimension "
                "only, such as x[..., 0] or x.sum(-1); no .sum() or .mean() over all of x"
            )


def _evaluated(objective: Objective, name: str, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    try:
        found: Tensor = getattr(objective, name)(x.clone())
    except DescentError:
        raise
    except Exception as error:
        raise DescentError(
            f"the {name} of {type(objective).__name__} failed at x of shape {tuple(x.shape)}, one point a row, "
            f"{x.dtype}: {first_line(error)}. Expected a function of such tensors; write x[..., 0] for the first "
            "variable, or take Function.of_coordinates for a function of x1, x2, ..."
        ) from error
    if not isinstance(found, Tensor) or tuple(found.shape) != shape:
        seen = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise DescentError(
            f"the {name} at x of shape {tuple(x.shape)} is of {seen}: expected a tensor of shape {shape}, "
            f"{'one number' if name == 'value' else 'as many numbers as variables'} a row"
        )
    return found
