"""What is learned in the comparisons, by which optimizers, and at which rate somebody would begin to tune."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn
from torch.optim import AdamW, Optimizer

from safestep._torch.extras import need
from safestep.averaging import Averaged
from safestep.experiments.limits.limits_tasks import OPTIMIZERS as OF_LIMITS
from safestep.experiments.limits.limits_tasks import SUBJECTS as SMALL
from safestep.experiments.limits.limits_tasks import Subject
from safestep.lab.tasks import library_gpt

_LION = 0.1
"""Lion's first rate in units of AdamW's: its authors say a third to a tenth (X. Chen et al., arXiv 2302.06675)."""


def _lion(model: nn.Module, lr: float) -> list[Optimizer]:
    return [need("pytorch_optimizer", "peers").Lion(model.parameters(), lr=lr, weight_decay=0.1)]


def _averaged(model: nn.Module, lr: float) -> list[Optimizer]:
    return [Averaged(AdamW(model.parameters(), lr=lr, betas=(0.0, 0.999)))]


OPTIMIZERS: Mapping[str, Callable[[nn.Module, float], list[Optimizer]]] = {
    **OF_LIMITS,
    "lion": _lion,
    "averaged-adamw": _averaged,
}
"""Every optimizer by its name in settings: from model and rate to the optimizers that one guard looks after."""

SUBJECTS: Mapping[str, Subject] = {
    **SMALL,
    "text-gpt-5m": Subject(library_gpt, "loss", {"sgd": 1.0, "momentum": 0.1, "adamw": 0.001, "muon": 0.001}),
}
"""Every task by its name in settings. The last, of 4.8 million parameters, has to be asked for; of its rates only that
of AdamW was tried, the better of 0.001 and 0.003 on seed 0."""


def first_rate(task: str, optimizer: str) -> float:
    """Return the rate that is 1 in settings and figures.

    Example:
        >>> first_rate("text-gpt", "adamw"), round(first_rate("text-gpt", "lion"), 4)
        (0.03, 0.003)
    """
    rates = SUBJECTS[task].rates
    adamw = rates["adamw"]
    return {**rates, "lion": adamw * _LION, "averaged-adamw": adamw}[optimizer]


__all__ = ["OPTIMIZERS", "SMALL", "SUBJECTS", "first_rate"]
