"""Small models of every kind that a guard meets."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from zoo.batches import CLASSES, VOCABULARY, cross_entropy


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, CLASSES))


def cnn() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(18, CLASSES)
    )


class ChannelsLast(nn.Module):
    """A CNN in channels_last memory format: dropout draws its mask along the memory, not along the indices."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.GELU(), nn.Dropout(0.3))
        self.head = nn.Linear(4, CLASSES)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x.contiguous(memory_format=torch.channels_last)).mean((2, 3)))


class TiedLanguageModel(nn.Module):
    """Input and output embedding are one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 4)
        self.hidden = nn.Linear(4, 4)
        self.head = nn.Linear(4, VOCABULARY, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(torch.tanh(self.hidden(self.embedding(ids))))


class Attention(nn.Module):
    """nn.MultiheadAttention, with or without its weights."""

    def __init__(self, need_weights: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, CLASSES)
        self.need_weights = need_weights

    def forward(self, x: Tensor) -> Tensor:
        mixed, weights = self.attention(x, x, x, need_weights=self.need_weights)
        return self.head(mixed.mean(1) + (weights.mean() if weights is not None else 0.0))


class Encoder(nn.Module):
    """nn.TransformerEncoderLayer with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.2, batch_first=True)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x).mean(1))


class DotProduct(nn.Module):
    """F.scaled_dot_product_attention called by hand, causal."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.head = nn.Linear(4, 12), nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.mix(x).chunk(3, -1)
        return self.head(F.scaled_dot_product_attention(q, k, v, is_causal=True)[:, -1])


class Recurrent(nn.Module):
    """nn.LSTM or nn.GRU, read off at the last element."""

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU]) -> None:
        super().__init__()
        self.cell, self.head = kind(4, 3, batch_first=True), nn.Linear(3, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0][:, -1])


class Bag(nn.Module):
    """nn.EmbeddingBag and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.bag, self.head = nn.EmbeddingBag(VOCABULARY, 4), nn.Linear(4, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.bag(ids))


class SparseTable(nn.Module):
    """An embedding with sparse gradients and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(VOCABULARY, 4, sparse=True), nn.Linear(4, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(torch.tanh(self.table(ids).mean(1)))


def dominated() -> nn.Linear:
    """A layer whose largest singular value stands apart, so that power iterations converge fast."""
    layer = nn.Linear(4, 6)
    with torch.no_grad():
        layer.weight.add_(2.0)
    return layer


def old_style(normalise: Callable[[nn.Module], nn.Module]) -> Callable[[], nn.Sequential]:
    def build() -> nn.Sequential:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # deprecated, and still in many models
            return nn.Sequential(normalise(dominated()), nn.GELU(), nn.Linear(6, CLASSES))

    return build


def new_style(normalise: Callable[[nn.Module], nn.Module]) -> Callable[[], nn.Sequential]:
    return lambda: nn.Sequential(normalise(dominated()), nn.GELU(), nn.Linear(6, CLASSES))


def frozen() -> nn.Sequential:
    model = mlp()
    model[0].requires_grad_(False)
    return model


class Unused(nn.Module):
    """A branch that the forward never takes, so that its parameters never have a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = mlp(), nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


class Checkpointed(nn.Module):
    """The hidden layer, dropout included, is recomputed in backward."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.hidden = nn.Sequential(nn.GELU(), nn.Dropout(0.3), nn.Linear(6, 6), nn.GELU())
        self.head = nn.Linear(6, CLASSES)
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        return self.head(checkpoint(self.hidden, self.first(x), use_reentrant=self.reentrant))


class _Square(torch.autograd.Function):
    """A custom function without a forward derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * gradient


class Squared(nn.Module):
    """The layer around the custom function."""

    def forward(self, x: Tensor) -> Tensor:
        return _Square.apply(x)


def custom_function() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), Squared(), nn.Linear(6, CLASSES))


class Wrapped(nn.Module):
    """An MLP whose logits come in some parcel."""

    def __init__(self, parcel: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.first, self.head, self.parcel = nn.Linear(4, 6), nn.Linear(6, CLASSES), parcel

    def forward(self, x: Tensor) -> Any:
        hidden = F.gelu(self.first(x))
        return self.parcel(self.head(hidden), hidden)


class WithLoss(nn.Module):
    """Takes the labels and returns (loss, logits)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp()

    def forward(self, x: Tensor, *, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.body(x)
        return cross_entropy(logits, labels), logits


class Chancy(nn.Module):
    """Draws from Python's, NumPy's and torch's generators and keeps a count and a cache on itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(4, 6), nn.Linear(6, CLASSES)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        noise = 0.1 * torch.randn(x.shape, dtype=torch.float32)  # the same numbers in every dtype
        hidden = F.gelu(self.first(x + noise.to(x.dtype)))
        self.cache = hidden.detach()
        return self.head(hidden) * (0.5 + random.random()) * (0.5 + float(np.random.random()))


class Annealed(nn.Module):
    """The forward writes to a buffer that it also reads: a temperature that moves with every training forward."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp()
        self.register_buffer("heat", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.heat.mul_(0.7)
        return self.body(x) / self.heat


class Masked(nn.Module):
    """A class that a mask rules out has the logit -inf."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, CLASSES + 1))

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.arange(CLASSES + 1, device=x.device) == CLASSES
        return self.body(x).masked_fill(mask, -torch.inf)
