"""What a sample of whole rows says of the mean over a batch: a ratio estimate and its standard error."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from safestep._torch.shapes import Float, Int


class Estimate(NamedTuple):
    """An estimated mean.

    Attributes:
        value: the estimate, in the units of what was averaged.
        standard_error: its standard deviation over other samples of the same batch, likewise; 0 where the sample is
            the batch, nan where a single row was drawn, which tells nothing of it.
    """

    value: float
    standard_error: float


def ratio_of_sums(
    values: Float[torch.Tensor, " n"],
    weights: Float[torch.Tensor, " n"],
    rows: Int[torch.Tensor, " n"],
    share: float,
) -> Estimate:
    r"""Return the weighted mean of a sample of clusters, and its standard error.

    Equation:
        ``m = sum_i w_i x_i / sum_i w_i`` over the entries (tokens) of the rows that were drawn. With the residual
        ``e_j = sum_{i in j} w_i (x_i - m)`` of row ``j`` of ``k``, ``W = sum_i w_i`` and the share ``f`` of the batch,

        ``se(m) = sqrt((1 - f) k / (k - 1) sum_j e_j^2) / W``.

    Args:
        values: ``x``, of any unit.
        weights: ``w``, at least 0; 0 for an entry that does not count (padding).
        rows: the row that each entry belongs to. Entries of one row (the tokens of a text) resemble each other, so that
            it is rows that are drawn independently.
        share: ``f``, the part of the batch's rows that was drawn, in (0, 1]; at 1 nothing is left to chance.

    Returns:
        The estimate; nan for both where no entry counts.

    Example:
        >>> x, ones = torch.tensor([1.0, 3.0]), torch.ones(2)
        >>> ratio_of_sums(x, ones, torch.tensor([0, 1]), share=0.75)
        Estimate(value=2.0, standard_error=0.5)

    Note:
        The ratio of two estimated sums is biased by about ``1/k`` of its variance where rows have different weights.

    Reference:
        W. G. Cochran, Sampling Techniques, 3rd ed. (1977), sections 2.11 and 6.4.
    """
    values, weights = values.double(), weights.double()
    total = weights.sum()
    mean = (weights * values).sum() / total
    if share >= 1.0:
        return Estimate(float(mean), 0.0 if bool(total > 0) else math.nan)
    drawn, index = torch.unique(rows, return_inverse=True)
    residuals = torch.zeros(len(drawn), dtype=torch.float64, device=values.device)
    residuals = residuals.index_add(0, index, weights * (values - mean))
    count = len(drawn)
    if count < 2:
        return Estimate(float(mean), math.nan)
    variance = (1.0 - share) * count / (count - 1) * residuals.square().sum() / total.square()
    return Estimate(*torch.stack([mean, variance.sqrt()]).tolist())
