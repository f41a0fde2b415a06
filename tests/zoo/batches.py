"""Batches: what one call of a model gets, and the labels of its samples."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORED = -100
CLASSES = 3
SAMPLES = 5
VOCABULARY = 6


@dataclass(frozen=True)
class Batch:
    """What one call of a model gets, and the labels of its samples."""

    args: tuple[Any, ...]
    labels: Tensor
    kwargs: dict[str, Any] = field(default_factory=dict)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=IGNORED)


def _generator(index: int) -> torch.Generator:
    return torch.Generator().manual_seed(1000 + index)


def vectors(index: int, dtype: torch.dtype) -> Batch:
    g = _generator(index)
    return Batch((torch.randn(SAMPLES, 4, generator=g).to(dtype),), torch.randint(CLASSES, (SAMPLES,), generator=g))


def images(index: int, dtype: torch.dtype) -> Batch:
    g = _generator(index)
    return Batch(
        (torch.randn(SAMPLES, 1, 5, 5, generator=g).to(dtype),), torch.randint(CLASSES, (SAMPLES,), generator=g)
    )


def sequences(index: int, dtype: torch.dtype) -> Batch:
    g = _generator(index)
    return Batch((torch.randn(SAMPLES, 3, 4, generator=g).to(dtype),), torch.randint(CLASSES, (SAMPLES,), generator=g))


def tokens(index: int, dtype: torch.dtype) -> Batch:
    g = _generator(index)
    labels = torch.randint(VOCABULARY, (2, 4), generator=g)
    labels[0, :2] = IGNORED
    return Batch((torch.randint(VOCABULARY, (2, 4), generator=g),), labels)


def bags(index: int, dtype: torch.dtype) -> Batch:
    g = _generator(index)
    return Batch(
        (torch.randint(VOCABULARY, (SAMPLES, 3), generator=g),), torch.randint(CLASSES, (SAMPLES,), generator=g)
    )


def labelled_vectors(index: int, dtype: torch.dtype) -> Batch:
    batch = vectors(index, dtype)
    return Batch(batch.args, batch.labels, {"labels": batch.labels})
