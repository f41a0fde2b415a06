"""Small models for experiments."""

from __future__ import annotations

from torch import nn


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
