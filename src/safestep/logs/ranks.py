"""Who writes, of several processes."""

from __future__ import annotations

from collections.abc import Callable

import torch

from safestep.logs.sink import Sink, as_sink
from safestep.records.report import StepReport


def leads() -> bool:
    """Return whether this process is the one that writes: rank 0, or the only one.

    Example:
        >>> leads()
        True
    """
    distributed = torch.distributed
    return not (distributed.is_available() and distributed.is_initialized()) or distributed.get_rank() == 0


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

    def __init__(self, sink: Sink | Callable[[StepReport], object]) -> None:
        self.sink = as_sink(sink, f"EachRank({sink!r})")

    @property
    def each_rank(self) -> bool:
        """True."""
        return True

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
