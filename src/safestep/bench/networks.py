"""The two networks of the benchmark that have a width to choose: a GPT and a ResNet-18 for small images."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from safestep.lab.models import Block


class GPT(nn.Module):
    """A decoder-only transformer without dropout, initialised as GPT-2 is (normal, 0.02).

    Args:
        width: features of a token, a multiple of ``heads``.
        layers: number of blocks.
        heads: attention heads of a block.
        length: tokens of the longest sequence.
        classes: size of the vocabulary.
        tied: whether the head shares its matrix with the embedding.

    Example:
        >>> GPT(8, 1, 2, 5, 11)(torch.zeros(3, 5, dtype=torch.long)).shape
        torch.Size([3, 5, 11])
    """

    def __init__(self, width: int, layers: int, heads: int, length: int, classes: int, *, tied: bool = False) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(classes, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(Block(width, heads, causal=True) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes, bias=False)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits of shape ``(batch, length, classes)`` for token numbers of shape ``(batch, length)``."""
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device))
        logits: Tensor = self.head(self.norm(self.blocks(x)))
        return logits


class ResNet18(nn.Module):
    """The residual network of He et al. with two basic blocks in each of four stages, for images of 32 by 32.

    Args:
        width: channels of the first stage; each stage doubles them and halves the image.
        classes: logits of an image.

    Example:
        >>> ResNet18(width=4)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])

    Reference:
        K. He et al., arXiv 1512.03385 (2015).
    """

    def __init__(self, width: int = 64, classes: int = 10) -> None:
        super().__init__()
        channels = [width * 2**stage for stage in range(4)]
        self.stem, self.norm = nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(_Residual(width, width, 1), _Residual(width, width, 1))
        for before, after in pairwise(channels):
            self.blocks.extend([_Residual(before, after, 2), _Residual(after, after, 1)])
        self.head = nn.Linear(channels[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits of shape ``(batch, classes)`` for images of shape ``(batch, 3, height, width)``."""
        x = self.blocks(functional.relu(self.norm(self.stem(images))))
        logits: Tensor = self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


class _Residual(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.shortcut = nn.Sequential()  # the image as it is
        if stride > 1:
            self.shortcut.extend([nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after)])

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.inner(x) + self.shortcut(x))
