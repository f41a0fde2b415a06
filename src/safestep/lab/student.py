"""A student: a small dense network that knows its start, and returns to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init


class Student(nn.Sequential):
    """Dense layers that can be put back to their start; without hidden layers they are one matrix.

    Args:
        inputs: components of a sample, at least 1.
        outputs: components of an answer, at least 1.
        hidden: units of each hidden layer.
        activation: makes the module after each hidden layer; any without parameters.
        bias: whether dense layers have one; it starts at 0.
        seed: of the Glorot-uniform start, 0 or more. No global generator is drawn from.
        dtype: of the parameters.

    Raises:
        ValueError: for a size below 1.

    Example:
        >>> Student(hidden=[3], activation=torch.nn.Tanh, bias=True)
        Student(
          (0): Linear(in_features=4, out_features=3, bias=True)
          (1): Tanh()
          (2): Linear(in_features=3, out_features=2, bias=True)
        )

    Source:
        X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010, eq. 16.
    """

    def __init__(
        self,
        inputs: int = 4,
        outputs: int = 2,
        *,
        hidden: Sequence[int] = (),
        activation: Callable[[], nn.Module] = nn.ReLU,
        bias: bool = False,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        sizes = [inputs, *hidden, outputs]
        if min(sizes) < 1:
            raise ValueError(f"sizes {sizes}: expected inputs, hidden layers and outputs of at least 1 each")
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(sizes):
            # nn.Linear itself would draw a start from the global generator
            layers += [skip_init(nn.Linear, fan_in, fan_out, bias=bias, dtype=dtype), activation()]
        super().__init__(*layers[:-1])
        self.seed = seed
        self.reset()

    @torch.no_grad()
    def reset(self) -> Student:
        """Return to the start: the same weights bit for bit, and no gradients."""
        generator = torch.Generator().manual_seed(self.seed)
        for module in self:
            if isinstance(module, nn.Linear):
                # drawn on the CPU in float64, so that the start is the same on every device and in every dtype
                start = torch.empty(module.weight.shape, dtype=torch.float64)
                module.weight.copy_(nn.init.xavier_uniform_(start, generator=generator))
                if module.bias is not None:
                    module.bias.zero_()
        self.zero_grad(set_to_none=True)
        return self.train()

    @property
    def matrices(self) -> list[Tensor]:
        """The weight matrices from input to output, if nothing else is between them; else none."""
        layers = [module for module in self if not isinstance(module, nn.Identity)]
        matrices = [module.weight for module in layers if isinstance(module, nn.Linear)]
        return matrices if len(matrices) == len(layers) else []
