"""Whether a gradient at the logits is that of a softmax cross-entropy, with which labels and weights of the rows."""

from __future__ import annotations

import torch
from torch import Tensor

from safestep.formulas.finding import ALIKE, FoundLoss, Refused, Rows, apart, simplest
from safestep.formulas.logit_gradient import _golden

_CLASSES = 128
"""Of more classes those with the largest gradients of each row tell enough."""
_FITS = 5e-3
"""A residual of the gradient up to which it is explained; a small penalty on the logits leaves as much."""
_NONE, _BETTER, _SURE, _MOST = 1e-4, 2.0, 1e-3, 0.3
"""Label smoothing is looked for where this is left, seen where a fit with it is this much better, leaves no more than
this, and smooths no more."""
_GRID, _AGAIN = 12, 3
"""Places at which smoothing is looked for at first, and how often mixed labels are looked for again."""
_LEAST = 5e-3
"""Less smoothing is none: a penalty on the logits looks like it."""
_FACTOR_ROWS = 32
"""Rows that a factor on the logits is looked for by."""
_STRAIGHT, _SCALES = 1e-2, 0.05
"""How well ``log G`` has to be linear in ``z``, and how far its slope from 0 and 1, for a factor to be seen."""
_FUNCTION = 0.1
"""Weights whose neighbours in order of P(label) differ by so little of their variance are a function of it (von
Neumann's ratio; 1 for weights that are not)."""
_FEW = 8

_SIGNS = (
    "cross-entropies with weights of either sign (the advantages of a policy gradient?): these bend both ways, and a "
    "limit on the curvature of their sum means nothing"
)
_FOCAL = "cross-entropies whose weights follow the probability of the label, as those of a focal loss do"
_TWO = "two classes whose rows have weights of their own, or soft labels: these leave the same gradients"
_SCALED = "a cross-entropy of {factor:.4g} times the logits"
_SOFT = (
    "a cross-entropy of soft labels with unknown weights, several losses at once, label smoothing together with class "
    "weights, or another loss. If it is a cross-entropy: CurvatureRadius('cross_entropy', scale=...)"
)
_FEWER = "cross-entropies with different weights, of too few rows to tell what they depend on"


def found_softmax(rows: Rows) -> FoundLoss | Refused:
    """Return the cross-entropy whose gradient this is.

    Equation:
        ``G_i = w_i (P_i - q_i)``, ``P = softmax(z)``; ``q`` is one label, two, or those smoothed.

    Args:
        rows: of sums of zero.
    """
    classes, rounding, index = rows.logits.shape[1], rows.rounding, None
    g = rows.gradient
    if classes > _CLASSES:
        index = torch.topk(g.abs(), _CLASSES, -1).indices
        g = g.gather(-1, index)
    p, g = _probabilities(rows.logits, index), g.double()
    for labels in (1, 2) if p.shape[1] >= 5 else (1,):
        fit, smoothing, allowed = _Fit(p, g, labels, classes), 0.0, 4.0 * rounding
        if classes > 2 and fit.misfit(0.0) > _NONE:
            smoothing = fit.smoothing()
            unseen = fit.misfit(0.0) <= _BETTER * fit.misfit(smoothing) + _NONE
            small = smoothing < _LEAST and fit.misfit(0.0) <= _FITS
            smoothing = 0.0 if unseen or small or fit.misfit(smoothing) > _SURE + allowed else smoothing
        if fit.misfit(smoothing) > _FITS + allowed:
            continue
        weights, effort, label = fit.rows(smoothing)
        known = rows.trusted(effort, g.norm(dim=-1))
        if not bool(known.any()):
            return Refused("gradients that are all too small to tell a weight", final=False)
        likely = p.gather(-1, label.unsqueeze(-1)).squeeze(-1)
        names = label if index is None else index.gather(-1, label.unsqueeze(-1)).squeeze(-1)
        how = _weights(weights[known], names[known], likely[known], classes, ALIKE + allowed)
        if isinstance(how, Refused):
            return how
        return _found(weights[known], rows, how, "hard" if labels == 1 else "mixed", _round(smoothing))
    if _either_sign(p, g):
        return Refused(_SIGNS)
    factor = _factor(rows)
    return Refused(_SOFT if factor is None else _SCALED.format(factor=factor))


