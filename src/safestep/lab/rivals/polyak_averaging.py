"""Averaged Adam at Polyak's rate, which needs the loss and no learning rate: ScheduleFree+ and Schedule-Free Polyak."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class ScheduleFreePlus(Optimizer):
    """ScheduleFree+: Schedule-Free AdamW with inner momentum, at Polyak's rate.

    Weights z take Adam's steps, x averages them, and the model is trained at y = β x + (1 - β) z. The rate is
    (f + β ⟨g, z - x⟩)₊ / (‖g‖₁ √(π/2)), times a linear warm-up, during which x is z. Where there is weight decay it
    is by the rate squared times y. `step` takes a closure that returns the loss at y; one group of parameters.

    Args:
        params: what is trained; holds y, and x between `eval` and `train`.
        warm_up: steps of the warm-up.
        betas: Adam's.
        beta: at the start of the run.
        last_beta: at its end.
        annealing: steps from one to the other, geometrically in 1 - β; 0: none.
        norm_beta: of a moving average of ‖g‖₁.
        weight_decay: times the rate squared.
        eps: Adam's.

    Reference:
        A. Defazio, arXiv 2605.19095 (2026). Defaults are those of `AdamCScheduleFreePlusPaper` in its authors'
        repository, but the warm-up, which there is left to the user. Steps are those of that code to 1e-15 (it was
        run beside this one); with ``norm_beta`` they differ, since it averages what it had already corrected.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        warm_up: int = 0,
        betas: tuple[float, float] = (0.9, 0.95),
        beta: float = 0.9,
        last_beta: float = 0.965,
        annealing: int = 0,
        norm_beta: float = 0.0,
        weight_decay: float = 0.0,
        eps: float = 1e-8,
    ) -> None:
        settings = {"betas": betas, "beta": beta, "last_beta": last_beta, "annealing": annealing, "eps": eps}
        numbers = {"k": 0, "norm": 0.0, "largest": eps, "weights": 0.0}
        more = {"warm_up": warm_up, "norm_beta": norm_beta, "weight_decay": weight_decay}
        super().__init__(params, {"lr": 1.0} | settings | numbers | more)

    @torch.no_grad()
    def eval(self) -> None:
        """Put the average x into the model."""
        for p, state in self.state.items():
            if "y" not in state:
                state["y"] = p.clone()
                p.copy_(state["x"])

    @torch.no_grad()
    def train(self) -> None:
        """Put y back into the model."""
        for p, state in self.state.items():
            if "y" in state:
                p.copy_(state.pop("y"))

    @torch.no_grad()
    def step(self, closure: Callable[[], float]) -> float:  # type: ignore[override]
        """Take a step by the gradients there are, and the loss that the closure returns."""
        with torch.enable_grad():
            value = float(closure())
        (group,) = self.param_groups
        group["k"] += 1
        k, (beta1, beta2), beta = group["k"], group["betas"], self._beta(group)
        moved = [p for p in group["params"] if p.grad is not None]
        scales, inner = [], 0.0
        for p in moved:
            state = self.state[p]
            if not state:
                state.update(x=p.clone(), z=p.clone(), m=torch.zeros_like(p), v=torch.zeros_like(p))
            inner += float((p.grad * (state["z"] - state["x"])).sum())
            state["m"].mul_(beta1).add_(p.grad, alpha=1 - beta1)
            state["v"].mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
            scales.append((state["v"] / (1 - beta2**k)).sqrt_().add_(group["eps"]))
        gap = max(0.0, value + beta * inner)
        rate = group["lr"] * self._rate(group, gap, [p.grad for p in moved], scales)
        share = self._share(group, rate)
        for p, scale in zip(moved, scales, strict=True):
            x, z, m = (self.state[p][name] for name in "xzm")
            z.sub_(p, alpha=rate**2 * group["weight_decay"])
            z.addcdiv_(m / (1 - beta1**k), scale, value=-rate)
            x.lerp_(z, share)
            p.copy_(beta * x + (1 - beta) * z)
        return value

    def _beta(self, group: dict[str, Any]) -> float:
        done = min((group["k"] - 1) / group["annealing"], 1.0) if group["annealing"] else 0.0
        return float(1 - (1 - group["beta"]) ** (1 - done) * (1 - group["last_beta"]) ** done)

    def _rate(self, group: dict[str, Any], gap: float, gradients: list[Tensor], scales: list[Tensor]) -> float:
        norm = sum(float(g.abs().sum()) for g in gradients) * math.sqrt(math.pi / 2)
        group["norm"] = group["norm_beta"] * group["norm"] + (1 - group["norm_beta"]) * norm
        corrected = group["norm"] / (1 - group["norm_beta"] ** group["k"])
        warm = min(1.0, group["k"] / group["warm_up"]) if group["warm_up"] else 1.0
        return warm * gap / corrected if corrected else 0.0

    def _share(self, group: dict[str, Any], rate: float) -> float:
        group["largest"] = max(group["largest"], rate)
        if group["k"] <= group["warm_up"]:
            return 1.0
        group["weights"] += group["largest"] ** 2
        return float(group["largest"] ** 2 / group["weights"])


class ScheduleFreePolyak(ScheduleFreePlus):
    """Schedule-Free Adam at Polyak's rate (f + β ⟨g, z - x⟩)₊ / ‖g‖², the norm that of Adam's inverse scale.

    Without inner momentum, warm-up and annealing; x is the plain mean of all z. The loss is taken to reach 0.

    Note:
        The paper keeps the denominator above a number M whose value could not be looked up: here 1e-8. Adam's
        betas and β are those of Schedule-Free.

    Reference:
        D. Oikonomou et al., arXiv 2511.07767 (2025).
    """

    def __init__(self, params: Iterable[Tensor], *, beta: float = 0.9) -> None:
        super().__init__(params, betas=(0.0, 0.999), beta=beta)

    def _rate(self, group: dict[str, Any], gap: float, gradients: list[Tensor], scales: list[Tensor]) -> float:
        return gap / max(sum(float((g * g / d).sum()) for g, d in zip(gradients, scales, strict=True)), 1e-8)

    def _share(self, group: dict[str, Any], rate: float) -> float:
        return 1 / float(group["k"])
