"""What the gradient at a model's output tells of the loss: softmax or sigmoids, and a factor on the logits.

Cross-entropy of ``c z`` with labels ``q`` leaves ``G_k = A (P_k - q_k)`` with ``P = softmax(c z)`` and some weight
``A`` of the row: over the classes that are not the label ``log G`` is linear in ``z``, with slope ``c``. Binary
cross-entropy leaves ``w sigmoid(c z)`` where the label is 0 and ``-w' sigmoid(-c z)`` where it is 1. So a temperature
(``c = 1 / T``), or the scale of a cosine classifier, can be read off the gradient though the model knows nothing of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from safestep._torch.shapes import Float

_LOWEST, _HIGHEST = 1e-4, 1e4
"""Factors that are looked for."""
_GRID, _REFINED, _VALLEYS = 65, 40, 4
"""Points of the search, steps of golden section, and valleys that are looked into."""
_ONE = 1e-3
"""Factors this close to 1 are 1: nobody multiplies by so little, and rounding may."""
_MOST_CLASSES = 128
"""Of more classes those with the largest gradients tell enough."""


class Factor(NamedTuple):
    """The factor on the logits.

    Attributes:
        value: c, positive.
        known: whether another factor would have left another gradient; else 1 is assumed (all logits equal, few rows).
    """

    value: float
    known: bool


def softmax_factor(
    logits: Float[Tensor, "rows classes"], gradient: Float[Tensor, "rows classes"], precision: float = 0.0
) -> Factor | None:
    r"""Return the factor c of a cross-entropy of ``c z``, or None if the gradient is not that of one with plain labels.

    Equation:
        ``G_ik = A_i softmax(c z_i)_k - b_k`` over the classes that are no label of row i; ``b`` is 0 for hard labels
        and mixed ones, the same for all classes under label smoothing, and differs between them if these are weighted.
        Of two classes one is left a row: there A is taken to be the same for all rows of one label.

    Args:
        logits: ``z``, as the model returned them, in nats.
        gradient: ``G = dL/dz``; rows without a gradient are passed over.
        precision: the relative rounding of either, for types coarser than theirs.

    Returns:
        The factor; None where no factor fits (dense soft labels, several losses on one output). Of fewer numbers than
        the model with the most unknowns has, ``known`` is false.

    Example:
        >>> z = torch.randn(8, 4, dtype=torch.float64, requires_grad=True)
        >>> loss = torch.nn.functional.cross_entropy(z / 0.25, torch.arange(8) % 4)
        >>> round(softmax_factor(z.detach(), torch.autograd.grad(loss, z)[0]).value, 6)
        4.0
    """
    z, g = _prepared(logits, gradient)
    if not z.numel() or z.shape[1] < 2:
        return Factor(1.0, known=False)
    for signed in (g, -g):  # a loss may be maximised
        misfits: list[Callable[[float], float]] = []
        for labels in (1, 2) if z.shape[1] >= 5 else (1,):
            free = torch.ones_like(g, dtype=torch.bool).scatter_(1, signed.topk(labels, largest=False).indices, False)
            misfits += _softmax_models(z, signed, free & torch.isfinite(z))
        if (found := _first(iter(misfits), _tolerance(logits, gradient, precision))) is not None:
            return found
    return None


def sigmoid_factor(
    logits: Float[Tensor, "rows outputs"], gradient: Float[Tensor, "rows outputs"], precision: float = 0.0
) -> Factor | None:
    r"""Return the factor c of a binary cross-entropy of ``c z`` with labels 0 and 1, or None if it is not one.

    Equation:
        ``G = w sigmoid(c z)`` where it is positive, ``G = -w' sigmoid(-c z)`` where it is negative, with weights that
        are the same for all entries, or for all of an output.

    Args:
        logits: ``z``, as the model returned them, in nats.
        gradient: ``G = dL/dz``; entries of exactly zero are passed over.
        precision: the relative rounding of either, for types coarser than theirs.

    Returns:
        The factor; None where none fits (soft labels, weights of their own for the samples, squared errors).

    Example:
        >>> z = torch.tensor([[0.3, -1.0], [0.5, 2.0], [-0.2, 0.4]], dtype=torch.float64, requires_grad=True)
        >>> y = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
        >>> loss = torch.nn.functional.binary_cross_entropy_with_logits(3 * z, y)
        >>> round(sigmoid_factor(z.detach(), torch.autograd.grad(loss, z)[0]).value, 6)
        3.0
    """
    z, g = logits.double(), gradient.double()
    counted = (g != 0) & torch.isfinite(z)
    if int(counted.sum()) < 4:
        return None
    tolerance, sizes = _tolerance(logits, gradient, precision), g.abs().clamp(min=1e-300).log()
    by_output = torch.arange(z.shape[1], device=z.device).expand_as(z)
    groups = [torch.zeros_like(by_output), by_output] if z.shape[0] >= 4 else [torch.zeros_like(by_output)]

    def misfits(group: Tensor) -> Callable[[float], float]:
        keys = (2 * group + (g > 0))[counted]

        def misfit(factor: float) -> float:
            weights = (sizes - torch.nn.functional.logsigmoid(torch.sign(g) * factor * z))[counted]
            return _apart(weights, keys, g[counted].abs())

        return misfit

    found = _first(map(misfits, groups), tolerance)
    # One sign alone (a plain sum of log-probabilities, say) fits where the values hardly differ.
    signs = torch.sign(g[counted])
    return found if found is None or found.known or bool((signs != signs[0]).any()) else None


def _prepared(logits: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    rows = gradient.abs().sum(-1) > 0
    z, g = logits[rows].double(), gradient[rows].double()
    if z.shape[-1] > _MOST_CLASSES and z.numel():
        most = torch.topk(g.abs().amax(0), _MOST_CLASSES).indices
        z, g = z[:, most], g[:, most]
    return z, g / g.abs().amax().clamp(min=1e-300)


def _tolerance(logits: Tensor, gradient: Tensor, precision: float) -> float:
    coarsest = max(torch.finfo(tensor.dtype).eps for tensor in (logits, gradient))
    return 1e-4 + 4.0 * max(coarsest, precision)


def _softmax_models(z: Tensor, g: Tensor, free: Tensor) -> Iterator[Callable[[float], float]]:
    """Return how badly each model of the gradient fits, relative to it, as functions of the factor."""
    if z.shape[1] == 2:
        labels = g.argmin(-1)
        yield partial(_two_classes, z, g, labels)
        return
    for offsets in ("none", "one", "each"):
        yield partial(_fit, z, g, free, offsets)


def _two_classes(z: Tensor, g: Tensor, labels: Tensor, factor: float) -> float:
    """Fit the entry beside the label as a multiple of its probability, one for each label; the logarithm tells."""
    p, other = torch.softmax(factor * z, -1), (1 - labels).unsqueeze(-1)
    values, weights = g.gather(1, other).squeeze(-1), p.gather(1, other).squeeze(-1)
    if len(values) < 3:
        return math.nan  # too little to go by
    if bool((values <= 0).any()):
        return math.inf
    return _apart(values.log() - weights.clamp(min=1e-300).log(), labels, values)


def _fit(z: Tensor, g: Tensor, free: Tensor, offsets: str, factor: float) -> float:
    """Return the relative residual of ``G = A_i P - b`` by least squares, with no ``b``, one, or one for each class."""
    p, mask = torch.softmax(factor * z, -1), free.to(z)
    spare = int(free.sum()) - p.shape[0] - {"none": 0, "one": 1, "each": p.shape[1]}[offsets]
    if spare < 2:
        return math.nan  # too little to go by
    p, g = p * mask, g * mask
    if offsets == "none":
        weights = (p * g).sum(-1, keepdim=True) / p.square().sum(-1, keepdim=True).clamp(min=1e-300)
        residual = g - weights * p
        # Each row by its own size, a confident one is as telling as any; some rows of a mixture show fewer labels.
        return float((residual.norm(dim=-1) / g.norm(dim=-1).clamp(min=1e-300)).median())
    # b is the same for all classes of a group; for given A it is a mean, which leaves linear equations for A alone
    groups = torch.eye(p.shape[1]).to(p) if offsets == "each" else p.new_ones(p.shape[1], 1)
    members, rows = (mask @ groups).sum(0).clamp(min=1.0), p @ groups
    normal = torch.diag(p.square().sum(-1)) - (rows / members) @ rows.T
    right = (p * g).sum(-1) - (rows / members) @ (g @ groups).sum(0)
    weights = torch.linalg.lstsq(normal, right.unsqueeze(-1), driver="gelsd").solution
    offset = groups @ (((weights * p - g) @ groups).sum(0) / members) * mask
    return float((weights * p - offset - g).norm() / g.norm().clamp(min=1e-300))


def _first(models: Iterator[Callable[[float], float]], tolerance: float) -> Factor | None:
    """Return the factor of the first model that fits: 1 if it does with some model, else the best one of a model."""
    misfits = list(models)
    for misfit in misfits:
        if misfit(1.0) <= tolerance:
            # where half and twice the logits fit as well, they say nothing
            return Factor(1.0, max(misfit(0.5), misfit(2.0)) > 4 * tolerance)
    if any(math.isnan(misfit(1.0)) for misfit in misfits):
        return Factor(1.0, known=False)
    return next((found for misfit in misfits if (found := _best(misfit, tolerance)) is not None), None)


def _best(misfit: Callable[[float], float], tolerance: float) -> Factor | None:
    low, high = math.log(_LOWEST), math.log(_HIGHEST)
    grid = [low + (high - low) * step / (_GRID - 1) for step in range(_GRID)]
    values = [misfit(math.exp(point)) for point in grid]
    valleys = [i for i in range(1, _GRID - 1) if values[i] < math.inf and values[i - 1] >= values[i] <= values[i + 1]]
    for valley in sorted(valleys, key=values.__getitem__)[:_VALLEYS]:
        factor = math.exp(_golden(lambda point: misfit(math.exp(point)), grid[valley - 1], grid[valley + 1]))
        if misfit(factor) <= tolerance and min(misfit(factor / 2), misfit(2 * factor)) > 4 * tolerance:
            return Factor(1.0 if abs(factor - 1.0) < _ONE else factor, known=True)
    return None


def _golden(function: Callable[[float], float], low: float, high: float) -> float:
    """Return where a function with one valley between two points is lowest (golden-section search)."""
    turn = (math.sqrt(5.0) - 1.0) / 2.0
    inner, outer = high - turn * (high - low), low + turn * (high - low)
    left, right = function(inner), function(outer)
    for _ in range(_REFINED):
        if left <= right:
            high, outer, right = outer, inner, left
            inner = high - turn * (high - low)
            left = function(inner)
        else:
            low, inner, left = inner, outer, right
            outer = low + turn * (high - low)
            right = function(outer)
    return (low + high) / 2.0


def _apart(values: Tensor, keys: Tensor, sizes: Tensor) -> float:
    """Return how far values with the same key lie apart, on average; ``G`` is rounded like its largest entries."""
    zeros = torch.zeros(int(keys.max()) + 1, dtype=values.dtype, device=values.device)
    sums, total = zeros.index_add(0, keys, values * sizes), zeros.index_add(0, keys, sizes)
    return (((values - (sums / total.clamp(min=1e-300))[keys]).abs() * sizes).sum() / sizes.sum()).item()
