"""A small GPT: pre-LN blocks, causal attention by torch's own kernel, learned positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (torch's documentation calls it so)


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
        self.blocks = nn.Sequential(*(_Block(width, heads) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes, bias=False)
        self.apply(_small)
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits of shape ``(batch, length, classes)`` for token numbers of shape ``(batch, length)``."""
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device))
        logits: Tensor = self.head(self.norm(self.blocks(x)))
        return logits


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        shape = (batch, length, self.heads, width // self.heads)
        q, k, v = (part.view(shape).transpose(1, 2) for part in self.qkv(self.before(x)).chunk(3, dim=-1))
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.mix(attended.transpose(1, 2).reshape(batch, length, width))
        return x + self.feed(self.after(x))  # type: ignore[no-any-return]


def _small(module: nn.Module) -> None:
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
