"""The wind-down: the end of a run whose length nobody knew before, from the step at which it was decided to stop."""

from __future__ import annotations

import math
from dataclasses import dataclass

from safestep.errors import ScheduleError
from safestep.policy import Policy
from safestep.schedules import DecayAtEnd
from safestep.schedules.ranges import whole, whole_from_0


@dataclass(frozen=True)
class WindDown:
    """Takes the target linearly to 0 over a number of steps; a function of the step alone, the same on all ranks.

    Equation:
        ``min(1, max(1, start + steps - t) / steps)``, as `safestep.schedules.DecayAtEnd` over the last ``steps`` steps.

    Attributes:
        start: the first of them, counted from 0; it still has the whole target.
        steps: how many they are, at least 1.

    Example:
        >>> end = WindDown(start=6, steps=4)
        >>> [end.factor(step) for step in range(5, 12)], end.over(9), end.over(10)
        ([1.0, 1.0, 0.75, 0.5, 0.25, 0.25, 0.25], False, True)
    """

    start: int
    steps: int

    def __post_init__(self) -> None:
        """Check that both are steps."""
        whole_from_0(self.start, "start")
        whole(self.steps, "steps")

    def factor(self, step: int) -> float:
        """Return what the target of a step is multiplied by."""
        return DecayAtEnd(self.steps, share=1.0)(max(step - self.start, 0))

    def over(self, step: int) -> bool:
        """Return whether a step comes after the last of them."""
        return step >= self.start + self.steps


def begin(policy: Policy, start: int, steps: int, running: WindDown | None) -> WindDown:
    """Return the wind-down of a policy.

    Raises:
        ScheduleError: if the steps are not a whole number from 1 on, if one is running, or if the policy aims at no
            target that could go down.
    """
    if running is not None:
        raise ScheduleError(
            f"this run winds down already, from step {running.start} on over {running.steps} steps (a resumed run does "
            "so by itself): to train on instead, load a checkpoint from before"
        )
    if not math.isfinite(target := policy.target_at(start)):
        raise ScheduleError(
            f"nothing to wind down: {policy} aims at r = {target} in step {start}. Expected a policy with a finite "
            "target, such as Cap(1.0) or Pin(1.0); decay the learning rate instead"
        )
    return WindDown(start, steps)
