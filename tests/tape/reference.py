"""J p by reverse mode, one logit at a time: shares no formula with forward differentiation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from safestep.tape import Tape

Function = Callable[..., Tensor]


def values(shapes: Sequence[tuple[int, ...]], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes]


def directions(parameters: Sequence[Tensor]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(4)
    return [torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype) for p in parameters]


def taped(function: Function, parameters: Sequence[Tensor], moving: Sequence[int] | None = None) -> Tensor:
    """Return J p by the tape, the parameters written over between the forward and the tangent, as a step does."""
    moving = range(len(parameters)) if moving is None else moving
    torch.manual_seed(7)
    with Tape([parameters[i] for i in moving]) as tape:
        output = function(*parameters)
    tape.close(output)
    assert tape.problem == ""
    start = {parameters[i]: parameters[i].detach().clone() for i in moving}
    along = dict(zip(parameters, directions(parameters), strict=True))
    with torch.no_grad():
        for i in moving:
            parameters[i].add_(1.0)
        try:
            tangent = tape.tangent(start, along.__getitem__)
        finally:
            for parameter, origin in start.items():
                parameter.copy_(origin)
    assert tangent.shape == output.shape
    assert tangent.dtype == output.dtype
    return tangent


def reversed_(function: Function, parameters: Sequence[Tensor], moving: Sequence[int] | None = None) -> Tensor:
    """Return J p by reverse mode."""
    moving = range(len(parameters)) if moving is None else moving
    torch.manual_seed(7)
    output = function(*parameters)
    along = directions(parameters)
    rows = []
    for logit in output.flatten():
        gradients = torch.autograd.grad(logit, [parameters[i] for i in moving], retain_graph=True, allow_unused=True)
        pairs = zip(moving, gradients, strict=True)
        rows.append(sum((g.to_dense() * along[i]).sum() for i, g in pairs if g is not None))
    return torch.stack([torch.as_tensor(row, dtype=output.dtype) for row in rows]).reshape(output.shape)


def assert_equal_tangents(
    function: Function, parameters: Sequence[Tensor], moving: Sequence[int] | None = None, within: float = 1e-12
) -> None:
    ours, theirs = taped(function, parameters, moving), reversed_(function, parameters, moving)
    assert theirs.abs().max() > 0, "a tangent of zero proves nothing"
    assert (ours - theirs).abs().max() <= within * theirs.abs().max(), f"{ours}\n{theirs}"
