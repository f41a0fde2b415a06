"""Whether a gradient at the outputs is that of losses of single entries: sigmoid cross-entropies, squared errors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from safestep.formulas.finding import ALIKE, FoundLoss, Refused, Rows, apart, simplest

_FITS = 1e-3
"""A difference of weights up to which they are one."""
_MANY = 1 << 16
"""Entries that weights are looked at by."""
_ENTRIES = 256
"""Entries that squared errors are looked at by: all pairs of them."""
_LABELS, _SHARE = 16, 0.04
"""Values that labels may have to be told, and the share of all pairs of entries that then have the same one."""

_CLEAR = 2.5e-4
"""``|P - y|`` above which the rounding of P in float32 changes a weight by less than `_FITS`."""

_TIED = 0.2
"""Share of the entries with the largest gradient."""

_ARBITRARY = (
    "no cross-entropy, and no squared error of labels with few values (with many, c (z - y) of unknown c and y looks "
    "like other losses)"
)
_TIES = (
    "no cross-entropy, and many entries with the same, largest gradient, as absolute errors, hinge and clipped losses "
    "leave them: these hardly bend, and what they are cannot be told"
)


def found_sigmoids(rows: Rows) -> FoundLoss | None:
    """Return the binary cross-entropy with labels 0 and 1 whose gradient this is; None if it is none.

    Equation:
        ``G = w sigmoid(z)`` where the label is 0, ``-w' sigmoid(-z)`` where it is 1; the weights of all entries are the
        same, or those of one label, of one output, or both.

    Args:
        rows: of the logits and their gradient.
    """
    few = max(8, _MANY // rows.logits.shape[1])
    z, g = rows.logits[:few].double(), rows.gradient[:few].double()
    effort = entry_effort(z, g)
    known = (g != 0) & torch.isfinite(z) & rows.trusted(effort, g.abs())
    clear = known & (effort > _CLEAR)
    known = clear if int(clear.sum()) >= 4 else known
    if int(known.sum()) < 4:
        return None
    weights, signs = (g.abs() / effort)[known], (g > 0).long()[known]
    # with labels of one kind alone the probabilities have to differ for their shape to be seen
    if bool((signs == signs[0]).all()) and float(effort[known].log().std()) < 0.1:
        return None
    outputs = torch.arange(z.shape[1], device=z.device).expand_as(z)[known]
    tolerance = _FITS + 4.0 * rows.rounding
    tried = (("one", 0 * signs), ("classes", signs), ("classes", outputs), ("classes", 2 * outputs + signs))
    how = next((how for how, groups in tried if apart(weights, groups) <= tolerance), None)
    if how is None:
        return None
    plain = weights[signs == 1] if how == "classes" and bool((signs == 1).any()) else weights
    weight, masked = float(plain.median()), bool(((g == 0) & (effort > 1e-3)).any()) or rows.known < rows.count
    entries = rows.count * z.shape[1]
    reduction, scale = simplest(weight, {"mean": (entries, entries), "sum": (1, 1)}, ALIKE)
    if masked:  # a mean that leaves entries out
        how = "rows"
    total = float(weights.sum()) / len(z) * rows.known
    return FoundLoss("bce", reduction, scale, weight, total, how)  # type: ignore[arg-type]


def too_sure(rows: Rows) -> bool:
    """Return whether nearly all labels would be so sure, of sigmoids, that rounding hides what the gradient is of."""
    z, g = rows.logits.double(), rows.gradient.double()
    return int(((g != 0) & torch.isfinite(z) & (entry_effort(z, g) > _CLEAR)).sum()) < 4


def entry_effort(logits: Tensor, gradient: Tensor) -> Tensor:
    """Return what the size of a gradient with weight 1 would be; it is negative where the label is 1."""
    return torch.where(gradient < 0, torch.sigmoid(-logits), torch.sigmoid(logits))


def found_squares(rows: Rows) -> FoundLoss | Refused:
    """Return the squared error whose gradient this is, if its labels have few values.

    Equation:
        ``G = c (z - y)``: of two entries with the same label ``dG = c dz``. That slope is shared by many pairs, and
        with it ``y = z - G / c`` has few values.

    Args:
        rows: of the outputs and their gradient.
    """
    few = max(8, _MANY // rows.logits.shape[1])
    seen = (rows.gradient[:few] != 0) & torch.isfinite(rows.logits[:few])
    z, g = rows.logits[:few][seen].double(), rows.gradient[:few][seen].double()
    some = torch.arange(min(_ENTRIES, len(z)), device=z.device) * len(z) // max(1, min(_ENTRIES, len(z)))
    z, g = z[some], g[some]
    if len(z) >= 8 and _tied(g, rows.rounding):
        return Refused(_TIES)
    c = _slope(z, g, rows.rounding) if len(z) >= 8 else None
    if c is None:
        return Refused(_ARBITRARY, final=len(z) >= 8)
    entries = rows.count * rows.logits.shape[1]
    # half_mse is mse with half the factor: of an explanation times 1 there is one, else the mean over entries is meant
    tried = [("mse", simplest(c / 2.0, {"mean": (entries, entries), "sum": (1, 1)}, ALIKE))]
    tried.append(("half_mse", simplest(c, {"mean": (rows.count, rows.count), "sum": (1, 1)}, ALIKE)))
    name, (reduction, scale) = next((one for one in tried if one[1][1] == 1.0), tried[0])
    weight = c / 2.0 if name == "mse" else c
    return FoundLoss(name, reduction, scale, weight, weight * (entries if name == "mse" else rows.count))  # type: ignore[arg-type]


def _tied(g: Tensor, rounding: float) -> bool:
    """Return whether many entries have the largest gradient."""
    return float((g.abs() >= (1.0 - 4.0 * rounding) * g.abs().max()).double().mean()) > _TIED


def _slope(z: Tensor, g: Tensor, rounding: float) -> float | None:
    """Return the slope that many pairs of entries share, if it leaves labels of few values; else None."""
    first, second = torch.triu_indices(len(z), len(z), 1, device=z.device)
    dz, dg = z[first] - z[second], g[first] - g[second]
    # a difference is known to the rounding of what it is of
    sizes = torch.maximum(z[first].abs(), z[second].abs()), torch.maximum(g[first].abs(), g[second].abs())
    slopes = dg / torch.where(dz == 0, 1.0, dz)
    errors = rounding * (sizes[0] / dz.abs().clamp(min=1e-300) + sizes[1] / dg.abs().clamp(min=1e-300))
    close = _FITS + 4.0 * rounding
    usable = (slopes > 0) & (errors < close)
    if int(usable.sum()) < 8:
        return None
    logs = slopes[usable].log().sort().values
    # the densest window holds at least this many
    held = max(4, math.ceil(_SHARE * len(first)))
    if held >= len(logs):
        return None
    widths = logs[held:] - logs[:-held]
    start = int(widths.argmin())
    if float(widths[start]) > 4.0 * close:
        return None
    c = math.exp(float(logs[start : start + held].median()))
    labels, order = (z - g / c).sort()
    value = (labels.diff() > 8.0 * close * (z.abs().max() + labels.abs().max())).cumsum(0)
    value = torch.cat([value.new_zeros(1), value])
    count = value.bincount().double()
    if len(count) > _LABELS or 4 * len(count) > len(z):
        return None
    inside = [one - (torch.zeros_like(count).index_add(0, value, one) / count)[value] for one in (z[order], g[order])]
    c = float((inside[0] * inside[1]).sum() / inside[0].square().sum())
    left = (inside[1] - c * inside[0]).norm() / inside[1].norm().clamp(min=1e-300)
    # as exact as G is: its variation among entries of one label may be small beside it
    allowed = _FITS + 4.0 * rounding * float(g.norm() / inside[1].norm().clamp(min=1e-300))
    return c if c > 0.0 and float(left) <= allowed else None
