"""How long a step is, and how far it goes along the gradient: two sums over all parameters, through one scratch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor

Scratch = dict[tuple[torch.device, torch.dtype], Tensor]
"""Flat memory for displacements, as large as the largest parameter of each kind."""

_FULL = (torch.float32, torch.float64)
ONE_BY_ONE = frozenset({"cpu"})
"""Devices without a cost of its own for each operation, where grouping gains nothing."""


@torch.no_grad()
def magnitude(
    start: Mapping[Tensor, Tensor],
    scratch: Scratch,
    *,
    directional_derivative: bool,
    gradients: Callable[[Tensor], Tensor | None] = lambda parameter: parameter.grad,
) -> tuple[Tensor, Tensor | None]:
    """Return ``||p||^2`` and ``g.p`` of a step; nothing is read back from the device.

    Equation:
        ``p = theta - theta_0`` over all parameters, ``g`` the gradients stored at present.

    Args:
        start: ``theta_0`` of each parameter, keyed by the parameter, which holds ``theta``; not empty.
        scratch: memory kept from call to call.
        directional_derivative: whether to return ``g.p`` too.
        gradients: from a parameter to its gradient.

    Returns:
        Two 0-d float64 tensors. ``g.p`` is None where it was not asked for, or a gradient is sparse, complex or of
        reduced precision. In float32 a sum of squares overflows above lengths of 1e19 and vanishes below 1e-23: look
        again where it is 0, inf or nan.
    """
    squares: list[Tensor] = []
    products: list[Tensor] | None = [] if directional_derivative else None
    for group in _groups(start):
        flat = _memory(scratch, group)
        pieces = flat.split([parameter.numel() for parameter in group])
        views = [_shaped(piece, parameter) for piece, parameter in zip(pieces, group, strict=True)]
        if len(group) == 1:
            torch.sub(group[0], start[group[0]], out=views[0])
        else:  # a few kernels for many small tensors
            torch._foreach_copy_(views, group)
            torch._foreach_sub_(views, [start[parameter] for parameter in group])
        squares.append(_square(flat))
        if products is not None:
            derivatives = [gradients(parameter) for parameter in group]
            plain = flat.dtype in _FULL and all(_plain(gradient, flat) for gradient in derivatives)
            products = products + _products(derivatives, views, flat) if plain else None
    home = squares[0].device
    total = torch.stack([square.to(home, torch.float64) for square in squares]).sum()
    if products is None:
        return total, None
    if not products:
        return total, torch.zeros_like(total)
    return total, torch.stack([product.to(home, torch.float64) for product in products]).sum()


def _groups(start: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Yield the parameters one by one on a CPU, elsewhere as many at a time as fit the largest one's memory."""
    kinds: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for parameter in start:
        if parameter.numel():
            kinds.setdefault((parameter.device, parameter.dtype), []).append(parameter)
    for (device, _), members in kinds.items():
        room = 0 if device.type in ONE_BY_ONE else max(member.numel() for member in members)
        group: list[Tensor] = []
        for member in members:
            if group and sum(m.numel() for m in group) + member.numel() > room:
                yield group
                group = []
            group.append(member)
        yield group


def _memory(scratch: Scratch, group: list[Tensor]) -> Tensor:
    size, kind = sum(parameter.numel() for parameter in group), (group[0].device, group[0].dtype)
    if kind not in scratch or scratch[kind].numel() < size:
        scratch[kind] = torch.empty(size, device=kind[0], dtype=kind[1])
    return scratch[kind][:size]


def _shaped(piece: Tensor, parameter: Tensor) -> Tensor:
    """View flat memory as a parameter, in the parameter's own layout where that is dense."""
    if parameter.is_contiguous():
        return piece.view(parameter.shape)
    return piece.as_strided(parameter.shape, torch.empty_like(parameter, device="meta").stride())


def _square(flat: Tensor) -> Tensor:
    real = torch.view_as_real(flat).flatten() if flat.is_complex() else flat
    if real.dtype in _FULL:
        return torch.dot(real, real)
    length: Tensor = torch.linalg.vector_norm(real, dtype=torch.float32)
    return length.square()


def _plain(gradient: Tensor | None, flat: Tensor) -> bool:
    return gradient is None or (gradient.layout is torch.strided and gradient.dtype == flat.dtype)


def _products(gradients: list[Tensor | None], views: list[Tensor], flat: Tensor) -> list[Tensor]:
    """Return ``g.p`` of a group in at most one piece; the scratch may be overwritten."""
    if len(views) == 1:
        gradient = gradients[0]
        if gradient is None:
            return []
        if gradient.stride() == views[0].stride():
            return [torch.dot(flat, gradient.as_strided(flat.shape, (1,)))]
        return [views[0].mul_(gradient).sum()]
    for gradient, view in zip(gradients, views, strict=True):
        view.zero_() if gradient is None else view.mul_(gradient)
    return [flat.sum()]
