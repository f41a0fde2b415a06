"""A plain training loop on made-up data, for what takes more steps than three."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import safestep

FEATURES, CLASSES, ROWS = 4, 3, 32


def network(*layers: nn.Module) -> nn.Sequential:
    """Return a small network of one seed, with layers of choice in its middle."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(FEATURES, 8), *(layers or (nn.GELU(),)), nn.Linear(8, CLASSES))


class Loop:
    """SGD on batches that depend on their number alone, under a guard.

    Args:
        model: the model; a small network by default.
        lr: learning rate.
        rows: size of a batch.
        optimizer: another optimizer than plain SGD, as a function of parameters and rate.
        guarded: whether there is a guard.
        attach: options of `safestep.attach`.
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        *,
        lr: float = 1e-3,
        rows: int = ROWS,
        optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.SGD,
        guarded: bool = True,
        **attach: object,
    ) -> None:
        self.model, self.rows, self.index = network() if model is None else model, rows, 0
        self.optimizer = optimizer(self.model.parameters(), lr=lr)
        self.guard = safestep.attach(self.model, self.optimizer, **attach) if guarded else None

    @property
    def reports(self) -> list[safestep.StepReport]:
        return list(self.guard.history) if self.guard else []

    @property
    def ways(self) -> list[str]:
        """The tier or way of each step."""
        return [report.method.split("/")[0] for report in self.reports]

    def batch(self) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(self.index)
        x = torch.randn(self.rows, FEATURES, generator=generator)
        return x, torch.randint(CLASSES, (self.rows,), generator=generator)

    def backward(self) -> None:
        self.optimizer.zero_grad()
        x, y = self.batch()
        cross_entropy(self.model(x), y).backward()

    def step(self, *, lr: float | None = None) -> None:
        if lr is not None:
            self.optimizer.param_groups[0]["lr"] = lr
        self.backward()
        self.optimizer.step()
        self.index += 1

    def steps(self, count: int) -> Loop:
        for _ in range(count):
            self.step()
        return self

    def parameters(self) -> list[Tensor]:
        return [p.detach().clone() for p in self.model.parameters()]
