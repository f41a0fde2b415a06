"""What is trained: a small classifier with a branch that need not be taken, and data that can be learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

FEATURES, HIDDEN, CLASSES, SAMPLES = 6, 12, 3, 96


class Network(nn.Module):
    """A hidden layer, dropout and BatchNorm on request, a head and a second one.

    Attributes:
        fail: raised at the next forward, or in the backward of it; then forgotten.
        in_backward: which of the two.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.body = nn.Linear(FEATURES, HIDDEN)
        self.norm = nn.BatchNorm1d(HIDDEN) if "norm" in kind else nn.Identity()
        self.drop = nn.Dropout(0.2) if "dropout" in kind else nn.Identity()
        self.head, self.branch = nn.Linear(HIDDEN, CLASSES), nn.Linear(HIDDEN, CLASSES)
        self.fail: BaseException | None = None
        self.in_backward = False

    def forward(self, x: Tensor, taken: bool = True) -> Tensor:
        hidden = self.drop(torch.nn.functional.gelu(self.norm(self.body(x))))
        error, self.fail = self.fail, None
        if error is not None and not self.in_backward:
            raise error
        if error is not None:
            hidden.register_hook(lambda gradient: _throw(error))
        return self.head(hidden) + self.branch(hidden) if taken else self.head(hidden)


def _throw(error: BaseException) -> None:
    raise error


def data() -> tuple[Tensor, Tensor]:
    """Labels of a linear teacher, one in ten of them wrong."""
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(SAMPLES, FEATURES, generator=generator)
    y = (x @ torch.randn(FEATURES, CLASSES, generator=generator)).argmax(-1)
    wrong = torch.rand(SAMPLES, generator=generator) < 0.1
    return x, torch.where(wrong, torch.randint(CLASSES, (SAMPLES,), generator=generator), y)
