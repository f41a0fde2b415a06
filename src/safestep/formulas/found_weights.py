"""How much a loss that was found bends: with the weights of its rows or entries, read off each gradient again."""

from __future__ import annotations

import torch
from torch import Tensor

from safestep._torch.shapes import Float
from safestep.formulas.finding import FoundLoss, smallest, trusted
from safestep.formulas.found_entries import entry_effort
from safestep.formulas.quadratic_ratio import softmax_bend


def found_bend(
    logits: Float[Tensor, "rows outputs"],
    tangent: Float[Tensor, "rows outputs"],
    gradient: Float[Tensor, "rows outputs"],
    found: FoundLoss,
    loss_scale: float = 1.0,
) -> Tensor:
    r"""Return how much each row's part of a cross-entropy bends along a step, with its weight.

    Equation:
        ``w_i Var_P(a_i)`` with `row_weights`, or `weighted_sigmoid_bend`.

    Args:
        logits: ``z`` at the start of the step, in nats.
        tangent: ``a = J p``, in nats.
        gradient: ``G = dL/dz``.
        found: what the loss is.
        loss_scale: what a gradient scaler multiplied the loss by.

    Returns:
        The second derivative of each row's part, shape ``(rows,)``, in units of the loss: their sum is p.Gp.

    Example:
        >>> z, a = torch.tensor([[1.0, 0.0], [0.0, 3.0]], requires_grad=True), torch.tensor([[1.0, -1.0], [0.0, 2.0]])
        >>> loss = torch.nn.functional.cross_entropy(z, torch.tensor([0, 1]), weight=torch.tensor([1.0, 3.0]))
        >>> G = torch.autograd.grad(loss, z)[0]
        >>> found = FoundLoss("cross_entropy", "mean", 1.0, 0.5, 1.0, "classes")
        >>> found_bend(z.detach(), a, G, found) / softmax_bend(z.detach(), a)  # 1 and 3 of 4
        tensor([0.2500, 0.7500])
    """
    if found.loss == "bce":
        return weighted_sigmoid_bend(logits, tangent, gradient) / loss_scale
    return row_weights(logits, gradient, found, loss_scale) * softmax_bend(logits, tangent)


def row_weights(logits: Tensor, gradient: Tensor, found: FoundLoss, loss_scale: float = 1.0) -> Tensor:
    r"""Return the weight of each row's cross-entropy, read off its gradient.

    Equation:
        ``w_i = sum_k G_ik / (1 - sum_k P_ik)``, the sums over the classes that are no label of row i in the first, and
        over the labels in the second; ``-sum_k G_ik`` of log-probabilities.

    Args:
        logits: ``z``, shape ``(rows, classes)``, in nats.
        gradient: ``G = dL/dz``.
        found: what the loss is.
        loss_scale: what a gradient scaler multiplied the loss by.

    Returns:
        The weights, shape ``(rows,)``: at least 0; 0 where there is no gradient; `FoundLoss.weight` where the label is
        so sure that the gradient is rounding, or with soft or smoothed labels.

    Example:
        >>> z = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
        >>> losses = torch.nn.functional.cross_entropy(z, torch.tensor([0, 1, 2, 2]), reduction="none")
        >>> G = torch.autograd.grad((torch.tensor([1.0, 2.0, 3.0, 4.0]) * losses).sum(), z)[0]
        >>> found = FoundLoss("cross_entropy", "sum", 1.0, 2.5, 10.0, "rows")
        >>> row_weights(z.detach(), G, found).round(decimals=6)
        tensor([1., 2., 3., 4.], dtype=torch.float64)
    """
    wide = torch.float64 if logits.dtype == torch.float64 else torch.float32
    if found.labels == "log":
        return -gradient.sum(-1, dtype=wide).clamp(max=0.0) / loss_scale
    sizes = gradient.abs().amax(-1)
    uniform = torch.where(sizes > 0, torch.full_like(sizes, found.weight, dtype=wide), 0.0)
    if found.labels == "soft" or found.smoothing:
        return uniform
    p, g = torch.softmax(logits, -1, dtype=wide), gradient.to(wide) / loss_scale
    label = (g - found.weight * p).topk(2, largest=False).indices if found.labels == "mixed" else g.argmin(-1, True)
    others, effort = g.scatter(-1, label, 0.0).sum(-1), p.scatter(-1, label, 0.0).sum(-1)
    known = trusted(effort, sizes, logits, smallest(gradient.dtype))
    return torch.where(known, others / effort, uniform).clamp(min=0.0)


def weighted_sigmoid_bend(logits: Tensor, tangent: Tensor, gradient: Tensor) -> Tensor:
    r"""Return how much binary cross-entropies with labels 0 and 1, and any weights, bend along a step.

    Equation:
        ``sum_k |G_k| (1 - e_k) a_k^2`` with the gradient ``|G_k| = w_k e_k``, ``e = P`` at labels 0, ``1 - P`` at 1:
        ``w_k P_k (1 - P_k) a_k^2``, and nothing has to be known of the weights.

    Args:
        logits: ``z``, shape ``(rows, outputs)``, in nats.
        tangent: ``a = J p``, in nats.
        gradient: ``G = dL/dz``.

    Returns:
        The second derivative of each row's losses, shape ``(rows,)``, in units of the loss.

    Example:
        >>> weighted_sigmoid_bend(torch.zeros(1, 1), torch.tensor([[2.0]]), torch.tensor([[-1.5]]))  # w = 3
        tensor([3.])
    """
    return (gradient.abs() * entry_effort(-logits, gradient) * tangent.square()).sum(-1)
