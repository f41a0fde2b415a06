"""Small models for experiments: a perceptron, a convolution and a transformer for digits, two that continue text."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def mlp(inputs: int = 64, width: int = 128, classes: int = 10) -> nn.Sequential:
    """Return a perceptron with two hidden layers and exact GELU, in the default initialisation of ``nn.Linear``.

    Args:
        inputs: features of a sample.
        width: units of each hidden layer.
        classes: logits of a sample.

    Returns:
        A model from ``(batch, inputs)`` to logits ``(batch, classes)``.

    Example:
        >>> sum(parameter.numel() for parameter in mlp().parameters())
        26122

    Note:
        Exact GELU is an entire function: it has no singularity of its own to limit a step, other than tanh, SiLU,
        the tanh-approximated GELU or ReLU.
    """
    return nn.Sequential(
        nn.Linear(inputs, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, classes)
    )


def cnn(width: int = 16, classes: int = 10) -> nn.Sequential:
    """Return two convolutions with BatchNorm and a perceptron behind them, for flattened 8 x 8 images.

    Example:
        >>> cnn()(torch.zeros(5, 64)).shape
        torch.Size([5, 10])
    """
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * width, 64), nn.ReLU(), nn.Linear(64, classes),
    )  # fmt: skip


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
        self.query_key_value, self.joined = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.perceptron = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return tokens of the same shape ``(batch, tokens, width)``."""
        parts = self.query_key_value(self.before_attention(tokens)).unflatten(-1, (3, self.heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        tokens = tokens + self.joined(attended.transpose(1, 2).flatten(-2))
        after: Tensor = tokens + self.perceptron(self.before_perceptron(tokens))
        return after


class DigitsTransformer(nn.Module):
    """A transformer over the rows of an 8 x 8 image, flattened: one token for each row of pixels.

    Example:
        >>> DigitsTransformer()(torch.zeros(5, 64)).shape
        torch.Size([5, 10])
    """

    def __init__(self, width: int = 32, heads: int = 4, layers: int = 2, classes: int = 10) -> None:
        super().__init__()
        self.embedding = nn.Linear(8, width)
        self.places = nn.Parameter(torch.randn(8, width) / width**0.5)
        self.blocks = nn.Sequential(*(Block(width, heads, causal=False) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(batch, classes)`` of images ``(batch, 64)``."""
        tokens = self.embedding(images.unflatten(-1, (8, 8))) + self.places
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
        """Return logits ``(batch, length, characters)`` of pieces ``(batch, length)``, int64.

        The embeddings are multiplied by ``gain``: what a larger input is for a model whose inputs are no numbers.
        """
        tokens = gain * self.embedding(text) + self.places[: text.shape[-1]]
        logits: Tensor = self.head(self.norm(self.blocks(tokens)))
        return logits


class CharLSTM(nn.Module):
    """A recurrent network that gives, for every character of a text, logits of the next one.

    Example:
        >>> CharLSTM(96)(torch.zeros(2, 64, dtype=torch.int64)).shape
        torch.Size([2, 64, 96])
    """

    def __init__(self, characters: int, width: int = 96) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, width)
        self.memory, self.head = nn.LSTM(width, width, batch_first=True), nn.Linear(width, characters)

    def forward(self, text: Tensor, gain: float = 1.0) -> Tensor:
        """Return logits ``(batch, length, characters)`` of pieces ``(batch, length)``, as `CharGPT` does."""
        logits: Tensor = self.head(self.memory(gain * self.embedding(text))[0])
        return logits
