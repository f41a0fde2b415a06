"""The sink for TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from safestep._torch.extras import need
from safestep.logs.columns import numbers
from safestep.logs.every import is_lost
from safestep.logs.sink import Sink
from safestep.records.report import StepReport


class TensorBoard(Sink):
    """A sink that writes the numbers of each report as scalars, and the steps nobody should miss as texts.

    The tags are ``safestep/ratio``, ``safestep/scale`` and so on, the step is the guard's. Numbers that are not finite
    are written as they are; TensorBoard marks them by triangles. ``safestep/lost`` holds, as a text, each step that was
    undone, skipped, held, not finite or not measured.

    In a directory that holds event files of this prefix alone, a run that goes on from an older checkpoint hides what
    was written there from that step on, as TensorBoard's own restarts do. Beside files of others, another guard's too,
    it hides nothing: TensorBoard would hide theirs with it.

    Args:
        to: the directory of the run, made if missing; or a ``SummaryWriter`` of yours, which is flushed but never
            closed.
        prefix: the first part of every tag; two guards that share a directory need one each.

    Raises:
        MissingExtraError: if tensorboard is not installed.

    Example:
        >>> TensorBoard("runs/first")
        TensorBoard('runs/first')
    """

    def __init__(self, to: str | Path | Any, *, prefix: str = "safestep") -> None:
        need("tensorboard", "tensorboard")
        self.prefix, self._to = prefix, to
        self._writer: Any = None if isinstance(to, (str, Path)) else to

    def open(self) -> None:
        """Make the directory, if it is missing."""
        if isinstance(self._to, (str, Path)):
            Path(self._to).mkdir(parents=True, exist_ok=True)

    def __call__(self, report: StepReport) -> None:
        """Write a report."""
        if self._writer is None:
            self._writer = self._start(report.step)
        for name, value in numbers(report).items():
            self._writer.add_scalar(f"{self.prefix}/{name}", value, report.step)
        if is_lost(report):
            self._writer.add_text(f"{self.prefix}/lost", str(report), report.step)
            self._writer.flush()  # what ends a run is often what follows

    def close(self) -> None:
        """Write out what is pending, and close the event file if it is this sink's."""
        if self._writer is not None:
            self._writer.flush()
        if self._writer is not self._to and self._writer is not None:
            self._writer.close()
            self._writer = None

    def __repr__(self) -> str:
        return f"TensorBoard({str(self._to) if isinstance(self._to, Path) else self._to!r})"

    def _start(self, step: int) -> Any:
        before = list(Path(self._to).glob("*tfevents*"))
        ours = f".{quote(self.prefix, safe='')}.safestep"
        purge = step if before and all(file.name.endswith(ours) for file in before) else None
        writers = need("torch.utils.tensorboard", "tensorboard")
        return writers.SummaryWriter(str(self._to), purge_step=purge, filename_suffix=ours)
