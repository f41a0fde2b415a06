"""The step: the displacement p of all parameters, read off the parameters themselves."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cached_property

import torch
from torch import Tensor

Parameters = dict[Tensor, Tensor]
"""A tensor for each parameter, keyed by the parameter object itself."""

_LARGEST_LERP_WEIGHT = 1e30
"""Above this a weight may overflow in float32, the arithmetic type of ``lerp``."""


class Step:
    """One step of one or several optimizers: where it started, what it proposes, and where it is put.

    Equation:
        ``p = theta_after - theta_before`` of all parameters, whatever optimizer made it; `rescale` writes
        ``theta_before + s p``.

    Args:
        index: number of the step, from 0.
    """

    def __init__(self, index: int) -> None:
        self.index = index
        self.start: Parameters = {}
        """The parameters before the step, one detached copy each."""

    @torch.no_grad()
    def remember(self, parameters: Iterable[Tensor]) -> None:
        """Copy parameters that may move; those already remembered in this step keep their start.

        A frozen parameter without a gradient stays where it is under any optimizer, and needs no copy.
        """
        for parameter in parameters:
            if parameter not in self.start and (parameter.requires_grad or parameter.grad is not None):
                self.start[parameter] = parameter.detach().clone()

    def forget(self, parameters: Iterable[Tensor]) -> None:
        """Drop the copies of parameters, after a step that failed half way."""
        for parameter in parameters:
            self.start.pop(parameter, None)

    @cached_property
    def displacement(self) -> Parameters:
        """``p``, one tensor for each parameter; evaluated once, before anything is rescaled."""
        with torch.no_grad():
            moved = [parameter.detach() for parameter in self.start]
            difference = torch._foreach_sub(moved, list(self.start.values())) if moved else []
        return dict(zip(self.start, difference, strict=True))

    @cached_property
    def length(self) -> float:
        """``tau = ||p||_2`` over all parameters, in units of the parameters; nan or inf where ``p`` is."""
        pieces = [p for p in self.displacement.values() if p.numel()]
        if not pieces:
            return 0.0
        norms = torch._foreach_norm(pieces)
        length = math.hypot(*torch.stack([n.double().to(norms[0].device) for n in norms]).tolist())
        if length > 0.0 and math.isfinite(length):
            return length
        # A float32 sum of squares overflows above 1e19 and underflows below 1e-23: look again in float64.
        return math.hypot(*(torch.linalg.vector_norm(p, dtype=torch.float64).item() for p in pieces))

    @torch.no_grad()
    def rescale(self, scale: float) -> None:
        """Put the parameters at ``theta_before + scale * p``, the same scale for all of them.

        Args:
            scale: ``s >= 0``, finite. At 1 nothing is written, so that the step stays bit for bit what it was.

        Raises:
            ValueError: if ``scale`` is negative or not finite.
        """
        if not (math.isfinite(scale) and scale >= 0.0):
            raise ValueError(f"the scale of a step must be finite and not negative, saw {scale}")
        if scale == 1.0 or not self.start:
            return
        moved, start = list(self.start), list(self.start.values())
        if scale == 0.0:  # lerp would turn an infinite end point into nan
            torch._foreach_copy_(moved, start)
        elif scale < _LARGEST_LERP_WEIGHT:
            # From the saved start, never by subtraction from the end, which cancels after a large step.
            torch._foreach_copy_(moved, torch._foreach_lerp(start, moved, scale))
        else:
            for parameter, origin in self.start.items():
                parameter.copy_(origin.double() + scale * self.displacement[parameter].double())

    def undo(self) -> None:
        """Put the parameters back where the step started."""
        self.rescale(0.0)