def found_log_softmax(rows: Rows) -> FoundLoss | Refused:
    """Return the negative log-likelihood of log-probabilities: ``G_i = -w_i q_i``, whose sum is the weight."""
    weights = -rows.gradient.sum(-1, dtype=torch.float64)
    how = "one" if apart(weights, torch.zeros_like(weights)) <= ALIKE or len(weights) == 1 else "rows"
    return _found(weights, rows, how, "log", 0.0)


class _Fit:
    """Least squares of ``G = w_i (P - q)`` with hard or mixed labels under smoothing, row by row.

    The label is where ``G`` is lowest, or, where smoothing has made a sure one too sure, where ``P`` is highest.
    """

    def __init__(self, p: Tensor, g: Tensor, labels: int, classes: int) -> None:
        self._p, self._g, self._classes, self._labels = p, g, classes, labels
        lowest, likeliest = (-g).topk(labels).indices, p.topk(labels).indices
        self._guesses = [lowest, likeliest] if classes > 2 else [lowest]  # of two classes either would fit

    def _fitted(self, smoothing: float, guess: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        if self._labels == 1:
            q = torch.full_like(self._p, smoothing / self._classes)
            q.scatter_add_(-1, guess, q.new_full(guess.shape, 1.0 - smoothing))
            return self._least(self._p - q, torch.ones_like(q))
        free, u = torch.ones_like(self._p).scatter(-1, guess, 0.0), self._p - smoothing / self._classes
        for _ in range(_AGAIN):  # how much there is of either label, nobody knows: it is where most is missing
            missing = self._g - self._least(u, free)[0].unsqueeze(-1) * u
            free = torch.ones_like(self._p).scatter(-1, (-missing).topk(2).indices, 0.0)
        return self._least(u, free)

    def _least(self, u: Tensor, free: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return weights, the norm of the direction, what is left, and the size of what there is, row by row."""
        u, g = free * u, free * self._g
        weights = (u * g).sum(-1) / u.square().sum(-1).clamp(min=1e-300)
        return weights, u.norm(dim=-1), (g - weights.unsqueeze(-1) * u).norm(dim=-1), g.norm(dim=-1)

    def _better(self, smoothing: float) -> tuple[list[tuple[Tensor, Tensor, Tensor, Tensor]], Tensor]:
        fits = [self._fitted(smoothing, guess) for guess in self._guesses]
        return fits, fits[-1][2] < fits[0][2]

    def smoothing(self) -> float:
        """Return the smoothing that fits best."""
        step = _MOST / _GRID
        near = step * min(range(_GRID + 1), key=lambda at: self.misfit(step * at))
        return _golden(self.misfit, max(0.0, near - step), near + step)

    def residuals(self, smoothing: float) -> Tensor:
        """Return what is left of each row."""
        fits, second = self._better(smoothing)
        return torch.where(second, fits[-1][2], fits[0][2])

    def misfit(self, smoothing: float) -> float:
        """Return what is left of all, relative to them."""
        fits, second = self._better(smoothing)
        left, size = (torch.where(second, fits[-1][at], fits[0][at]).norm() for at in (2, 3))
        return float(left / size.clamp(min=1e-300))

    def rows(self, smoothing: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return the weight of each row, the norm of its gradient with weight 1, and its label."""
        fits, second = self._better(smoothing)
        labels = [guess[:, 0] for guess in self._guesses]
        weights, effort = (torch.where(second, fits[-1][at], fits[0][at]) for at in (0, 1))
        return weights, effort, torch.where(second, labels[-1], labels[0])


def _probabilities(logits: Tensor, index: Tensor | None) -> Tensor:
    total = torch.cat([torch.logsumexp(row.double(), -1, keepdim=True) for row in logits.split(16)])
    return ((logits if index is None else logits.gather(-1, index)).double() - total).exp()


def _either_sign(p: Tensor, g: Tensor) -> bool:
    """Return whether hard labels fit if the likelihoods of some rows, or all, grow and those of others fall."""
    up, down = (_Fit(p, one, 1, p.shape[1]).residuals(0.0) for one in (g, -g))
    return float(torch.minimum(up, down).norm()) <= _FITS * float(g.norm())


def _weights(weights: Tensor, label: Tensor, likely: Tensor, classes: int, tolerance: float) -> str | Refused:
    if len(weights) == 1 or apart(weights, torch.zeros_like(label)) <= tolerance:
        return "one"
    if apart(weights, label) <= tolerance:
        return "classes"
    if classes == 2:
        return Refused(_TWO)
    if len(weights) < _FEW:
        return Refused(_FEWER, final=False)
    ordered = weights[likely.argsort()]
    if float(ordered.diff().square().mean() / (2.0 * ordered.var())) < _FUNCTION:
        return Refused(_FOCAL)
    return "rows"


def _round(smoothing: float) -> float:
    """Smoothing as somebody may have written it."""
    return round(smoothing, 3) if abs(smoothing - round(smoothing, 3)) < 1e-4 else smoothing


def _found(weights: Tensor, rows: Rows, how: str, labels: str, smoothing: float) -> FoundLoss:
    weight = float(weights.median())
    mean = weight if how == "one" else float(weights.mean())
    reduction, scale = simplest(mean, {"mean": (rows.known, rows.known + rows.hidden), "sum": (1, 1)}, ALIKE)
    if scale != 1.0 and rows.known < rows.count and abs(mean * rows.count - 1.0) <= ALIKE:
        reduction, scale = "sum", 1.0 / rows.count  # a mean over ignored rows too
    total = mean * rows.known
    return FoundLoss("cross_entropy", reduction, scale, weight, total, how, labels, smoothing)  # type: ignore[arg-type]


def _factor(rows: Rows) -> float | None:
    """Return the factor c of ``G = w softmax(c z)`` beside a hard label, if it is seen to be another than 1."""
    z, g = rows.logits[:_FACTOR_ROWS].double(), rows.gradient[:_FACTOR_ROWS].double()
    free = (g > 0) & torch.isfinite(z)
    count = free.sum(-1, keepdim=True).clamp(min=1)
    inside = [
        torch.where(free, one - torch.where(free, one, 0.0).sum(-1, keepdim=True) / count, 0.0)
        for one in (z, g.clamp(min=1e-300).log())
    ]
    slope = float((inside[0] * inside[1]).sum() / inside[0].square().sum().clamp(min=1e-300))
    left = (inside[1] - slope * inside[0]).norm() / inside[1].norm().clamp(min=1e-300)
    seen = float(left) <= _STRAIGHT + 4.0 * rows.rounding and slope > _SCALES and abs(slope - 1.0) > _SCALES
    return slope if seen else None


def found_soft(rows: Rows) -> FoundLoss | None:
    """Return the cross-entropy of soft labels with the simplest weight that makes ``P - G / w`` probabilities."""
    g, p = rows.gradient, torch.softmax(rows.logits, -1, dtype=rows.gradient.dtype)
    seen = p > 1e-30
    least = max(float((g[seen] / p[seen]).max()), float((-g / (1.0 - p).clamp(min=1e-6)).max()))
    for reduction, count in {"mean": rows.known, "sum": 1}.items():
        if 0.5 < least * count <= 1.0 + ALIKE + 2.0 * rows.rounding:
            weight, total = 1.0 / count, rows.known / count
            return FoundLoss("cross_entropy", reduction, 1.0, weight, total, "one", "soft")  # type: ignore[arg-type]
    return None
