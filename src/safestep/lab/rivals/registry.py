"""The rivals by name: how each is started, without a learning rate, and which schedule its authors recommend."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import nn
from torch.optim import Adam

from safestep._torch.extras import need
from safestep.lab.rivals.edge import OnEdge
from safestep.lab.rivals.line_search import LineSearch
from safestep.lab.rivals.mechanic import Mechanic
from safestep.lab.rivals.polyak_averaging import ScheduleFreePlus, ScheduleFreePolyak
from safestep.lab.rivals.stepper import AveragedStepper, Stepper

Start = Callable[[nn.Module, int, int], Stepper]
"""From a model, the number of steps of the run, and the number of batches in an epoch."""


@dataclass(frozen=True)
class Rival:
    """A way of others to train without choosing a learning rate.

    Attributes:
        name: what it is called.
        about: what it does, and with which settings, in a line.
        source: its arXiv id.
        start: returns a stepper for a model, the number of steps of the run, and that of batches in an epoch.
        schedule: what its authors recommend; to be multiplied to the ``lr`` of the stepper's optimizers.
    """

    name: str
    about: str
    source: str
    start: Start
    schedule: Literal["constant", "cosine"] = "constant"


def _packaged(package: str, optimizer: str, *, tells: bool = False, **settings: bool) -> Start:
    def start(model: nn.Module, steps: int, epoch: int) -> Stepper:
        return Stepper(getattr(need(package, "peers"), optimizer)(model.parameters(), **settings), tells=tells)

    return start


def _schedule_free(model: nn.Module, steps: int, epoch: int) -> Stepper:
    adamw = need("schedulefree", "peers").AdamWScheduleFree
    return AveragedStepper(adamw(model.parameters(), warmup_steps=steps // 10))


def _schedule_free_plus(model: nn.Module, steps: int, epoch: int) -> Stepper:
    return AveragedStepper(ScheduleFreePlus(model.parameters(), warm_up=steps // 10), tells=True)


def _schedule_free_polyak(model: nn.Module, steps: int, epoch: int) -> Stepper:
    return AveragedStepper(ScheduleFreePolyak(model.parameters()), tells=True)


def _mechanic(model: nn.Module, steps: int, epoch: int) -> Stepper:
    return Mechanic(Adam(model.parameters(), lr=1.0))


def _line_search(model: nn.Module, steps: int, epoch: int) -> Stepper:
    return LineSearch(model.parameters())


def _line_search_by_epoch(model: nn.Module, steps: int, epoch: int) -> Stepper:
    return LineSearch(model.parameters(), batches=epoch)


def _on_edge(model: nn.Module, steps: int, epoch: int) -> Stepper:
    return OnEdge(Adam(model.parameters(), lr=1.0))


def _greedy(model: nn.Module, steps: int, epoch: int) -> Stepper:
    return OnEdge(Adam(model.parameters(), lr=1.0), sigma=1.0)


_prodigy = _packaged("prodigyopt", "Prodigy")
_prodigy_corrected = _packaged("prodigyopt", "Prodigy", use_bias_correction=True)
_d_adaptation = _packaged("dadaptation", "DAdaptAdam")
_d_adaptation_corrected = _packaged("dadaptation", "DAdaptAdam", use_bias_correction=True)
_momo_adam = _packaged("momo", "MomoAdam", tells=True)
_ROWS = (
    Rival("prodigy", "Adam at a rate estimated from the way so far", "2306.06101", _prodigy, "cosine"),
    Rival("prodigy-corrected", "with Adam's bias correction", "2306.06101", _prodigy_corrected, "cosine"),
    Rival("d-adaptation", "Adam at a rate estimated from below", "2301.07733", _d_adaptation, "cosine"),
    Rival("d-adaptation-corrected", "with Adam's bias correction", "2301.07733", _d_adaptation_corrected, "cosine"),
    Rival("mechanic", "Adam, its scale tuned by what earlier ones won", "2306.00144", _mechanic, "cosine"),
    Rival("momo-adam", "Adam at Polyak's rate with momentum, at most 0.01", "2305.07583", _momo_adam),
    Rival("schedule-free", "averaged AdamW at 0.0025, a tenth warm-up", "2405.15682", _schedule_free),
    Rival("schedule-free+", "averaged AdamW at Polyak's rate, a tenth warm-up", "2605.19095", _schedule_free_plus),
    Rival("schedule-free-polyak", "averaged Adam at Polyak's rate", "2511.07767", _schedule_free_polyak),
    Rival("sls", "gradient descent, a line search on each batch", "1905.09997", _line_search),
    Rival("sls-epoch", "told how many batches are in an epoch", "1905.09997", _line_search_by_epoch),
    Rival("cdat", "Adam on the edge of stability along its step", "2407.06183", _on_edge),
    Rival("cdat-greedy", "half as far: to the least loss along its step", "2407.06183", _greedy),
)
RIVALS: Mapping[str, Rival] = {rival.name: rival for rival in _ROWS}
"""Rivals by name.

Prodigy and D-Adaptation leave Adam's bias correction off. On the digits MLP D-Adaptation then never learns and Prodigy
fails on some seeds; with it both learn. CDAT's paper finds smaller σ better for smaller batches. The line search's
authors start it by its defaults, and "for better line search" tell it the number of batches in an epoch: its rate can
double in an epoch, by default of 500 batches. So both ways of each are here.
"""
