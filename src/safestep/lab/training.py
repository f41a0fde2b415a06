"""A training loop that keeps one record per epoch, and goes on to the end when training diverges."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer

from safestep.errors import PoisonedOptimizerError
from safestep.guard.guard import Guard
from safestep.lab.digits import Loader
from safestep.recording.nonfinite import all_finite
from safestep.records.reading import Status
from safestep.records.report import StepReport

_HOPELESS = 10.0
"""A batch loss above this many times ln(classes), the loss of a model that knows nothing, is called diverged."""


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of training, as it was and not as it should be: numbers may be nan or inf.

    Attributes:
        epoch: from 1.
        train_loss: mean cross-entropy over the samples of the epoch, each at its own step, in nats.
        test_acc: share of the test samples classified rightly after the epoch, in [0, 1].
        mean_r: mean of the step ratio r *taken* over the steps of the epoch.
        max_r: the largest r taken in the epoch.
        mean_lr: mean effective learning rate, the scale times the rate of the first parameter group.
        mean_radius: mean radius rho along the proposed steps, in units of the parameters.
        cap_fraction: share of the steps that the policy changed: for `Cap` those longer than ``target * rho``, for
            `Pin` all, for `Watch` none.
        diverged: whether the run has diverged by the end of this epoch: a loss, parameter or r that is not finite,
            or a batch loss above ``10 ln(classes)``.
    """

    epoch: int
    train_loss: float
    test_acc: float
    mean_r: float
    max_r: float
    mean_lr: float
    mean_radius: float
    cap_fraction: float
    diverged: bool


def train(
    model: nn.Module,
    optimizer: Optimizer,
    guard: Guard,
    train_loader: Loader,
    test_loader: Loader,
    epochs: int,
    classes: int = 10,
) -> Iterator[EpochRecord]:
    """Train a classifier with cross-entropy; each epoch is one pass of both loaders, training before test.

    Args:
        model: from a batch of inputs to logits; batches are moved to the device of its first parameter.
        optimizer: steps the model.
        guard: attached to both; its reports are the source of every column about r.
        train_loader: batches to train on.
        test_loader: batches to count right answers on.
        epochs: how many.
        classes: number of classes, which sets the loss that counts as diverged.

    Yields:
        A record after each epoch. A run that diverges is trained to the end and flagged.
    """
    device, diverged = next(model.parameters()).device, False
    limit = _HOPELESS * math.log(classes)
    for epoch in range(1, epochs + 1):
        model.train()
        # lists of its own: the guard's history is bounded
        losses: list[float] = []
        sizes: list[int] = []
        reports: list[StepReport] = []
        for inputs, labels in train_loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs.to(device)), labels.to(device))
            loss.backward()
            before = guard.last
            with suppress(PoisonedOptimizerError):  # where a user should stop, the record of a still run goes on
                optimizer.step()
            report = guard.last
            losses.append(loss.item())
            sizes.append(len(labels))
            if report is not None and report is not before and report.status is not Status.STILL:
                reports.append(report)
        accuracy = _accuracy(model, test_loader, device)
        diverged = (
            diverged
            or not all(loss <= limit for loss in losses)  # nan compares false
            or not all(math.isfinite(report.known_ratio) for report in reports)
            or not all_finite(model.parameters())
        )
        # a step that moved nothing has no report: r = 0, not shortened, and no direction to have a radius along
        ratios = [0.0] * (len(losses) - len(reports)) + [_applied_ratio(report) for report in reports]
        yield EpochRecord(
            epoch=epoch,
            train_loss=sum(map(operator.mul, losses, sizes)) / sum(sizes),
            test_acc=accuracy,
            mean_r=_mean(ratios),
            max_r=largest(ratios),
            mean_lr=_mean([report.effective_lr for report in reports]),
            mean_radius=_mean([_radius(report) for report in reports]),
            cap_fraction=sum(report.scale != 1.0 for report in reports) / len(losses),
            diverged=diverged,
        )


def _applied_ratio(report: StepReport) -> float:
    return report.scale * report.known_ratio if report.scale > 0.0 else 0.0


def _radius(report: StepReport) -> float:
    return report.step_length / report.known_ratio if report.known_ratio != 0.0 else math.inf


@torch.no_grad()
def _accuracy(model: nn.Module, loader: Loader, device: torch.device) -> float:
    model.eval()
    right = total = 0
    for inputs, labels in loader:
        right += int((model(inputs.to(device)).argmax(1) == labels.to(device)).sum())
        total += len(labels)
    return right / total


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def largest(values: Sequence[float]) -> float:
    """Return the maximum, or nan if there is one: the builtin's answer would depend on the order."""
    return math.nan if any(map(math.isnan, values)) else max(values)
