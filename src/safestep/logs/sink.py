"""What every sink is: the abstract class, plain functions as sinks, and a sink for every rank."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from safestep.errors import AttachError
from safestep.records.report import StepReport


class Sink(ABC):
    """Takes every report of a guard, in order.

    Attributes:
        each_rank: whether it has the reports of every rank, rather than those of rank 0 alone.

    Example:
        >>> class Prints(Sink):
        ...     def __call__(self, report):
        ...         print(report)
        >>> Prints().each_rank
        False
    """

    each_rank: bool = False

    def open(self) -> None:  # noqa: B027  # most have nothing to open
        """Open what it writes to, so that a file that cannot be written is told before training."""

    @abstractmethod
    def __call__(self, report: StepReport) -> None:
        """Take a report."""

    def close(self) -> None:  # noqa: B027
        """Write what is left, and close."""


@dataclass(frozen=True)
class FunctionSink(Sink):
    """A function that takes each report."""

    function: Callable[[StepReport], object]

    def __call__(self, report: StepReport) -> None:
        """Pass a report to the function."""
        self.function(report)

    def __repr__(self) -> str:
        return repr(self.function)


class EachRank(Sink):
    """Lets a sink have the reports of every rank; any other gets those of rank 0 alone.

    Each rank needs a file of its own, such as ``EachRank(JsonLines(f"steps-{torch.distributed.get_rank()}.jsonl"))``.

    Args:
        sink: what the reports go to.

    Raises:
        AttachError: for a sink that cannot be called.

    Example:
        >>> EachRank(print)
        EachRank(<built-in function print>)
    """

    each_rank = True

    def __init__(self, sink: Sink | Callable[[StepReport], object]) -> None:
        self.sink = as_sink(sink, f"EachRank({sink!r})")

    def __call__(self, report: StepReport) -> None:
        """Pass a report on."""
        self.sink(report)

    def open(self) -> None:
        """Open the sink."""
        self.sink.open()

    def close(self) -> None:
        """Close the sink."""
        self.sink.close()

    def __repr__(self) -> str:
        return f"EachRank({self.sink!r})"


def as_sink(log: object, name: str) -> Sink:
    """Return a sink, or a function as one.

    Args:
        log: what the user passed.
        name: how it is called in an error.

    Raises:
        AttachError: for what is neither, and for an object that would be closed if it were a `Sink`.
    """
    if isinstance(log, Sink):
        return log
    if isinstance(log, type) or not callable(log):
        raise AttachError(
            f"{name}: expected a path, a sink such as safestep.logs.Csv(path) or any function that takes each report, "
            "or a list of them"
        )
    if extra := [method for method in ("open", "close", "each_rank") if hasattr(log, method)]:
        raise AttachError(f"{name} has {extra[0]}, which only a sink is asked for: derive it from safestep.logs.Sink")
    return FunctionSink(log)
