"""Which loss the gradient at a model's outputs is of, with its reduction and scale: found, not told."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from safestep._torch.shapes import Float
from safestep.formulas.finding import FoundLoss, Refused, Rows, smallest
from safestep.formulas.found_entries import found_sigmoids, found_squares, too_sure
from safestep.formulas.found_softmax import found_log_softmax, found_soft, found_softmax

_ROWS = 256
"""Rows that are looked at, evenly spread over those with a gradient."""
_BALANCED, _NEARLY, _NORMALISED = 1e-2, 0.5, 1e-2
"""Up to the first the sums of the rows of G, relative to them, are zero; up to the second a penalty on the logits may
hide a cross-entropy of sure labels; up to the last log(sum exp z) is that of log-probabilities."""
_NOISE = 64.0
"""Roundings of a mean loss's gradient below which it may be nothing else: the labels are the predictions."""
_NOT_FINITE = "values or gradients that are not finite"


def found_loss(
    outputs: Float[Tensor, "rows outputs"],
    gradient: Float[Tensor, "rows outputs"],
    precision: float = 0.0,
    loss_scale: float = 1.0,
) -> FoundLoss | Refused:
    r"""Return the loss that explains a gradient, or why none does.

    Equation:
        ====================  =========================================================================
        softmax               ``G_i = w_i (P_i - q_i)``, ``P = softmax(z)``; ``sum G_i = 0``
        log-probabilities     ``G_i = -w_i q_i``
        sigmoids              ``G_ik = w_ik (P_ik - y_ik)``, ``P = sigmoid(z)``, ``y`` 0 or 1
        squared errors        ``G_ik = c (z_ik - y_ik)``, where few values of ``y`` are many times there
        ====================  =========================================================================

        With reduction "mean" the weights of a cross-entropy add up to its scale, with "sum" each is the scale.

    Args:
        outputs: ``z``, as the loss reads them, classes or outputs last; ``-inf`` for a class that is masked.
        gradient: ``G = dL/dz``. Rows of exact zeros (ignored labels, padding) are passed over.
        precision: the relative rounding of either, for types coarser than theirs.
        loss_scale: what a gradient scaler multiplied the loss by.

    Returns:
        What was found. It is read off at most 256 rows, evenly spread, so that weights of other rows are taken to be
        alike; the sum of all weights is theirs, by the number of rows with a gradient. If the loss is `Refused`, the
        reason is for a user, and says whether other rows may tell.

    Example:
        >>> z = torch.randn(8, 4, requires_grad=True)
        >>> loss = torch.nn.functional.cross_entropy(z, torch.arange(8) % 4, label_smoothing=0.1)
        >>> print(found_loss(z.detach(), torch.autograd.grad(loss, z)[0]))
        cross_entropy, mean, label smoothing 0.1

    Note:
        One gradient cannot tell everything. Of soft labels it shows only the least weight, and 1 / rows, or 1, is taken
        if that is between half of it and all; where all probabilities are the same, smoothing looks like a smaller
        weight; squared errors of labels with many values look like many other losses, and Huber's, while no error is
        large, is a squared error. One row, or one entry, has the same mean and sum.
    """
    if not outputs.numel() or outputs.shape != gradient.shape:
        return Refused("no outputs with a gradient", final=False)
    sizes = torch.linalg.vector_norm(gradient, torch.inf, dim=-1)
    reached = sizes.nonzero().squeeze(-1)
    if not len(reached):
        return Refused("gradients that are all zero", final=False)
    if not bool(torch.isfinite(sizes).all()):
        return Refused(_NOT_FINITE, final=False)
    few = min(_ROWS, len(reached))
    chosen = reached[torch.arange(few, device=reached.device) * len(reached) // few]
    z, g = outputs[chosen], gradient[chosen]
    if bool(torch.isnan(z).any() | (z == torch.inf).any()):
        return Refused(_NOT_FINITE, final=False)
    rows = Rows(
        z,
        g.to(torch.promote_types(g.dtype, torch.float32)) / loss_scale,
        known=len(reached),
        hidden=_hidden(outputs, sizes),
        count=len(sizes),
        rounding=max(precision, torch.finfo(z.dtype).eps, torch.finfo(g.dtype).eps),
        smallest=smallest(g.dtype) / loss_scale,
    )
    found = _found(rows)
    size = float(rows.gradient.abs().sum(dtype=torch.float64)) * rows.known / few
    if isinstance(found, Refused) and size <= _NOISE * rows.rounding:
        return Refused("gradients that may be rounding alone", final=False)
    return found


def _found(rows: Rows) -> FoundLoss | Refused:
    z, g = rows.logits, rows.gradient
    if z.shape[1] > 1:
        off = g.sum(-1, dtype=torch.float64).abs().sum() / g.abs().sum(dtype=torch.float64)
        if float(off) <= _BALANCED + 2.0 * rows.rounding:
            found = found_softmax(rows)
            if isinstance(found, FoundLoss):
                return found
            squares = found_squares(rows)  # of probabilities, whose errors add up to zero too
            if isinstance(squares, FoundLoss):
                return squares
            return (found_soft(rows) if z.shape[1] > 2 else None) or found
        if bool((g <= 0).all()) and float(torch.logsumexp(z.float(), -1).abs().max()) <= _NORMALISED:
            return found_log_softmax(rows)
        sigmoids = found_sigmoids(rows)
        penalised = found_softmax(rows) if sigmoids is None and float(off) <= _NEARLY else None
        return sigmoids or (penalised if isinstance(penalised, FoundLoss) else _squares(rows))
    return found_sigmoids(rows) or _squares(rows)


def _squares(rows: Rows) -> FoundLoss | Refused:
    found = found_squares(rows)
    return replace(found, final=False) if isinstance(found, Refused) and found.final and too_sure(rows) else found


def _hidden(outputs: Tensor, sizes: Tensor) -> int:
    """Return how many rows without a gradient may have one that underflowed, the label is so sure; by some of them."""
    zeros = (sizes == 0).nonzero().squeeze(-1)
    few = min(_ROWS, len(zeros))
    some = outputs[zeros[torch.arange(few, device=zeros.device) * len(zeros) // max(1, few)]]
    gap = some.amax(-1) - torch.where(torch.isneginf(some), torch.inf, some).amin(-1)
    sure = gap > -math.log(torch.finfo(outputs.dtype).tiny)
    return round(len(zeros) * float(sure.double().mean())) if few else 0
