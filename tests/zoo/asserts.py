"""The contracts as assertions: each says in its name what must hold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from safestep import StepReport

SLACK = 1e-3
"""How far above its target the r of an applied step may lie (contract 2)."""
PRECISION = {"exact": SLACK, "probe": 0.05, "tiered": 0.05}
"""How far the r of a scaled step may lie from its target, by the method that measured it."""


def assert_identical(one: Any, other: Any, where: str = "") -> None:
    """Bit for bit the same, nan included."""
    assert type(one) is type(other), f"{where}: {type(one).__name__} and {type(other).__name__}"
    if isinstance(one, Tensor):
        assert one.dtype == other.dtype, f"{where}: {one.dtype} and {other.dtype}"
        assert one.shape == other.shape, f"{where}: {one.shape} and {other.shape}"
        assert _bits(one) == _bits(other), f"{where}: largest difference {_difference(one, other)}"
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), f"{where}: keys {set(one) ^ set(other)}"
        for key in one:
            assert_identical(one[key], other[key], f"{where}[{key!r}]")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), f"{where}: {len(one)} and {len(other)} items"
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_identical(a, b, f"{where}[{index}]")
    elif isinstance(one, np.ndarray):
        assert one.tobytes() == other.tobytes(), f"{where}: arrays differ"
    elif isinstance(one, float) and math.isnan(one):
        assert math.isnan(other), f"{where}: nan and {other}"
    else:
        assert one == other, f"{where}: {one!r} and {other!r}"


def assert_same_reports(one: list[StepReport], other: list[StepReport]) -> None:
    assert_identical([report.row() for report in one], [report.row() for report in other], "reports")


def assert_untouched(guarded: dict[str, Any], plain: dict[str, Any]) -> None:
    """Contract 1: everything that a training consists of is what it is without the guard."""
    for part, value in plain.items():
        assert_identical(guarded[part], value, part)


def assert_inside(applied: float, report: StepReport, target: float) -> None:
    """Contract 2: the true r of the applied step is at most the target, and is the target if the step was scaled."""
    assert applied <= target * (1 + SLACK), f"applied r {applied} over the target {target}: {report}"
    if report.scale != 1.0:
        assert math.isclose(applied, target, rel_tol=SLACK), f"scaled to r {applied}, not {target}: {report}"
    assert math.isclose(report.applied_ratio, applied, rel_tol=SLACK), (
        f"reported {report.applied_ratio}, true {applied}"
    )


def assert_same_direction(
    start: dict[str, Tensor], proposed: dict[str, Tensor], applied: dict[str, Tensor], scale: float
) -> None:
    """Contract 3: every parameter is at start + s p with one s, to the rounding of its own dtype."""
    for name, origin in start.items():
        p = proposed[name].double() - origin.double()
        wanted = origin.double() + scale * p
        size = torch.maximum(origin.double().abs(), wanted.abs()).maximum(scale * p.abs())
        error = (applied[name].double() - wanted).abs()
        # p is rounded once, as a difference of parameters, its product with s once, and their sum once
        allowed = 3 * torch.finfo(origin.dtype).eps * size + torch.finfo(torch.float64).tiny
        assert (error <= allowed).all(), f"{name}: off by {(error / allowed).max():.3g} times its rounding"


def _bits(tensor: Tensor) -> bytes:
    tensor = tensor.detach()
    if tensor.is_sparse:
        tensor = tensor.coalesce()
        return _bits(tensor.indices()) + _bits(tensor.values())
    return tensor.cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes()  # NumPy has no bfloat16


def _difference(one: Tensor, other: Tensor) -> float:
    wide = torch.complex128 if one.is_complex() else torch.float64
    return (one.to_dense().to(wide) - other.to_dense().to(wide)).abs().max().item()
