"""The rivals by name: how each is started, without a learning rate, and which schedule its authors recommend."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import nn

from safestep._torch.extras import need
from safestep.lab.rivals.polyak_averaging import ScheduleFreePlus, ScheduleFreePolyak
from safestep.lab.rivals.stepper import Averaged, Stepper


@dataclass(frozen=True)
class Rival:
    """A way of others to train without choosing a learning rate.

    Attributes:
        name: what it is called.
        about: what it does, and with which settings, in a line.
        source: its arXiv id.
        start: returns a stepper for a model and the number of steps of the run.
        schedule: what its authors recommend; to be multiplied to the ``lr`` of the stepper's optimizers.
    """

    name: str
    about: str
    source: str
    start: Callable[[nn.Module, int], Stepper]
    schedule: Literal["constant", "cosine"] = "constant"


def _packaged(package: str, optimizer: str, **settings: bool) -> Callable[[nn.Module, int], Stepper]:
    def start(model: nn.Module, steps: int) -> Stepper:
        return Stepper(getattr(need(package, "peers"), optimizer)(model.parameters(), **settings))

    return start


def _schedule_free(model: nn.Module, steps: int) -> Stepper:
    adamw = need("schedulefree", "peers").AdamWScheduleFree
    return Averaged(adamw(model.parameters(), warmup_steps=steps // 10))


def _schedule_free_plus(model: nn.Module, steps: int) -> Stepper:
    return Averaged(ScheduleFreePlus(model.parameters(), warm_up=steps // 10))


def _schedule_free_polyak(model: nn.Module, steps: int) -> Stepper:
    return Averaged(ScheduleFreePolyak(model.parameters()))


_PRODIGY, _D_ADAPTATION = ("prodigyopt", "Prodigy"), ("dadaptation", "DAdaptAdam")
RIVALS: Mapping[str, Rival] = {
    rival.name: rival
    for rival in (
        Rival(
            "prodigy",
            "Adam, its rate estimated from the distance covered; all defaults",
            "2306.06101",
            _packaged(*_PRODIGY),
            "cosine",
        ),
        Rival(
            "prodigy-corrected",
            "Prodigy with its option of Adam's bias correction",
            "2306.06101",
            _packaged(*_PRODIGY, use_bias_correction=True),
            "cosine",
        ),
        Rival(
            "d-adaptation",
            "Adam, its rate estimated from below; all defaults",
            "2301.07733",
            _packaged(*_D_ADAPTATION),
            "cosine",
        ),
        Rival(
            "d-adaptation-corrected",
            "D-Adaptation with its option of Adam's bias correction",
            "2301.07733",
            _packaged(*_D_ADAPTATION, use_bias_correction=True),
            "cosine",
        ),
        Rival(
            "momo-adam",
            "Adam at Polyak's rate for a model with momentum, at most 0.01, its default",
            "2305.07583",
            _packaged("momo", "MomoAdam"),
        ),
        Rival(
            "schedule-free",
            "AdamW with averaged weights at its default rate, a tenth of the run warm-up",
            "2405.15682",
            _schedule_free,
        ),
        Rival(
            "schedule-free+",
            "Schedule-Free AdamW with momentum at Polyak's rate, a tenth of the run warm-up",
            "2605.19095",
            _schedule_free_plus,
        ),
        Rival("schedule-free-polyak", "Schedule-Free Adam at Polyak's rate", "2511.07767", _schedule_free_polyak),
    )
}
"""Rivals by name.

Prodigy and D-Adaptation leave Adam's bias correction off. On the digits MLP D-Adaptation then never learns and Prodigy
fails on some seeds; with it both learn. So both ways are here.
"""
