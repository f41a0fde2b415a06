"""Four ways to clip gradients between backward and step: to a norm, by unit, by z-score, by each tensor's history."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from statistics import fmean, pvariance

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, get_total_norm

from safestep._torch.extras import need


def _gradients(model: nn.Module) -> list[Tensor]:
    return [p.grad for p in model.parameters() if p.grad is not None]


def clip(model: nn.Module) -> Callable[[], None]:
    """Return what scales all gradients of a model to a norm of 1 where it is larger."""

    def run() -> None:
        clip_grad_norm_(model.parameters(), 1.0)

    return run


def agc(model: nn.Module) -> Callable[[], None]:
    """Return adaptive gradient clipping: a unit's gradient is at most 0.01 times as long as its weights.

    A unit is a row of a matrix, the kernel of an output channel, or a whole bias. The last module that has a matrix
    is left alone, as the paper says of the last layer; it writes 0.01 for batches of up to 1024.

    Reference:
        A. Brock et al., arXiv 2102.06171 (2021), by the package pytorch_optimizer.
    """
    by_unit = need("pytorch_optimizer.optimizer.agc", "peers").agc
    owners = [m for m in model.modules() if any(p.ndim > 1 for p in m.parameters(recurse=False))]
    spared = {id(p) for p in owners[-1].parameters(recurse=False)} if owners else set()
    clipped = [p for p in model.parameters() if id(p) not in spared]

    @torch.no_grad()
    def run() -> None:
        for p in clipped:
            if p.grad is not None:
                p.grad.copy_(by_unit(p, p.grad, agc_clip_val=0.01))

    return run


def zclip(model: nn.Module) -> Callable[[], None]:
    """Return ZClip: a norm more than 2.5 deviations above its running mean is clipped, the further the lower.

    A norm z deviations above the mean μ becomes μ + 2.5² σ / z ("reciprocal clipping"). Mean and variance are those
    of the first 25 norms, during which nothing is clipped, then moving averages (0.97) of what the norms became.

    Note:
        The rule of the paper. The released code also clips everything to a norm of 1, unless told otherwise.

    Reference:
        A. Kumar et al., arXiv 2504.02507 (2025).
    """
    threshold, kept, warm_up, eps = 2.5, 0.97, 25, 1e-6
    first: list[float] = []
    mean = variance = math.nan

    def run() -> None:
        nonlocal mean, variance
        norm = float(get_total_norm(_gradients(model)))
        if len(first) < warm_up:
            first.append(norm)
            mean, variance = fmean(first), pvariance(first)
            return
        z = (norm - mean) / (math.sqrt(variance) + eps)
        if z > threshold:
            target = mean + threshold**2 * math.sqrt(variance) / z
            for gradient in _gradients(model):
                gradient.mul_(target / (norm + eps))
            norm = target
        mean = kept * mean + (1 - kept) * norm
        variance = kept * variance + (1 - kept) * (norm - mean) ** 2

    return run


def adagc(model: nn.Module) -> Callable[[], None]:
    """Return AdaGC: each tensor's gradient is at most 1.05 times as long as its own clipped ones lately were.

    For 99 steps all gradients together are clipped to a norm of 1, and a tensor remembers its shortest; from then on a
    moving average (0.98). The paper's warm-up of 100 steps is not shortened for short runs: it says nothing of them.

    Reference:
        G. Wang et al., arXiv 2502.11034 (2025). When the warm-up ends, and eps, are as in pytorch_optimizer's AdaGC.
    """
    absolute, relative, kept, warm_up, eps = 1.0, 1.05, 0.98, 100, 1e-8
    lengths: dict[Tensor, Tensor] = {}
    steps = 0

    @torch.no_grad()
    def run() -> None:
        nonlocal steps
        steps += 1
        share = (absolute / (get_total_norm(_gradients(model)) + eps)).clamp(max=1.0)
        for p in model.parameters():
            if p.grad is None:
                continue
            if p not in lengths or steps < warm_up:
                length = p.grad.mul_(share).norm()
                lengths[p] = torch.minimum(lengths.get(p, length), length)
            else:
                scale = relative * lengths[p].clamp(min=eps) / p.grad.norm().clamp(min=eps)
                lengths[p].lerp_(p.grad.mul_(scale.clamp(max=1.0)).norm(), 1 - kept)

    return run


CLIPPINGS: Mapping[str, Callable[[nn.Module], Callable[[], None]]] = {
    "clip": clip,
    "agc": agc,
    "zclip": zclip,
    "adagc": adagc,
}
"""Ways to clip by name: each takes a model and returns what to call between backward and step."""
