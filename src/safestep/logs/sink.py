"""What every sink is: the abstract class, and plain functions as sinks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from safestep.errors import AttachError
from safestep.records.report import StepReport


class Sink(ABC):
    """Takes every report of a guard, in order.

    Example:
        >>> class Prints(Sink):
        ...     def __call__(self, report):
        ...         print(report)
        >>> Prints().each_rank
        False
    """

    @property
    def each_rank(self) -> bool:
        """Whether it has the reports of every rank, rather than those of rank 0 alone."""
        return False

    def open(self) -> None:  # noqa: B027  # most have nothing to open
        """Open what it writes to, so that a file that cannot be written is told before training."""

    @abstractmethod
    def __call__(self, report: StepReport) -> None:
        """Take a report."""

    def close(self) -> None:  # noqa: B027
        """Write what is left, and close."""


@dataclass(frozen=True)
class Function(Sink):
    """A function that takes each report."""

    function: Callable[[StepReport], object]

    def __call__(self, report: StepReport) -> None:
        """Pass a report to the function."""
        self.function(report)

    def __repr__(self) -> str:
        return repr(self.function)


def as_sink(given: object, name: str) -> Sink:
    """Return a sink, or a function as one.

    Args:
        given: what the user gave.
        name: how it is called in an error.

    Raises:
        AttachError: for what is neither, and for an object that would be closed if it were a `Sink`.
    """
    if isinstance(given, Sink):
        return given
    if isinstance(given, type) or not callable(given):
        raise AttachError(
            f"{name}: expected a path, a sink such as safestep.logs.Csv(path) or any function that takes each report, "
            "or a list of them"
        )
    if extra := [method for method in ("open", "close", "each_rank") if hasattr(given, method)]:
        raise AttachError(f"{name} has {extra[0]}, which only a sink is asked for: derive it from safestep.logs.Sink")
    return Function(given)
