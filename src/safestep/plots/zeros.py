"""The picture of the exact radius: complex zeros of a sample's partition function, and the disc that none lies in."""

from __future__ import annotations

import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Circle
from torch import Tensor

from safestep.formulas.softmax_ratio import radius_bound, spread
from safestep.plots import style
from safestep.plots.panel import bare_axes, legend, name_axes
from safestep.zeros import nearest_zero, zeros_within

_ROOM = 1.08


def partition_zeros(logits: Tensor, tangent: Tensor, *, reach: float = 2.0, ax: Axes | None = None) -> Axes:
    """Draw the zeros of ``sum_k exp(z_k + a_k t)`` in the complex plane, t in steps, with both radii around the origin.

    The disc is what the bound ``pi / spread(a)`` keeps free of zeros, the circle goes through the nearest one.

    Args:
        logits: ``z`` of one sample, nats, shape ``(classes,)``.
        tangent: ``a``, how the logits change along the step; same shape. The step itself ends at t = 1.
        reach: how far zeros are shown, in exact radii; more than 1.
        ax: where to draw; new axes without.

    Raises:
        ArithmeticError: if there is no zero, or the zeros cannot be certified.
        ValueError: if the reach is not above 1, the shapes differ, or there are less than two classes.

    Example:
        >>> import torch
        >>> ax = partition_zeros(torch.tensor([2.0, 1.0, 0.0]), torch.tensor([1.0, 1.0, 0.0]))
        >>> [round(float(patch.radius), 2) for patch in ax.patches]
        [3.14, 3.9]
    """
    if not 1.0 < reach < math.inf:
        raise ValueError(f"reach={reach!r}: expected a number above 1, in units of the exact radius")
    found = nearest_zero(logits, tangent)
    if found.reasons[0]:
        raise ArithmeticError(f"{found.reasons[0]}: there is no exact radius to draw")
    exact, bound = float(found.radius), radius_bound(float(spread(tangent.double())))
    zeros = zeros_within(logits, tangent, reach * exact)
    ax = bare_axes(ax)
    ax.grid(visible=True, axis="both", color=style.GRID, lw=0.7)
    inside = {"facecolor": style.COLOURS["cap"], "alpha": 0.18, "lw": 0}
    ax.add_patch(Circle((0.0, 0.0), bound, label=f"bound π/spread = {bound:.3g}", **inside))
    around = {"fill": False, "edgecolor": style.COLOURS["pin"], "lw": 1.7}
    ax.add_patch(Circle((0.0, 0.0), exact, label=f"exact ρ* = {exact:.3g}", **around))
    real, imaginary = zeros.real.tolist(), zeros.imag.tolist()
    dots: dict[str, Any] = {"ms": 5.5, "mec": "white", "mew": 0.7, "color": style.COLOURS["fixed"]}
    ax.plot(real * 2, imaginary + [-y for y in imaginary], "o", label="zeros", **dots)
    if reach * exact >= 1.0:
        ax.plot([0.0, 1.0], [0.0, 0.0], color=style.INK, lw=2.0, marker="|", ms=7, label="the step")
    edge = reach * exact * _ROOM
    ax.set(xlim=(-edge, edge), ylim=(-edge, edge), aspect="equal")
    name_axes(ax, "Zeros of the partition function", "Re t, in steps", "Im t")
    legend(ax)
    return ax
