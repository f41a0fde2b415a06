"""The instrumented run: a student learns in an ordinary loop, and the probes of a guard record every field."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from safestep.guard.attach import attach
from safestep.guard.guard import Probe
from safestep.lab.affine_teacher import AffineTeacher
from safestep.lab.run_history import RunHistory
from safestep.lab.student import Student
from safestep.policy import Policy, Throttle, Watch
from safestep.radius import CurvatureRadius, Radius, SecantCurvature
from safestep.tools.diagnostics import published

Law = Literal["none", "secant", "curvature"]
"""No throttle; the published one; the one by the curvature on the batch."""


@dataclass(frozen=True, kw_only=True)
class DriftRun:
    """How a student is trained; `train` does it.

    Attributes:
        law: what the throttle looks at, or ``"none"``: then it only watches, and the records tell what the secant law
            (``alpha_would``) and the curvature law (``would_scale``) would do.
        rate: the learning rate ``eta``, positive.
        steps: how many, or None for whole epochs.
        epochs: how many, where ``steps`` is None.
        batch_size: samples of a batch, the last of an epoch smaller; None for all of them.
        shuffle: whether batches are dealt out anew each epoch; without it, and for full batches, in order.
        seed: of the shuffling, from a generator of its own.
        optimizer: called with parameters and ``lr=rate``: a class of torch.optim, or a partial of one.
        chi: the aim of the throttle.
        beta: share of the newest secant curvature in its mean.
        order: of the throttle.
        policy: in place of the throttle that the above describe.
        reference: ``A`` in ``weight_error_fro``; None for the teacher's own.
        sharpness: whether the Hessian's eigenvalues are recorded, most of what the records cost.

    Raises:
        ValueError: for numbers outside these ranges.

    Example:
        >>> teacher, settings = AffineTeacher(), DriftRun(rate=0.5, steps=20)
        >>> student = teacher.student(seed=1)
        >>> warm_up = settings.train(student, teacher)
        >>> drifted = settings.train(student, teacher.drifted(gain=4.0))
        >>> warm_up.diverged, drifted.diverged, max(drifted["loss"]) == drifted["loss"][0]
        (False, False, True)
    """

    law: Law = "curvature"
    rate: float = 0.5
    steps: int | None = None
    epochs: int = 100
    batch_size: int | None = None
    shuffle: bool = True
    seed: int = 0
    optimizer: Callable[..., Optimizer] = SGD
    chi: float = 1.5
    beta: float = 0.05
    order: Literal[0, 1, 2] = 0
    policy: Policy | None = None
    reference: Tensor | None = None
    sharpness: bool = True

    def __post_init__(self) -> None:
        """Check the ranges; those of the throttle are its own."""
        if self.law not in ("none", "secant", "curvature"):
            raise ValueError(f"law={self.law!r}: expected 'none', 'secant' or 'curvature'")
        if not 0.0 < self.rate < math.inf:
            raise ValueError(f"rate={self.rate!r}: expected a positive learning rate")
        if self.epochs < 0 or (self.steps or 0) < 0 or (self.batch_size is not None and self.batch_size < 1):
            raise ValueError(
                f"steps={self.steps!r}, epochs={self.epochs!r}, batch_size={self.batch_size!r}: expected whole "
                "numbers of at least 0, a batch of at least 1"
            )

    def train(self, student: Student, teacher: AffineTeacher) -> RunHistory:
        """Train a student from where it is, in the loss of its teacher, and return what was recorded.

        A run that diverges ends with the step at which loss, gradient or parameters stopped being finite: the last
        record says so. A step that moves nothing, where the gradient is exactly 0, has no record.

        Args:
            student: of the teacher's shapes; it is changed. Optimizer and throttle begin anew.
            teacher: gives data and loss.
        """
        like = next(student.parameters())
        inputs, answers = (part.to(like.device) for part in teacher.data(like.dtype))
        loss_of, square = _loss_of(teacher)
        batch: tuple[Tensor, Tensor] = (inputs, answers)

        def loss() -> Tensor:
            return loss_of(student(batch[0]), batch[1])

        history = RunHistory()
        optimizer = self.optimizer(student.parameters(), lr=self.rate)
        radius, policy = self._guarded(teacher)
        probes = self._probes(student, teacher, loss, square)
        with attach(student, optimizer, radius=radius, policy=policy, probes=probes, log=history.append, history=0):
            student.train()
            for chosen in self._batches(len(inputs)):
                batch = (inputs, answers) if chosen is None else (inputs[chosen], answers[chosen])
                optimizer.zero_grad()
                loss().backward()
                optimizer.step()
                if history.diverged:
                    break
        return history

    def _guarded(self, teacher: AffineTeacher) -> tuple[Radius, Policy]:
        policy = self.policy or Throttle(chi=self.chi, order=self.order)
        if self.law == "secant":
            return SecantCurvature(self.beta), policy
        radius = CurvatureRadius(teacher.loss)
        return radius, policy if self.law == "curvature" else Watch(policy)

    def _probes(
        self, student: Student, teacher: AffineTeacher, loss: Callable[[], Tensor], square: float
    ) -> Sequence[Probe]:
        reference = teacher.reference if self.reference is None else self.reference
        return published(
            loss,
            square=square,
            weights=student.matrices,
            reference=reference,
            chi=self.chi,
            beta=self.beta,
            sharpness=self.sharpness,
        )

    def _batches(self, samples: int) -> Iterator[Tensor | None]:
        """Yield the samples of each batch; None for all in order."""
        size = min(self.batch_size or samples, samples)
        per_epoch = math.ceil(samples / size)
        steps = self.epochs * per_epoch if self.steps is None else self.steps
        generator = torch.Generator().manual_seed(self.seed)
        left: list[Tensor] = []
        for _ in range(steps):
            if size == samples:
                yield None
                continue
            if not left:
                order = torch.randperm(samples, generator=generator) if self.shuffle else torch.arange(samples)
                left = list(order.split(size))
            yield left.pop(0)


LossFunction = Callable[[Tensor, Tensor], Tensor]
"""From outputs and answers to a scalar."""


def half_mse(outputs: Tensor, answers: Tensor) -> Tensor:
    """Return ``||Y^ - Y||^2 / (2n)``: mean over the n samples, summed over outputs.

    Example:
        >>> half_mse(torch.zeros(2, 2), torch.ones(2, 2))
        tensor(1.)
    """
    return (outputs - answers).square().sum() / (2 * len(outputs))


def _loss_of(teacher: AffineTeacher) -> tuple[LossFunction, float]:
    """Return the loss of a teacher, and what it is a multiple of the mean squared error by."""
    return (half_mse, teacher.outputs / 2) if teacher.loss == "half_mse" else (nn.functional.mse_loss, 1.0)
