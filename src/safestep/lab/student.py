"""A student: a small dense network that knows its start, and returns to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

Activation = Literal["relu", "tanh", "gelu", "silu", "sigmoid", "identity"]

_ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
}


class Student(nn.Sequential):
    """Dense layers, with a summary, that can be put back to their start. Made by `student`.

    Attributes:
        seed: of the start.
    """

    def __init__(self, layers: Sequence[nn.Module], seed: int) -> None:
        super().__init__(*layers)
        self.seed = seed
        self.reset()

    @torch.no_grad()
    def reset(self) -> Student:
        """Return to the start: the same weights bit for bit, no gradients, fresh statistics of batch norms."""
        generator = torch.Generator().manual_seed(self.seed)
        for module in self:
            if isinstance(module, nn.Linear):
                # drawn on the CPU in float64, so that the start is the same on every device and in every dtype
                start = torch.empty(module.weight.shape, dtype=torch.float64)
                module.weight.copy_(nn.init.xavier_uniform_(start, generator=generator))
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, nn.BatchNorm1d):
                module.reset_parameters()
        self.zero_grad(set_to_none=True)
        return self.train()

    @property
    def matrices(self) -> list[Tensor]:
        """The weight matrices from input to output, if no other kind of layer is between them; else none."""
        layers = [module for module in self if not isinstance(module, nn.Identity)]
        matrices = [module.weight for module in layers if isinstance(module, nn.Linear)]
        return matrices if len(matrices) == len(layers) else []

    def summary(self) -> str:
        """Return one line per layer, and how many parameters there are."""
        head = f"Student of {sum(p.numel() for p in self.parameters())} parameters, Glorot-uniform start of seed"
        return "\n".join([f"{head} {self.seed}", *(f"  {line}" for line in self._lines())])

    def _lines(self) -> Iterator[str]:
        for module in self:
            count = sum(p.numel() for p in module.parameters())
            if isinstance(module, nn.Linear):
                bias = "" if module.bias is not None else ", no bias"
                yield f"{'dense':<12} {module.in_features} -> {module.out_features}{bias}, {count} parameters"
            elif isinstance(module, nn.BatchNorm1d):
                yield f"{'batch norm':<12} {module.num_features}, {count} parameters"
            else:
                yield type(module).__name__.lower()

    def __str__(self) -> str:
        """Return the summary."""
        return self.summary()


def student(
    inputs: int = 4,
    outputs: int = 2,
    *,
    hidden: Sequence[int] = (),
    activation: Activation = "relu",
    batch_norm: bool = False,
    bias: bool = False,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Student:
    """Return a dense student; without hidden layers it is one matrix.

    Args:
        inputs: components of a sample, at least 1.
        outputs: components of an answer, at least 1.
        hidden: units of each hidden layer.
        activation: after each hidden layer.
        batch_norm: whether one stands between a hidden layer and its activation.
        bias: whether dense layers have one; it starts at 0.
        seed: of the Glorot-uniform start, 0 or more. No global generator is drawn from.
        dtype: of the parameters.

    Returns:
        A model from ``(batch, inputs)`` to ``(batch, outputs)``.

    Raises:
        ValueError: for a size below 1 or an unknown activation.

    Example:
        >>> print(student(hidden=[3], activation="tanh", bias=True))
        Student of 23 parameters, Glorot-uniform start of seed 0
          dense        4 -> 3, 15 parameters
          tanh
          dense        3 -> 2, 8 parameters

    Source:
        X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010, eq. 16.
    """
    sizes = [inputs, *hidden, outputs]
    if min(sizes) < 1:
        raise ValueError(f"sizes {sizes}: expected inputs, hidden layers and outputs of at least 1 each")
    if activation not in _ACTIVATIONS:
        raise ValueError(f"activation = {activation!r}: expected one of {', '.join(_ACTIVATIONS)}")
    layers: list[nn.Module] = []
    *inner, last = pairwise(sizes)
    for fan_in, fan_out in inner:
        layers.append(_dense(fan_in, fan_out, bias, dtype))
        layers += [nn.BatchNorm1d(fan_out, dtype=dtype)] if batch_norm else []
        layers.append(_ACTIVATIONS[activation]())
    return Student([*layers, _dense(*last, bias, dtype)], seed)


def _dense(inputs: int, outputs: int, bias: bool, dtype: torch.dtype) -> nn.Linear:
    # nn.Linear itself would draw a start from the global generator
    layer: nn.Linear = skip_init(nn.Linear, inputs, outputs, bias=bias, dtype=dtype)
    return layer
