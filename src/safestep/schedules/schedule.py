"""A schedule, and what operators make of schedules: one after another, shifted, times a number, times another."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from numbers import Real
from typing import TypeVar, final, overload

import torch
from torch import Tensor

from safestep.errors import ScheduleError
from safestep.schedules.ranges import a_step, above_0, from_0, whole, whole_from_0
from safestep.schedules.sums import finite, first_terms

N = TypeVar("N", float, Tensor)
"""The step t and the factor: numbers, or float64 tensors of one shape."""
_BY_HAND = "add up what you need, schedule(torch.arange(steps)).sum()"


@dataclass(frozen=True)
class Schedule(ABC):
    """A pure function from the step ``t``, counted from 0, to a factor of the learning rate or of a target.

    A schedule is a frozen dataclass without state: one instance may serve many parameter groups, schedulers and
    guards. It is a callable ``int -> float``, so `torch.optim.lr_scheduler.LambdaLR` and `safestep.Cap` take it.
    Nothing of it lands in a checkpoint: a resumed run follows the schedule that it was given. A parameter outside
    its range is a ScheduleError when the schedule is made.

    Example:
        >>> import torch
        >>> from safestep.schedules import Exponential, WarmUp
        >>> (WarmUp(4).then(0.5 * Exponential(0.1)))(torch.arange(6))
        tensor([0.2500, 0.5000, 0.7500, 1.0000, 0.5000, 0.4524], dtype=torch.float64)

    Reference:
        A. Zhang et al., Dive into Deep Learning (d2l.ai), optimization chapter, "Stochastic Gradient Descent".
    """

    # No slots here, on purpose, and slots in every subclass: LambdaLR.state_dict() saves the __dict__ of a callable
    # object. So there has to be one, and it has to be empty: then no class of safestep is in a checkpoint,
    # torch.load(weights_only=True) reads it, and load_state_dict() has nothing to write into a frozen object.

    def __post_init__(self) -> None:
        """Keep every parameter as its check returns it."""
        for parameter in fields(self):
            value = parameter.metadata["check"](getattr(self, parameter.name), parameter.name)
            object.__setattr__(self, parameter.name, value)

    @overload
    def __call__(self, t: float) -> float: ...
    @overload
    def __call__(self, t: Tensor) -> Tensor: ...
    def __call__(self, t: float | Tensor) -> float | Tensor:
        """Return the factor at step ``t``.

        Args:
            t: the step, counted from 0, finite and at least 0; or a tensor of any shape of them.

        Returns:
            A float for a number. For a tensor one of its shape, device and floating dtype, float64 for whole steps;
            it is worked out in float64.

        Raises:
            ScheduleError: for a negative or non-finite step, or for what is no number or tensor of numbers.
        """
        if not isinstance(t, Tensor):
            return self._factor(a_step(t, "t"))
        if t.dtype == torch.bool or t.is_complex():
            raise ScheduleError(f"t is a tensor of {t.dtype}: expected steps, whole or floating numbers")
        steps = t.to(torch.float64)
        fits = (steps >= 0.0) & (steps < math.inf)
        if not fits.all():
            raise ScheduleError(f"t holds {float(steps[~fits][0])!r}: expected steps, finite numbers from 0 on")
        return self._factor(steps).to(t.dtype if t.is_floating_point() else torch.float64)

    @abstractmethod
    def _factor(self, t: N) -> N:
        """Return the factor at a step that has been checked: a float, or a float64 tensor."""

    @property
    def length(self) -> int | None:
        """After how many steps the schedule has done what it is for; None if it has no end of its own."""
        return None

    def over(self, t: float) -> bool:
        """Return whether step ``t`` comes after the run whose length a `DecayAtEnd` in this schedule was told."""
        return False

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
        if after is None and (after := self.length) is None:
            raise ScheduleError(f"{self!r} has no end of its own: say when the next begins, then(..., after=1000)")
        return Then(self, second, after)

    @overload
    def __mul__(self, other: Schedule) -> Product: ...
    @overload
    def __mul__(self, other: float) -> Scaled: ...
    def __mul__(self, other: object) -> Product | Scaled:
        """Return the product with another schedule, or with a number."""
        if isinstance(other, Schedule):
            return Product(self, other)
        return Scaled(float(other), self) if isinstance(other, Real) else NotImplemented

    __rmul__ = __mul__

    def shifted(self, by: int) -> Shifted:
        """Return the schedule that begins at step ``by`` of this one.

        Example:
            >>> from safestep.schedules import Inverse
            >>> Inverse(0.5).shifted(2)(0)
            0.5
        """
        return Shifted(self, by)

    def sum(self, power: float = 1.0, first: int = 0) -> float:
        r"""Return ``sum over t >= first of factor(t) ** power``, ``math.inf`` where it diverges.

        With the learning rate ``eta_t = eta_0 factor(t)`` the sum of ``eta_t ** power`` is ``eta_0 ** power`` times it.

        Args:
            power: above 0; 1 says how far the mean can get, 2 how much noise is gathered.
            first: the step to begin with, at least 0; 2 for the counter of the published runs.

        Returns:
            The sum, with a relative error of about 1e-14, or ``power`` times 1e-16 where that is more.

        Raises:
            ScheduleError: for an argument outside its range, a product, which has no closed form, or a finite sum
                whose closed form needs numbers outside the range of floats.

        Example:
            >>> from safestep.schedules import Inverse
            >>> Inverse(0.1).sum(), round(Inverse(0.1).sum(power=2), 6)
            (inf, 10.516634)
        """
        power, first = above_0(power, "power"), whole_from_0(first, "first")
        try:
            return self._sum(power, first)
        except ArithmeticError:
            raise ScheduleError(
                f"{self!r}: the sum of power {power!r} is finite, but beyond the range of floats; {_BY_HAND}"
            ) from None

    def converges(self, power: float = 1.0) -> bool:
        """Return whether the sum over all steps of ``factor(t) ** power`` is finite; for errors see `sum`."""
        try:
            return self._sum(above_0(power, "power"), 0) < math.inf
        except ArithmeticError:  # finite, but beyond the range of floats
            return True

    @property
    def robbins_monro(self) -> bool:
        """Whether the sum of the rates diverges and that of their squares converges, as Robbins and Monro ask.

        Sufficient, not necessary, for the convergence of SGD in their setting; it says nothing about a given number
        of steps. For errors see `sum`.
        """
        return not self.converges(1.0) and self.converges(2.0)

    def _sum(self, power: float, first: int) -> float:
        """Return the sum of arguments that have been checked; ArithmeticError where floats do not tell it."""
        raise ScheduleError(f"{self!r}: no closed form is known of its infinite sum; {_BY_HAND}")


def _schedule(value: object, name: str) -> Schedule:
    """Return a part of a composition, if it is a schedule."""
    if not isinstance(value, Schedule):
        raise ScheduleError(f"{name} = {value!r}: expected a schedule, such as Inverse(0.1); compose functions by hand")
    return value


@final
@dataclass(frozen=True, slots=True)
class Then(Schedule):
    """``first(t)`` for ``t < after``, then ``second(t - after)``: see `Schedule.then`, which makes it."""

    first: Schedule = field(metadata={"check": _schedule})
    second: Schedule = field(metadata={"check": _schedule})
    after: int = field(metadata={"check": whole})

    def _factor(self, t: N) -> N:
        if isinstance(t, Tensor):
            later = self.second._factor((t - self.after).clamp(min=0.0))
            return torch.where(t < self.after, self.first._factor(t), later)
        return self.first._factor(t) if t < self.after else self.second._factor(t - self.after)

    @property
    def length(self) -> int | None:
        """Where the second ends."""
        return None if self.second.length is None else self.after + self.second.length

    def over(self, t: float) -> bool:
        """Return what the one says that is followed at ``t``."""
        return self.first.over(t) if t < self.after else self.second.over(t - self.after)

    def _sum(self, power: float, first: int) -> float:
        rest = self.second._sum(power, max(first - self.after, 0))
        return rest if rest == math.inf else finite(first_terms(self.first, power, first, self.after) + rest)


@final
@dataclass(frozen=True, slots=True)
class Shifted(Schedule):
    """``schedule(t + by)``: see `Schedule.shifted`. With ``by=2`` a scheduler follows the counter of published runs."""

    schedule: Schedule = field(metadata={"check": _schedule})
    by: int = field(metadata={"check": whole_from_0})

    def _factor(self, t: N) -> N:
        return self.schedule._factor(t + self.by)

    @property
    def length(self) -> int | None:
        """So many steps less; None if none is left."""
        left = (self.schedule.length or 0) - self.by
        return left if left > 0 else None

    def over(self, t: float) -> bool:
        """Return what the schedule says of its own step."""
        return self.schedule.over(t + self.by)

    def _sum(self, power: float, first: int) -> float:
        return self.schedule._sum(power, first + self.by)


@final
@dataclass(frozen=True, slots=True)
class Scaled(Schedule):
    """``factor * schedule(t)``, written ``0.5 * schedule``: the factor is a finite number, at least 0."""

    factor: float = field(metadata={"check": from_0})
    schedule: Schedule = field(metadata={"check": _schedule})

    def _factor(self, t: N) -> N:
        return self.factor * self.schedule._factor(t)

    @property
    def length(self) -> int | None:
        """That of the schedule."""
        return self.schedule.length

    def over(self, t: float) -> bool:
        """Return what the schedule says."""
        return self.schedule.over(t)

    def _sum(self, power: float, first: int) -> float:
        total = self.schedule._sum(power, first) if self.factor > 0.0 else 0.0
        return total if total == math.inf else finite(math.pow(self.factor, power) * total)


@final
@dataclass(frozen=True, slots=True)
class Product(Schedule):
    """``left(t) right(t)``, written ``left * right``, on one clock. Its infinite sum has no closed form here."""

    left: Schedule = field(metadata={"check": _schedule})
    right: Schedule = field(metadata={"check": _schedule})

    def _factor(self, t: N) -> N:
        return self.left._factor(t) * self.right._factor(t)

    @property
    def length(self) -> int | None:
        """That of the longer one; None if one has no end of its own."""
        ends = [self.left.length, self.right.length]
        return None if None in ends else max(end for end in ends if end is not None)

    def over(self, t: float) -> bool:
        """Return whether one of the two says so."""
        return self.left.over(t) or self.right.over(t)
