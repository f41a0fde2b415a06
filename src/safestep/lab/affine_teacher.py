"""A teacher whose answers are affine: data for regressions of which every curvature is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from safestep._torch.extras import need
from safestep.lab.student import Student

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Loss = Literal["half_mse", "mse"]
"""``half_mse``: ``||Y^ - Y||^2 / (2n)``, mean over samples, summed over outputs; ``mse``: mean over all entries."""

Matrix = tuple[tuple[float, ...], ...]

PUBLISHED: Matrix = ((1.25, -0.75, 0.50, 0.20), (-0.40, 0.90, 1.10, -0.60))
"""``A`` of experiment 000 of ENABOL / kappa."""


@dataclass(frozen=True)
class Drift:
    """An affine map of inputs, ``x <- gain x + shift``, with a gain other than 0."""

    gain: float = 1.0
    shift: float = 0.0

    def after(self, earlier: Drift) -> Drift:
        """Return the map that applies an earlier one and then this one."""
        return Drift(self.gain * earlier.gain, self.gain * earlier.shift + self.shift)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the inputs after the drift."""
        return self.gain * x + self.shift

    def __str__(self) -> str:
        return f"{self.gain:g} x{f' {self.shift:+g}' if self.shift else ''}"


@dataclass(frozen=True)
class AffineTeacher:
    r"""Pairs ``(x, y)`` with ``y = A x``, whose inputs may drift, and the curvature a linear student meets.

    Equation:
        Before any drift the components of ``x`` are uniform on (0, 1). A linear student without bias has the Hessian
        ``H = c (I kron X'X / N)``, ``c = 1`` for half_mse and ``2 / outputs`` for mse, whatever its weights are.
        Gradient descent converges while ``eta < 2 / lambda_max``.

    Attributes:
        A: the matrix, shape ``(outputs, inputs)``; nested sequences, arrays and tensors are taken.
        samples: ``N``, at least 1.
        seed: of the samples, 0 or more. No global generator is drawn from.
        loss: the convention that eigenvalues are given in.
        inputs_drift: from the ``x`` that was drawn to the ``x`` that is handed out.
        labels_drift: from the ``x`` that was drawn to the ``x`` that is labelled.

    Raises:
        ValueError: for an ``A`` that is no matrix, and for names and numbers outside the above.

    Example:
        >>> teacher = AffineTeacher()
        >>> print(teacher)
        AffineTeacher: y = A x
          x          1000 samples of 4 components, U(0, 1) each, seed 42
          y          1000 samples of 2 components
          A          [[1.25, -0.75, 0.5, 0.2], [-0.4, 0.9, 1.1, -0.6]]
          half_mse   λ from 0.0768 to 1.082, η_max = 2/λ_max = 1.848
        >>> round(teacher.drifted(gain=4.0).lambda_max / teacher.lambda_max, 6)
        16.0

    Source:
        M. Blanco Valentin, ENABOL / kappa, "Experiment 000: One-Layer Global Throttle Sanity Check", repository
        manuelblancovalentin/kappa_budgeting. Its print-out names the law U(-1, 1); its numbers are of U(0, 1).
    """

    A: Matrix = PUBLISHED
    samples: int = 1000
    seed: int = 42
    loss: Loss = "half_mse"
    inputs_drift: Drift = Drift()
    labels_drift: Drift = Drift()

    def __post_init__(self) -> None:
        """Turn an array into tuples, which compare and hash, and check the ranges."""
        object.__setattr__(self, "A", tuple(tuple(map(float, row)) for row in self.A))
        if not self.A or not self.A[0] or len({len(row) for row in self.A}) > 1:
            raise ValueError(f"A = {self.A}: expected a matrix, one row of equal length per output")
        if self.loss not in ("half_mse", "mse"):
            raise ValueError(f"loss = {self.loss!r}: expected one of half_mse, mse")
        if self.seed < 0 or self.samples < 1:
            raise ValueError(
                f"seed = {self.seed}, samples = {self.samples}: expected a seed of at least 0, samples of at least 1"
            )

    # -- the data -------------------------------------------------------------------------------------------------

    @property
    def inputs(self) -> int:
        """Components of ``x``."""
        return len(self.A[0])

    @property
    def outputs(self) -> int:
        """Components of ``y``."""
        return len(self.A)

    def data(self, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Return the inputs, shape ``(samples, inputs)``, and the answers, shape ``(samples, outputs)``.

        They are made in float64 and rounded once, and are the same bit for bit at every call.

        Args:
            dtype: float32 or float64.
        """
        answers = self.labels_drift(self._drawn) @ self._matrix.T
        return self.inputs_drift(self._drawn).to(dtype, copy=True), answers.to(dtype)

    def drifted(self, gain: float = 1.0, bias: float = 0.0, *, relabel: bool = False) -> AffineTeacher:
        r"""Return the teacher after its inputs drifted; drifts add up.

        Equation:
            ``x <- gain x + bias``. ``y`` is kept, so that a linear student has to end at ``A / gain``; or, with
            ``relabel``, ``y = A x`` of the drifted ``x``, and the solution stays at ``A``. Without a bias
            ``lambda_max`` grows by ``gain^2`` either way.

        Args:
            gain: ``gamma``, finite and other than 0.
            bias: added to every component.
            relabel: whether the teacher answers the drifted inputs.

        Raises:
            ValueError: for a gain of 0, and for a gain or bias that is not finite.
        """
        if gain == 0.0 or gain - gain != 0.0 or bias - bias != 0.0:
            raise ValueError(f"gain = {gain}, bias = {bias}: expected finite numbers, and a gain other than 0")
        now = Drift(float(gain), float(bias)).after(self.inputs_drift)
        return replace(self, inputs_drift=now, labels_drift=now if relabel else self.labels_drift)

    def student(self, hidden: Sequence[int] = (), **options: Any) -> Student:
        """Return a student of this teacher's shapes; `safestep.lab.student.Student` has the options."""
        return Student(self.inputs, self.outputs, hidden=hidden, **options)

    # -- what is known of it --------------------------------------------------------------------------------------

    @property
    def moments(self) -> Tensor:
        """``X'X / N`` of the inputs that are handed out, float64, shape ``(inputs, inputs)``."""
        x = self.inputs_drift(self._drawn)
        return x.T @ x / len(x)

    @cached_property
    def spectrum(self) -> tuple[float, ...]:
        """Eigenvalues of the Hessian of a linear student without bias, rising; each ``outputs`` times in it."""
        return self.eigenvalues(self.inputs_drift(self._drawn))

    def eigenvalues(self, x: Tensor) -> tuple[float, ...]:
        """Return the same on other inputs, such as those of a batch, shape ``(n, inputs)``."""
        c, x = 1.0 if self.loss == "half_mse" else 2.0 / self.outputs, x.double()
        return tuple((c * torch.linalg.eigvalsh(x.T @ x / len(x))).tolist())

    @property
    def lambda_min(self) -> float:
        """The smallest eigenvalue of the Hessian."""
        return self.spectrum[0]

    @property
    def lambda_max(self) -> float:
        """The largest eigenvalue of the Hessian."""
        return self.spectrum[-1]

    @property
    def eta_max(self) -> float:
        """The learning rate at which gradient descent stops converging, ``2 / lambda_max``."""
        return 2.0 / self.lambda_max

    @property
    def reference(self) -> Tensor:
        """The weights that answer the inputs handed out as the teacher does, float64; ``A / gain`` where y was kept.

        With a `reference_bias` other than 0 a student needs a bias to get there.
        """
        return self._matrix * (self.labels_drift.gain / self.inputs_drift.gain)

    @property
    def reference_bias(self) -> Tensor:
        """The bias that goes with `reference`, float64, shape ``(outputs,)``."""
        ratio = self.labels_drift.gain / self.inputs_drift.gain
        return self._matrix.sum(1) * (self.labels_drift.shift - ratio * self.inputs_drift.shift)

    # -- for the eye ----------------------------------------------------------------------------------------------

    def plot(self) -> Figure:
        """Draw every component of y against every component of x; see `safestep.plots.affine_scatter`."""
        from safestep.plots import affine_scatter

        return affine_scatter(*self.data(torch.float64), self.reference, self.reference_bias)

    def plot_histogram(self) -> Figure:
        """Draw how the components of x (top) and y (bottom) are distributed; see `safestep.plots.affine_histogram`."""
        from safestep.plots import affine_histogram

        return affine_histogram(*self.data(torch.float64))

    def __str__(self) -> str:
        """Return shapes, drift, A and eigenvalues, one line each."""
        lines = {
            "x": f"{self.samples} samples of {self.inputs} components, U(0, 1) each, seed {self.seed}",
            "y": f"{self.samples} samples of {self.outputs} components",
            "A": f"{[list(row) for row in self.A]}",
        }
        if self.inputs_drift != Drift():
            answer = "y kept" if self.labels_drift == Drift() else f"y of x = {self.labels_drift}"
            lines["drift"] = f"x <- {self.inputs_drift}, {answer}"
        ends = f"λ from {self.lambda_min:.4g} to {self.lambda_max:.4g}"
        lines[self.loss] = f"{ends}, η_max = 2/λ_max = {self.eta_max:.4g}"
        return "\n".join(["AffineTeacher: y = A x", *(f"  {name:<10} {text}" for name, text in lines.items())])

    @cached_property
    def _drawn(self) -> Tensor:
        generator = need("numpy.random", "experiments").default_rng(self.seed)
        return torch.from_numpy(generator.uniform(0.0, 1.0, (self.samples, self.inputs)))

    @property
    def _matrix(self) -> Tensor:
        return torch.tensor(self.A, dtype=torch.float64)
