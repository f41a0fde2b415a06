"""What may go wrong in a training run for a while: the learning rate, the labels, the inputs, the batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Disturbance:
    """A stretch of steps in which something is wrong, after and before steps in which nothing is.

    It begins after a quarter of the run, when training has found its pace and a guard its estimates.

    Attributes:
        words: what it is, as a label says it; empty for none.
        steps: how many it lasts.
        rate_factor: the learning rate is multiplied by it.
        input_factor: the inputs are multiplied by it.
        shuffled: whether the labels of a batch are dealt out anew.
        batch_size: samples in a batch of the whole run, where it is not the usual.
    """

    words: str = ""
    steps: int = 0
    rate_factor: float = 1.0
    input_factor: float = 1.0
    shuffled: bool = False
    batch_size: int | None = None

    def at(self, step: int, of: int) -> Disturbance:
        """Return what is wrong at a step, counted from 0, of a run of so many: this, or nothing.

        Example:
            >>> spike = Disturbance(words="spike", steps=2, rate_factor=10.0)
            >>> [spike.at(step, of=8).rate_factor for step in range(6)]
            [1.0, 1.0, 10.0, 10.0, 1.0, 1.0]
        """
        start = of // 4
        return self if start <= step < start + self.steps else Disturbance()

    def labels(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return the labels of a batch as training gets them; the generator is drawn from only where they are dealt."""
        if not self.shuffled:
            return labels
        return labels.flatten()[torch.randperm(labels.numel(), generator=generator)].view_as(labels)


_LONG = 50
"""Steps of a long disturbance: a guard that remembers the last steps knows nothing else by its end."""

DISTURBANCES: dict[str, Disturbance] = {
    "none": Disturbance(),
    **{
        f"rate-x{factor}-{steps}": Disturbance(
            words=f"rate ×{factor} for {steps} step{'s' if steps > 1 else ''}", steps=steps, rate_factor=float(factor)
        )
        for factor in (10, 100, 10_000)
        for steps in (1, _LONG)
    },
    "shuffled-labels": Disturbance(words=f"shuffled labels for {_LONG} steps", steps=_LONG, shuffled=True),
    "inputs-x100": Disturbance(words=f"inputs ×100 for {_LONG} steps", steps=_LONG, input_factor=100.0),
    "batch-8": Disturbance(words="batches of 8", batch_size=8),
}
"""Every disturbance by its name in settings."""
