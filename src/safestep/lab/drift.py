"""The instrumented run (`DriftRun`): a student learns in an ordinary loop, and every field of each step is recorded."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from safestep.formulas.quadratic_ratio import margin, spectral_radius
from safestep.guard.attach import attach
from safestep.lab.affine_teacher import AffineTeacher
from safestep.lab.student import Student
from safestep.policy import Throttle, Watch
from safestep.policy.throttle import Order
from safestep.radius import CurvatureRadius, Radius, SecantCurvature
from safestep.recording.nonfinite import all_finite
from safestep.recording.step import Step
from safestep.records.reading import Status
from safestep.records.report import History, StepReport
from safestep.tools.diagnostics import Geometry, Secant, Sharpness, Teacher

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Law = Literal["none", "secant", "curvature"]
"""No throttle; the published one; the one by the curvature on the batch."""
_COLUMNS = {
    "loss": "loss",
    "weight error": "weight_error_fro",
    "‖g‖": "grad_norm",
    "C": "curvature_proxy",
    "λ_max": "hessian_lambda_max",
    "ηλ_max": "stability_margin_lambda_raw",
    "α": "alpha",
}
"""What a printed run shows, by its heading."""
_SHOWN = 6
"""First steps of a printed run, and last ones."""


class RunHistory(History):
    """Every record of a run, oldest first: columns by name, a table when printed, a picture when plotted.

    Example:
        >>> print(RunHistory())
        no steps yet
    """

    def __init__(self) -> None:
        super().__init__(limit=sys.maxsize)  # a run is complete or it is no record

    @property
    def diverged(self) -> bool:
        """Whether the last step left or found something that is not finite."""
        return len(self) > 0 and bool(self[-1].extras["diverged"])

    def plot(self, title: str = "") -> Figure:
        """Draw loss, weight error, gradient norm, curvatures, margin and alpha; see `safestep.plots.throttled_run`."""
        from safestep.plots import throttled_run

        return throttled_run(self, title=title)

    def __str__(self) -> str:
        """Return how the run went in a line, and a table of its first and last steps."""
        if not len(self):
            return "no steps yet"
        losses = self["loss"]
        peak = max(losses, key=lambda loss: math.inf if math.isnan(loss) else loss)
        end = f"diverged at step {self[-1].step}" if self.diverged else "finite throughout"
        course = f"loss {losses[0]:.4g} at first, {peak:.4g} at most, {losses[-1]:.4g} at last"
        lines = [f"{len(self)} steps, {end}: {course}"]
        lines.append(f"{'step':>7}" + "".join(f"{heading:>13}" for heading in _COLUMNS))
        for place, report in enumerate(self):
            if place < _SHOWN or place >= len(self) - _SHOWN:
                values = [float(report.extras.get(column, math.nan)) for column in _COLUMNS.values()]
                lines.append(f"{report.step:>7}" + "".join(f"{value:>13.4g}" for value in values))
            elif place == _SHOWN:
                lines.append(f"{'...':>7}")
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class DriftRun:
    """How a student is trained, by plain SGD; `train` does it.

    Attributes:
        law: what the throttle looks at, or ``"none"``: then it only watches, and the records tell what the secant law
            (``alpha_would``) and the curvature law (``would_scale``) would do.
        rate: the learning rate ``eta``, positive.
        steps: how many, or None for whole epochs.
        epochs: how many, where ``steps`` is None.
        batch_size: samples of a batch, the last of an epoch smaller; None for all of them.
        shuffle: whether batches are dealt out anew each epoch; without it, and for full batches, in order.
        seed: of the shuffling, from a generator of its own.
        chi: the aim of the throttle.
        beta: share of the newest secant curvature in its mean.
        order: of the throttle.
        radius: measured in the place of the one that the law looks at; `SecantCurvature` costs least.
        sharpness: whether the Hessian's eigenvalues are recorded. They cost much unless the student is one matrix.

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
    chi: float = 1.5
    beta: float = 0.05
    order: Order = 0
    radius: Radius | None = None
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
        record says so. A step that moves nothing, as at the end of float32, has no record.

        Args:
            student: of the teacher's shapes; it is changed. Optimizer and throttle begin anew.
            teacher: gives data and loss.
        """
        like = next(student.parameters())
        inputs, answers = (part.to(like.device) for part in teacher.data(like.dtype))
        loop, history = _Loop(student, teacher, inputs, answers, self.sharpness), RunHistory()
        radius = self.radius or (SecantCurvature(self.beta) if self.law == "secant" else CurvatureRadius(teacher.loss))
        throttle = Throttle(chi=self.chi, order=self.order)
        policy = Watch(throttle) if self.law == "none" else throttle

        def log(report: StepReport) -> None:
            if report.status is not Status.STILL:
                history.append(report)

        optimizer = torch.optim.SGD(student.parameters(), lr=self.rate)
        diagnostics = (
            loop.columns,
            Geometry(),
            Secant(self.chi, self.beta),
            Teacher(student.matrices, teacher.reference),
            *((Sharpness(loop.loss),) if self.sharpness and not loop.linear else ()),
        )
        student.train()
        with attach(student, optimizer, radius=radius, policy=policy, diagnostics=diagnostics, log=log, history=0):
            for chosen in self._batches(len(inputs)):
                loop.x, loop.y = (inputs, answers) if chosen is None else (inputs[chosen], answers[chosen])
                optimizer.zero_grad()
                loss = loop.loss()
                loop.value = loss.item()
                loss.backward()
                optimizer.step()
                if history.diverged:
                    break
        return history

    def _batches(self, samples: int) -> Iterator[Tensor | None]:
        """Yield the samples of each batch; None for all in order."""
        size = min(self.batch_size or samples, samples)
        steps = self.epochs * math.ceil(samples / size) if self.steps is None else self.steps
        generator = torch.Generator().manual_seed(self.seed)
        waiting: list[Tensor] = []
        for _ in range(steps):
            if size < samples and not waiting:
                order = torch.randperm(samples, generator=generator) if self.shuffle else torch.arange(samples)
                waiting = list(order.split(size))
            yield waiting.pop(0) if waiting else None


@dataclass
class _Loop:
    """The batch at hand, its loss, and the columns that need nothing that a loop does not have anyway."""

    student: Student
    teacher: AffineTeacher
    x: Tensor
    y: Tensor
    sharpness: bool
    value: float = math.nan

    @property
    def linear(self) -> bool:
        """Whether the student is one matrix: its Hessian is that of the inputs, wherever it is."""
        return len(list(self.student.parameters())) == len(self.student.matrices) == 1

    def loss(self) -> Tensor:
        """Return the teacher's loss of the batch."""
        loss_of: Callable[[Tensor, Tensor], Tensor] = half_mse if self.teacher.loss == "half_mse" else mse_loss
        return loss_of(self.student(self.x), self.y)

    def columns(self, step: Step, _: object, report: StepReport) -> Mapping[str, float]:
        """Return loss, root of the mean squared error, what is finite, and of a linear student the sharpness."""
        square = self.teacher.outputs / 2 if self.teacher.loss == "half_mse" else 1.0
        gradients = [parameter.grad for parameter in step.start if parameter.grad is not None]
        flags = {
            "loss_is_finite": math.isfinite(self.value),
            "grad_is_finite": all_finite(gradients),
            "theta_is_finite_before": all_finite(step.start.values()),
            "theta_is_finite_after": all_finite(step.start),
        }
        columns = {"loss": self.value, "rmse": math.sqrt(self.value / square), **flags}
        columns["diverged"] = not all(flags.values())
        if self.sharpness and self.linear:
            columns |= self._sharpness(report, known=flags["loss_is_finite"] and flags["grad_is_finite"])
        return columns

    def _sharpness(self, report: StepReport, *, known: bool) -> Mapping[str, float]:
        """Return the columns of `Sharpness`, by eigenvalues that the inputs alone tell, none of them negative."""
        eigenvalues = self.teacher.eigenvalues(self.x) if known else (math.nan,)
        low, high = eigenvalues[0], eigenvalues[-1]
        columns = {"hessian_lambda_max": high, "hessian_lambda_min": low, "hessian_spectral_norm": high}
        for name, rate in (("raw", report.lrs[0]), ("ctrl", report.scale * report.lrs[0])):
            columns |= {
                f"stability_margin_lambda_{name}": margin(rate, high),
                f"stability_margin_norm_{name}": margin(rate, high),
                f"spectral_radius_{name}": spectral_radius(rate, low, high),
            }
        return columns


def half_mse(outputs: Tensor, answers: Tensor) -> Tensor:
    """Return ``||Y^ - Y||^2 / (2n)``: mean over the n samples, summed over outputs.

    Example:
        >>> half_mse(torch.zeros(2, 2), torch.ones(2, 2))
        tensor(1.)
    """
    return (outputs - answers).square().sum() / (2 * len(outputs))
