"""What a post-mortem needs: the model and optimizer as they were before the step, its batch, and the loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from safestep.errors import MeasurementError
from safestep.guard.validation import averaged_apart, check_attachment, check_functions
from safestep.recording.logits import LogitsFinder
from safestep.recording.nonfinite import parameters_of
from safestep.recording.optimizer_hooks import innermost
from safestep.recording.step import Parameters, Step
from safestep.tools.trial import OnTrial, on_trial


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A step about to be taken: what a user's ``setup`` makes of a checkpoint.

    Attributes:
        model: with the checkpoint's weights, in the mode (train or eval) of the training loop.
        optimizer: with the checkpoint's state and the learning rate of the step; several as a list.
        batch: what the step was taken on, as ``loss`` takes it.
        loss: from the model and a batch to the scalar loss that the loop runs backward on; it calls the model.
        ordinary: batches that went well, for comparison; none is fine.
        clip: what the loop does between backward and ``optimizer.step()``, such as clipping; None for nothing.
        logits: from the model's output to its logits, as for `safestep.attach`.
        first: whether the optimizer has not stepped yet, so that it is right for it to have no state.

    Raises:
        TypeError: for a loss or ``clip`` that cannot be called.
        AttachError: for a model or optimizer that is none, or where they share no parameter.

    Example:
        >>> model = nn.Linear(2, 3)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> batch = torch.eye(2), torch.tensor([0, 2])
        >>> def loss(model, batch):
        ...     return nn.functional.cross_entropy(model(batch[0]), batch[1])
        >>> Scene(model=model, optimizer=optimizer, batch=batch, loss=loss).first
        False
    """

    model: nn.Module
    optimizer: Optimizer | Sequence[Optimizer]
    batch: Any
    loss: Callable[[nn.Module, Any], Tensor]
    ordinary: Sequence[Any] = ()
    clip: Callable[[], object] | None = None
    logits: LogitsFinder | None = None
    first: bool = False

    def __post_init__(self) -> None:
        """Check the parts."""
        for name, function in (("loss", self.loss), ("clip", self.clip or len)):
            if not callable(function):
                raise TypeError(f"{name}={function!r}: expected a function, see safestep.tools.autopsy.Scene")
        check_functions(self.logits, ())
        check_attachment(self.model, self.optimizers, "undo")

    @property
    def optimizers(self) -> list[Optimizer]:
        """The optimizers themselves, without wrappers."""
        given = self.optimizer if isinstance(self.optimizer, (list, tuple)) else [self.optimizer]
        return [innermost(one) for one in averaged_apart([*given])]

    @property
    def trained(self) -> list[Tensor]:
        """The parameters of the optimizers that may move."""
        return [parameter for one in self.optimizers for parameter in parameters_of(one) if parameter.requires_grad]

    @contextmanager
    def step(self, batch: Any) -> Iterator[tuple[OnTrial, Step]]:
        """Take the step on a batch, by copies of the optimizers, and undo it; everything is untouched afterwards.

        Raises:
            MeasurementError: if loss or step are not finite, nothing moves, or the optimizers have no state.
        """
        if any(isinstance(one, LBFGS) for one in self.optimizers):
            raise MeasurementError("LBFGS searches its own step, which no single backward gives: it has no post-mortem")

        def closure() -> None:
            loss = self.loss(self.model, batch)
            if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
                seen = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"{loss!r}"
                raise MeasurementError(f"loss(model, batch) returned {seen}: expected the scalar loss, with its graph")
            if not math.isfinite(loss.item()):
                raise MeasurementError(
                    f"the loss at the checkpoint is {loss.item()}: take an earlier one, or look for nan in the batches"
                )
            loss.backward()
            if self.clip is not None:
                self.clip()

        with (
            on_trial(self.model, self.optimizers, closure, self.logits, None, hold=True) as trial,
            trial.stepped() as (step, twins),
        ):
            if not self.first:
                self._check_state(twins, trial.gradients)
            if not 0.0 < step.length < math.inf:
                raise MeasurementError(f"the step {self._fault(trial.gradients, step.length)}")
            yield trial, step

    def _check_state(self, twins: list[Optimizer], gradients: Parameters) -> None:
        """Refuse an optimizer whose step made the state of all its parameters: it was built anew, not loaded."""
        for own, twin in zip(self.optimizers, twins, strict=True):
            kept = [key for key in gradients if any(map(torch.is_tensor, twin.state.get(key, {}).values()))]
            if kept and not any(own.state.get(key) for key in kept):
                raise MeasurementError(
                    f"{type(own).__name__} has no state, so that its step would be another one: expected "
                    "optimizer.load_state_dict(...) from the checkpoint in setup; Scene(first=True) if it never stepped"
                )

    def _fault(self, gradients: Parameters, size: float) -> str:
        """Say what is wrong with a step that is not finite, or moves nothing."""
        if size == 0.0:
            return "moves nothing: expected the learning rate that the step was taken at"
        bad = [
            name for name, q in self.model.named_parameters() if q in gradients and not gradients[q].isfinite().all()
        ]
        if bad:
            return f"is not finite: the gradient of {bad[0]} is not ({len(bad)} of {len(gradients)} gradients)"
        return "is not finite, though the gradients are: look at the optimizer's state"
