"""The abstract schedule: how it is called, composed and summed."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from numbers import Real
from typing import TYPE_CHECKING, overload

import torch
from torch import Tensor

from safestep.errors import ScheduleError
from safestep.schedules.arithmetic import N
from safestep.schedules.checks import ABOVE_0, number, whole
from safestep.schedules.clock import step, steps
from safestep.schedules.sums import finite

if TYPE_CHECKING:
    from safestep.schedules.product import Product
    from safestep.schedules.scaled import Scaled
    from safestep.schedules.shifted import Shifted
    from safestep.schedules.then import Then


class Schedule(ABC):
    """A pure function from the step ``t``, counted from 0, to a factor of the learning rate or of a target.

    A schedule is a frozen dataclass without state: one instance may serve many parameter groups, schedulers and
    guards. It is a callable ``int -> float``, so `torch.optim.lr_scheduler.LambdaLR` and `safestep.Cap` take it.
    Nothing of it lands in a checkpoint: a resumed run follows the schedule that it was given.

    Example:
        >>> import torch
        >>> from safestep.schedules import Exponential, WarmUp
        >>> (WarmUp(4).then(0.5 * Exponential(0.1)))(torch.arange(6))
        tensor([0.2500, 0.5000, 0.7500, 1.0000, 0.5000, 0.4524], dtype=torch.float64)

    Reference:
        A. Zhang et al., Dive into Deep Learning (d2l.ai), optimization chapter, "Stochastic Gradient Descent".
    """

    # No __slots__ here, on purpose, and slots in every subclass: LambdaLR.state_dict() saves the __dict__ of a
    # callable object. So there has to be one, and it has to be empty: then no class of safestep is in a checkpoint,
    # torch.load(weights_only=True) reads it, and load_state_dict() has nothing to write into a frozen object.

    @overload
    def __call__(self, t: float) -> float: ...
    @overload
    def __call__(self, t: Tensor) -> Tensor: ...
    def __call__(self, t: float | Tensor) -> float | Tensor:
        """Return the factor at step ``t``.

        Args:
            t: the step, counted from 0, finite and at least 0; or a tensor of any shape of them.

        Returns:
            A float for a number. For a tensor one of its shape on its device: of its dtype if that is a floating
            one, otherwise float64. It is worked out in float64, which the device has to know. Looking at the
            tensor for a step that is none waits for a GPU.

        Raises:
            ScheduleError: for a negative or non-finite step, or for what is no number or tensor of numbers.
        """
        if isinstance(t, Tensor):
            dtype = t.dtype if t.is_floating_point() else torch.float64
            return self._factor(steps(t)).to(dtype)
        return self._factor(step(t))

    @abstractmethod
    def _factor(self, t: N) -> N:
        """Return the factor at a step that has been checked: a float, or a float64 tensor."""

    @property
    def settled(self) -> tuple[int, float] | None:
        """From which step on the factor stays what; None if it goes on changing."""
        return None

    @property
    def length(self) -> int | None:
        """After how many steps the schedule has done what it is for; None if it has no end of its own."""
        return None

    def then(self, second: Schedule, after: int | None = None) -> Then:
        """Follow this schedule for ``after`` steps and then another one, which counts from 0 again.

        Args:
            second: what follows.
            after: how many steps this one is followed, at least 1; None for its own length.

        Raises:
            ScheduleError: if no number is given and this schedule has no length of its own.

        Example:
            >>> from safestep.schedules import Cosine, WarmUp
            >>> WarmUp(5).then(Cosine(100))
            Then(first=WarmUp(steps=5, start=0.0), second=Cosine(steps=100, floor=0.0), after=5)
        """
        from safestep.schedules.then import Then

        if after is None and (after := self.length) is None:
            raise ScheduleError(f"{self!r} has no end of its own: say when the next begins, then(..., after=1000)")
        return Then(self, second, after)

    @overload
    def __mul__(self, other: Schedule) -> Product: ...
    @overload
    def __mul__(self, other: float) -> Scaled: ...
    def __mul__(self, other: Schedule | float) -> Product | Scaled:
        """Return the product with another schedule, or with a number."""
        from safestep.schedules.product import Product
        from safestep.schedules.scaled import Scaled

        if isinstance(other, Schedule):
            return Product(self, other)
        if _is_number(other):
            return Scaled(other, self)
        return NotImplemented

    def __rmul__(self, other: float) -> Scaled:
        """Return the product with a number."""
        return self.__mul__(other)

    def shifted(self, by: int) -> Shifted:
        """Return the schedule that begins at step ``by`` of this one.

        Example:
            >>> from safestep.schedules import Inverse
            >>> Inverse(0.5).shifted(2)(0)
            0.5
        """
        from safestep.schedules.shifted import Shifted

        return Shifted(self, by)

    def converges(self, power: float = 1.0) -> bool:
        r"""Return whether the sum over all steps of ``factor(t) ** power`` is finite.

        Args:
            power: above 0.

        Raises:
            ScheduleError: if it is not known: a product of two schedules that both go on changing and that, each by
                itself, diverge.
        """
        known = self._converges(number(power, "power", ABOVE_0))
        if known is None:
            raise self._unknown()
        return known

    def sum(self, power: float = 1.0, first: int = 0) -> float:
        r"""Return the sum over all steps from ``first`` on, ``math.inf`` where it diverges.

        Equation:
            ``sum over t >= first of factor(t) ** power``. With the learning rate ``eta_t = eta_0 factor(t)`` the sum
            of ``eta_t ** power`` is ``eta_0 ** power`` times it.

        Args:
            power: above 0; 1 says how far the mean can get, 2 how much noise is gathered.
            first: the step to begin with, at least 0; 2 for the counter of the published runs.

        Returns:
            The sum, with a relative error of about 1e-15, growing to 1e-13 where the terms near the smallest float.
            What is added up step by step (`Cosine`, the first part of a `Then` or `Product`) has ``power`` times as
            much, the error of a power of a rounded factor.

        Raises:
            ScheduleError: for an argument outside its range, a product without a closed form, or a finite sum beyond
                the largest float.

        Example:
            >>> from safestep.schedules import Inverse
            >>> Inverse(0.1).sum(), round(Inverse(0.1).sum(power=2), 6)
            (inf, 10.516634)
        """
        power, first = number(power, "power", ABOVE_0), whole(first, "first", least=0)
        if self._converges(power) is False:
            return math.inf
        try:
            total = self._sum(power, first)
        except (OverflowError, ZeroDivisionError):
            total = math.inf
        if not math.isfinite(total):
            raise ScheduleError(f"{self!r}: the sum of power {power!r} is finite, but beyond the largest float")
        return total

    @property
    def robbins_monro(self) -> bool:
        """Whether the sum of the rates diverges and that of their squares converges, as Robbins and Monro ask.

        Sufficient, not necessary, for the convergence of SGD in their setting; it says nothing about a given number
        of steps.

        Raises:
            ScheduleError: if it is not known, see `converges`.
        """
        return not self.converges(1.0) and self.converges(2.0)

    def _converges(self, power: float) -> bool | None:
        """Return whether the sum of powers converges; None if it is not known."""
        return None if self.settled is None else self.settled[1] == 0.0

    def _sum(self, power: float, first: int) -> float:
        """Return a sum that converges, or is not known to diverge."""
        if self.settled is None:
            raise self._unknown()
        return finite(self, power, first, self.settled[0])

    def _unknown(self) -> ScheduleError:
        return ScheduleError(
            f"{self!r}: no closed form is known of its infinite sum; add up what you need, "
            "schedule(torch.arange(steps)).sum()"
        )


def _is_number(value: object) -> bool:
    return isinstance(value, Real)


def parts(**schedules: object) -> None:
    """Check what a composition is made of.

    Raises:
        ScheduleError: if one of them is no schedule.
    """
    for name, part in schedules.items():
        if not isinstance(part, Schedule):
            raise ScheduleError(
                f"{name} = {part!r}: expected a schedule, such as Inverse(0.1); compose functions by hand"
            )
