"""What is learned while the inputs drift, by which optimizer and law, and at which two rates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Adam, Optimizer

from safestep.lab.affine_teacher import AffineTeacher
from safestep.lab.digits import CLASSES, load_split
from safestep.lab.drift import half_mse
from safestep.lab.models import mlp
from safestep.policy import Cap, Policy, Throttle, Watch
from safestep.radius import CurvatureRadius, Radius, SecantCurvature, SoftmaxRadius, Tightest
from safestep.radius.losses import LossName


@dataclass(frozen=True)
class Lesson:
    """A student in its first state, what it learns from before any drift, and the loss of a batch, also by name."""

    model: nn.Module
    inputs: Tensor
    labels: Tensor
    loss: Callable[[Tensor, Tensor], Tensor]
    name: LossName


def _linear(seed: int) -> Lesson:
    teacher = AffineTeacher(seed=seed)
    return Lesson(teacher.student(seed=seed), *teacher.data(), half_mse, "half_mse")


def _two_layer(seed: int) -> Lesson:
    teacher = AffineTeacher(seed=seed)
    student = teacher.student([32], activation=nn.Tanh, bias=True, seed=seed)
    return Lesson(student, *teacher.data(), half_mse, "half_mse")


def _classifier(seed: int) -> Lesson:
    split = load_split(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = mlp(width=32, classes=CLASSES)
    return Lesson(model, split.train_x, split.train_y, cross_entropy, "cross_entropy")


STUDENTS: Mapping[str, Callable[[int], Lesson]] = {
    "linear": _linear,
    "two-layer": _two_layer,
    "classifier": _classifier,
}
"""Every student by its name in settings: a function of the seed, which draws student and data."""
OPTIMIZERS: Mapping[str, Callable[..., Optimizer]] = {"sgd": SGD, "momentum": partial(SGD, momentum=0.9), "adam": Adam}
"""Every optimizer by its name in settings."""
BATCHES: Mapping[str, int | None] = {"full": None, "32": 32}
"""Every batch size by its name in settings; None is all samples."""
LAWS: Mapping[str, Callable[[float, LossName], tuple[Policy, Radius]]] = {
    "none": lambda chi, loss: (Watch(Throttle(chi=chi)), CurvatureRadius(loss)),
    "curvature": lambda chi, loss: (Throttle(chi=chi), CurvatureRadius(loss)),
    "secant": lambda chi, loss: (Throttle(chi=chi), SecantCurvature()),
    "both": lambda chi, loss: (Cap(1.0), Tightest({CurvatureRadius(loss): chi / 2, SoftmaxRadius(): 1.0})),
}
"""Every law by its name in settings; "both" is for the classifier, which has a softmax radius."""
RATES = ("quiet", "harsh")

_RATES: Mapping[tuple[str, str, str], tuple[float, float]] = {
    ("linear", "sgd", "full"): (0.05, 0.2),
    ("linear", "sgd", "32"): (0.05, 0.2),
    ("linear", "momentum", "full"): (0.05, 0.5),
    ("linear", "momentum", "32"): (0.02, 0.2),
    ("linear", "adam", "full"): (0.2, 2.0),
    ("linear", "adam", "32"): (0.1, 2.0),
    ("two-layer", "sgd", "full"): (0.02, 0.2),
    ("two-layer", "sgd", "32"): (0.02, 0.2),
    ("two-layer", "momentum", "full"): (0.05, 0.3),
    ("two-layer", "momentum", "32"): (0.05, 0.3),
    ("two-layer", "adam", "full"): (0.05, 0.5),
    ("two-layer", "adam", "32"): (0.02, 0.5),
    ("classifier", "sgd", "full"): (0.05, 0.5),
    ("classifier", "sgd", "32"): (0.05, 0.5),
    ("classifier", "momentum", "full"): (0.02, 0.5),
    ("classifier", "momentum", "32"): (0.02, 0.1),
    ("classifier", "adam", "full"): (0.002, 0.5),
    ("classifier", "adam", "32"): (0.001, 0.2),
}


def rate_of(student: str, optimizer: str, batch: str, rate: str) -> float:
    """Return a learning rate, chosen for a gain of 4 on runs without a guard, of seeds that nothing else uses.

    On the grid 1, 2, 5, 10 ..., over three seeds: "harsh" is the smallest rate at which every run diverges after the
    drift. "quiet" is one place below the largest rate at which none diverges and the loss never rises above 1.05 of
    what it was when the drift came, so that nothing needs a guard.

    Some harsh rates are not of this rule. The two-layer student with momentum diverges in some runs at 0.2 and before
    the drift at 0.5: it has 0.3. No rate up to 5 (linear) or 2 (two-layer) makes all runs of Adam on a regression
    diverge: it scales its steps anew. Its 2 and 0.5 are rates at which the loss climbs severalfold and comes down late.
    """
    return _RATES[student, optimizer, batch][RATES.index(rate)]
