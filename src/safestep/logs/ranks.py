"""Who writes, of several processes."""

from __future__ import annotations

import torch

from safestep.errors import AttachError
from safestep.records.report import Sink, StepReport


def leads() -> bool:
    """Return whether this process is the one that writes: rank 0, or the only one.

    Example:
        >>> leads()
        True
    """
    distributed = torch.distributed
    return not (distributed.is_available() and distributed.is_initialized()) or distributed.get_rank() == 0


def on_each_rank(sink: Sink) -> bool:
    """Return whether a sink is for every rank."""
    return bool(getattr(sink, "each_rank", False))


class EachRank:
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

    def __init__(self, sink: Sink) -> None:
        if not callable(sink) or isinstance(sink, type):
            raise AttachError(f"EachRank({sink!r}): expected a sink, such as safestep.logs.JsonLines(path)")
        self.sink = sink

    def __call__(self, report: StepReport) -> None:
        """Pass a report on."""
        self.sink(report)

    def open(self) -> None:
        """Open the sink, where it can be opened."""
        if (opens := getattr(self.sink, "open", None)) is not None:
            opens()

    def close(self) -> None:
        """Close the sink, where it can be closed."""
        if (closes := getattr(self.sink, "close", None)) is not None:
            closes()

    def __repr__(self) -> str:
        return f"EachRank({self.sink!r})"
