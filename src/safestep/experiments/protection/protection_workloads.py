"""What protection is shown on: tasks, each with an optimizer and its learning rates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch.optim import SGD, Adam, AdamW, Optimizer

from safestep.lab.tasks import Task, digits_mlp, digits_transformer, text_gpt


@dataclass(frozen=True)
class Workload:
    """A task and who learns it.

    Attributes:
        words: as a label says it.
        task: from the seed to the task.
        optimizer: from parameters and ``lr`` to the optimizer.
        rates: learning rates of the undisturbed runs, rising: careful, too bold, hopeless.
        disturbed_rate: the one that disturbances meet.
        judged: what the end of a run is compared by.
    """

    words: str
    task: Callable[[int], Task]
    optimizer: Callable[..., Optimizer]
    rates: tuple[float, ...]
    disturbed_rate: float
    judged: Literal["accuracy", "loss"] = "accuracy"


# The disturbed rates are three cases: capped at nearly every step (SGD), at some (momentum), at none (the others).
WORKLOADS: dict[str, Workload] = {
    "digits-sgd": Workload("digits SGD", digits_mlp, SGD, (0.05, 0.5, 5.0), 0.5),
    "digits-momentum": Workload("digits momentum", digits_mlp, partial(SGD, momentum=0.9), (0.05, 0.5, 2.0), 0.05),
    "digits-adam": Workload("digits Adam", digits_mlp, Adam, (0.001, 0.5, 2.0), 0.001),
    "transformer": Workload("transformer Adam", digits_transformer, Adam, (0.001, 0.01, 0.5), 0.001),
    "text": Workload("text AdamW", text_gpt, AdamW, (0.001, 0.01, 0.1), 0.001, "loss"),
}
"""Every workload by its name in settings."""
