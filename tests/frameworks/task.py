"""What the frameworks without a model of their own train: a small classifier on random samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from frameworks.witness import Batch

FEATURES, CLASSES, SIZE = 5, 4, 8
STEPS = 8


class Classifier(nn.Module):
    """Two layers in parts, so that each part can have an optimizer of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Sequential(nn.Linear(FEATURES, 16), nn.Tanh()), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def samples(batches: int = STEPS) -> TensorDataset:
    chance = torch.Generator().manual_seed(1)
    count = SIZE * batches
    x, y = (
        torch.randn(count, FEATURES, generator=chance),
        torch.randint(0, CLASSES, (count,), generator=chance),
    )
    return TensorDataset(x, y)


def loader(batches: int = STEPS) -> DataLoader[Any]:
    return DataLoader(samples(batches), batch_size=SIZE)


def plain(function: Callable[..., Any], batch: Batch) -> Tensor:
    """Return the logits of a model that returns nothing else and of which every row counts."""
    return function(*batch[0])
