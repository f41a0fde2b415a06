"""Runs a row far outside the radius and says what came out: how r was measured, or why it was refused."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from loops.row import Loop, Row, quiet
from safestep import Status, StepReport
from zoo import Scene

STEPS = 3


@dataclass(frozen=True)
class Step:
    """One step of the loop.

    Attributes:
        report: the guard's; None if nobody called the optimizer, or it moved nothing.
        truth: r of what the step did to the parameters.
        moved: whether it did anything.
    """

    report: StepReport | None
    truth: float
    moved: bool


@dataclass(frozen=True)
class Observed:
    """What some steps came to.

    Attributes:
        steps: those that ended.
        error: what ended the loop before its time, or an empty text.
        left: whether the parameters were left elsewhere then than before the step that failed.
    """

    steps: tuple[Step, ...]
    error: str = ""
    left: bool = False

    @property
    def way(self) -> str:
        """How r was measured, for the table."""
        ways = dict.fromkeys(step.report.method.split("/")[0] for step in self.steps if step.report)
        return "refused" if self.error else ", ".join(ways)


def observe(row: Row, method: str) -> Observed:
    """Run three steps at a big rate under Cap(1)."""
    loop, steps = Loop(row, row.recipe, big=True), list[Step]()
    start = loop.parameters()
    try:
        guard = loop.attach(method=method)
        for _ in range(STEPS):
            scene, start, known = Scene.of(loop), loop.parameters(), len(guard.history)
            loop.step()
            moved = _difference(start, loop.parameters())
            any_moved = any(bool(p.any()) for p in moved.values())
            with quiet():
                truth = row.truth(loop, scene, moved, method) if any_moved else 0.0
            taken = len(guard.history) > known and guard.last.status is not Status.STILL
            steps.append(Step(guard.last if taken else None, truth, any_moved))
    except Exception as error:  # whatever it is, it has to be what the row says
        left = _difference(start, loop.parameters())
        return Observed(tuple(steps), f"{type(error).__name__}: {error}", any(bool(p.any()) for p in left.values()))
    return Observed(tuple(steps))


def _difference(start: dict[str, Tensor], end: dict[str, Tensor]) -> dict[str, Tensor]:
    wide = {torch.complex64: torch.complex128}
    return {
        name: p.to(wide.get(p.dtype, torch.float64)) - start[name].to(wide.get(p.dtype, torch.float64))
        for name, p in end.items()
    }
