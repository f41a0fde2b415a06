"""Two tiny transformers for experiments: one that reads images of digits, and one that continues text."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_WIDER = 4
"""Units of the hidden layer of a block, in units of its width."""


class Block(nn.Module):
    """Attention and a perceptron, each behind a LayerNorm and beside the way straight through.

    Args:
        width: features of a token.
        heads: of the attention; divides ``width``.
        causal: whether a token sees only those before it.

    Reference:
        A. Vaswani et al., arXiv 1706.03762 (2017); the order of norms is that of R. Xiong et al., arXiv 2002.04745.
    """

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.before_attention, self.before_perceptron = nn.LayerNorm(width), nn.LayerNorm(width)
        self.looks, self.joined = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.perceptron = nn.Sequential(
            nn.Linear(width, _WIDER * width), nn.GELU(), nn.Linear(_WIDER * width, width)
        )  # fmt: skip

    def forward(self, tokens: Tensor) -> Tensor:
        """Return tokens of the same shape ``(batch, tokens, width)``."""
        apart = self.looks(self.before_attention(tokens)).unflatten(-1, (3, self.heads, -1))
        query, key, value = apart.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        tokens = tokens + self.joined(seen.transpose(1, 2).flatten(-2))
        after: Tensor = tokens + self.perceptron(self.before_perceptron(tokens))
        return after


class DigitsTransformer(nn.Module):
    """A transformer over the rows of an image: one token for each row of pixels.

    Args:
        rows: tokens of an image.
        pixels: of a row.
        width: features of a token.
        heads: of each attention.
        layers: blocks.
        classes: logits of an image.

    Example:
        >>> DigitsTransformer()(torch.zeros(5, 64)).shape
        torch.Size([5, 10])
    """

    def __init__(
        self, rows: int = 8, pixels: int = 8, width: int = 32, heads: int = 4, layers: int = 2, classes: int = 10
    ) -> None:
        super().__init__()
        self.rows = rows
        self.embedding = nn.Linear(pixels, width)
        self.places = nn.Parameter(torch.randn(rows, width) / width**0.5)
        self.blocks = nn.Sequential(*(Block(width, heads, causal=False) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(batch, classes)`` of images ``(batch, rows * pixels)``."""
        tokens = self.embedding(images.unflatten(-1, (self.rows, -1))) + self.places
        logits: Tensor = self.head(self.norm(self.blocks(tokens)).mean(1))
        return logits


class CharGPT(nn.Module):
    """A transformer that gives, for every character of a text, logits of the next one.

    Args:
        characters: of the alphabet.
        context: the longest piece of text.
        width: features of a token.
        heads: of each attention.
        layers: blocks.

    Example:
        >>> CharGPT(96)(torch.zeros(2, 64, dtype=torch.int64)).shape
        torch.Size([2, 64, 96])
    """

    def __init__(self, characters: int, context: int = 64, width: int = 48, heads: int = 4, layers: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, width)
        self.places = nn.Parameter(torch.randn(context, width) / width**0.5)
        self.blocks = nn.Sequential(*(Block(width, heads, causal=True) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, characters)

    def forward(self, text: Tensor, gain: float = 1.0) -> Tensor:
        """Return logits ``(batch, length, characters)`` of pieces ``(batch, length)``.

        Args:
            text: classes of characters, int64.
            gain: factor of the embeddings; what a larger input is for a model whose inputs are no numbers.
        """
        tokens = gain * self.embedding(text) + self.places[: text.shape[-1]]
        logits: Tensor = self.head(self.norm(self.blocks(tokens)))
        return logits
