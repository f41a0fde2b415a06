"""A user's own step function, as an optimizer that schedulers and the simulator can drive."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from safestep.descent.objective import DescentError

Gradient = Callable[[Tensor], Tensor]
"""The gradient of this step at any points, shape ``(runs, d)`` to ``(runs, d)``: same batch, same noise."""
Step = Callable[[Tensor, Gradient, float, Any], tuple[Tensor, Any]]
"""``(x, gradient, rate, state) -> (x, state)``."""


@dataclass(frozen=True)
class Rule:
    r"""An optimizer made of one function.

    Attributes:
        step: ``(x, gradient, rate, state) -> (x, state)``. ``x`` has shape ``(runs, d)``, and what is returned has to,
            too; ``gradient`` may be called at any points of that shape, always with this step's noise; ``rate`` is the
            learning rate after the schedule; ``state`` is whatever the last step returned. Rows must not mix.
        lr: base learning rate.
        state: for the first step; not of a shape that has to do with the number of runs: make that in the first step.

    Example:
        >>> def heavy_ball(x, gradient, rate, velocity):
        ...     velocity = 0.9 * velocity + gradient(x)
        ...     return x - rate * velocity, velocity
        >>> from safestep.descent import PLANE, simulate
        >>> simulate(PLANE, Rule(heavy_ball, lr=0.1, state=0.0), steps=20).last.shape
        torch.Size([1, 2])
    """

    step: Step
    lr: float = 0.1
    state: Any = None

    def __call__(self, parameters: Iterable[Tensor]) -> RuleOptimizer:
        """Return an optimizer that steps by this rule."""
        return RuleOptimizer(parameters, self)


class RuleOptimizer(Optimizer):
    """Steps one tensor by a `Rule`; whoever drives it sets ``gradient`` to that of the step, as a function."""

    def __init__(self, parameters: Iterable[Tensor], rule: Rule) -> None:
        super().__init__(parameters, {"lr": rule.lr})
        self._rule, self._memory = rule, copy.deepcopy(rule.state)
        self.gradient: Gradient | None = None

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step."""
        group = self.param_groups[0]
        (parameter,) = group["params"]
        fixed = parameter.grad
        gradient = self.gradient or (lambda _: fixed)
        answer = self._rule.step(parameter.detach().clone(), gradient, float(group["lr"]), self._memory)
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise DescentError(f"the rule returned {type(answer).__name__}: expected (x, state)")
        x, self._memory = answer
        if not isinstance(x, Tensor) or x.shape != parameter.shape:
            what = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise DescentError(f"the rule returned x of {what}: expected a tensor of shape {tuple(parameter.shape)}")
        parameter.copy_(x)
