"""What is learned in limits, how it is judged, by which optimizers, and at which rate somebody would begin to tune."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from safestep.experiments.runner.settings import SettingError
from safestep.lab.tasks import Task, digits_cnn, digits_mlp, digits_transformer, text_gpt, text_lstm

Judged = Literal["loss", "accuracy"]


@dataclass(frozen=True)
class Subject:
    """A task of the study.

    Attributes:
        task: from the seed to the task.
        judged: what the end of a run is compared by: held-out loss in nats, or the share of right answers.
        rates: the rate that is 1 in settings and figures, by optimizer.
        tuned: whether targets are chosen on it.
    """

    task: Callable[[int], Task]
    judged: Judged
    rates: Mapping[str, float]
    tuned: bool = False


def _muon(model: nn.Module, lr: float) -> list[Optimizer]:
    """Return Muon for the matrices between layers, and AdamW for all else; of one rate, which suits both."""
    if not hasattr(torch.optim, "Muon"):
        raise SettingError(f"optimizers: torch {torch.__version__} has no Muon; expected torch 2.9 or later, or others")
    linear = [module.weight for module in model.modules() if isinstance(module, nn.Linear)]
    recurrent = [p for module in model.modules() if isinstance(module, nn.LSTM) for p in module.parameters()]
    matrices: list[Tensor] = [p for p in (*linear[:-1], *recurrent) if p.ndim == 2]  # the last makes the logits
    taken = set(map(id, matrices))
    muon = torch.optim.Muon(matrices, lr=lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    return [muon, AdamW([p for p in model.parameters() if id(p) not in taken], lr=lr)]


def _one(optimizer: Callable[..., Optimizer], model: nn.Module, lr: float) -> list[Optimizer]:
    return [optimizer(model.parameters(), lr=lr)]


OPTIMIZERS: Mapping[str, Callable[[nn.Module, float], list[Optimizer]]] = {
    "sgd": partial(_one, SGD),
    "momentum": partial(_one, partial(SGD, momentum=0.9)),
    "adamw": partial(_one, AdamW),
    "muon": _muon,
}
"""Every optimizer by its name in settings: from model and rate to the optimizers that one guard looks after."""


def _rates(*rates: float) -> Mapping[str, float]:
    return dict(zip(OPTIMIZERS, rates, strict=True))


# About the best of four or five plain rates, half a decade apart, on seed 0 alone: the best of a run should be within
# what settings try around 1, whichever it is.
SUBJECTS: Mapping[str, Subject] = {
    "text-gpt": Subject(text_gpt, "loss", _rates(1.0, 0.3, 0.03, 0.03), tuned=True),
    "digits-mlp": Subject(digits_mlp, "accuracy", _rates(1.0, 0.1, 0.01, 0.01), tuned=True),
    "digits-cnn": Subject(digits_cnn, "accuracy", _rates(0.3, 0.03, 0.01, 0.003)),
    "digits-vit": Subject(digits_transformer, "accuracy", _rates(0.3, 0.03, 0.003, 0.003)),
    "text-lstm": Subject(text_lstm, "loss", _rates(10.0, 1.0, 0.03, 0.03)),
}
"""Every task by its name in settings."""
