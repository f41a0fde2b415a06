"""The loss at which a step was taken."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from safestep.recording.forwards import Forwards
from safestep.recording.step import Step
from safestep.records.report import StepReport
from safestep.tools.diagnostics.start import at_start

Closure = Callable[[], Tensor]
"""Returns the scalar loss of the present batch at the present parameters; no backward, no step."""


class Loss:
    r"""Records the loss where a step started, and the root of the mean squared error that goes with it.

    Equation:
        ``rmse = sqrt(loss / square)``: a squared-error loss is ``square`` times the mean squared error over all
        entries, 1 for mse and ``outputs / 2`` for half_mse.

    Args:
        closure: the loss of the batch that the step was taken on. A lambda that names the loop's own variables sees
            what they hold at the time: ``Loss(lambda: loss_fn(model(x), y))``.
        square: the factor above, positive; None for another loss, and no ``rmse``.

    Raises:
        ValueError: for a ``square`` that is not positive.

    Example:
        >>> import safestep
        >>> model = torch.nn.Linear(1, 2)
        >>> x, y = torch.ones(3, 1), torch.tensor([0, 1, 1])
        >>> loss = Loss(lambda: torch.nn.functional.cross_entropy(model(x), y))
        >>> sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> guard = safestep.attach(model, sgd, diagnostics=[loss])
        >>> before = torch.nn.functional.cross_entropy(model(x), y)
        >>> before.backward(); sgd.step()
        >>> guard.last.extras["loss"] == before.item()
        True

    Note:
        It costs a forward. Dropout has the masks of the training forward, if the step had one forward.
    """

    def __init__(self, closure: Closure, square: float | None = None) -> None:
        if square is not None and not square > 0.0:
            raise ValueError(f"square={square!r}: expected the positive factor between loss and mean squared error")
        self._closure, self._square = closure, square
        self._of: weakref.ref[Step] | None = None
        self._value = math.nan

    def at(self, step: Step, forwards: Forwards) -> float:
        """Return the loss where a step started; evaluated once a step, whoever asks."""
        if self._of is None or self._of() is not step:
            with at_start(step, forwards), torch.no_grad():
                self._value = float(self._closure())
            self._of = weakref.ref(step)
        return self._value

    def __call__(self, step: Step, forwards: Forwards, report: StepReport) -> Mapping[str, float]:
        """Return ``loss``, and ``rmse`` of a squared error."""
        loss = self.at(step, forwards)
        if self._square is None:
            return {"loss": loss}
        return {"loss": loss, "rmse": math.sqrt(loss / self._square)}
