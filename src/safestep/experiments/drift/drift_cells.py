"""Single cells of the drift map carried out for real, to check the plane that is computed at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from safestep.experiments.drift.drift_laws import NONE, Protocol, guard_of
from safestep.lab.affine_teacher import AffineTeacher
from safestep.lab.student import Student

Cell = tuple[int, int]
"""Row (gain) and column (rate) of a cell."""


@dataclass(frozen=True)
class Carried:
    """What became of one cell.

    Attributes:
        diverged: whether a loss was above the limit or not finite.
        peak_loss: the largest.
        final_loss: the last; of a run that diverged, the one it stopped at.
        steps: taken until it ended or diverged.
    """

    diverged: bool
    peak_loss: float
    final_loss: float
    steps: int


def carry_out(
    teacher: AffineTeacher,
    student: Student,
    rate: float,
    gain: float,
    law: str,
    protocol: Protocol,
) -> Carried:
    """Train a student by `torch.optim.SGD` on drifted data, under the guard of a law or, for "none", without any.

    Args:
        teacher: undrifted.
        student: put back to its start first.
        rate: learning rate.
        gain: of the drift.
        law: a name of `safestep.experiments.drift.drift_laws.LAWS`.
        protocol: aim of the throttle, steps, and the loss that ends a run.
    """
    inputs, answers = teacher.drifted(gain).data(next(student.parameters()).dtype)
    optimizer = torch.optim.SGD(student.reset().parameters(), lr=rate)
    guard = None if law == NONE else guard_of(law, protocol.chi, student, optimizer)
    loss = _loss(student, inputs, answers)
    last = peak = loss.item()
    taken = 0
    try:
        while taken < protocol.steps and last <= protocol.limit:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            taken += 1
            loss = _loss(student, inputs, answers)
            last = loss.item()
            peak = max(peak, last if math.isfinite(last) else math.inf)
    finally:
        if guard is not None:
            guard.detach()
    return Carried(not last <= protocol.limit, peak, last, taken)


def chosen_cells(diverged: Tensor, side: int) -> list[Cell]:
    """Return cells to check: a lattice from border to border of the plane, and where its rows begin to diverge.

    Args:
        diverged: flags of shape ``(gains, rates)``.
        side: of the lattice, at least 2.

    Returns:
        The cells, each once. Of every row of the lattice, also the last cell before its first that diverged, and that.

    Example:
        >>> chosen_cells(torch.tensor([[False, False, False], [False, False, True]]), side=2)
        [(0, 0), (0, 2), (1, 0), (1, 1), (1, 2)]
    """
    rows, columns = diverged.shape
    cells = {(row, column) for row in _spread(rows, side) for column in _spread(columns, side)}
    for row in _spread(rows, side):
        first = next((column for column in range(columns) if diverged[row, column]), 0)
        cells |= {(row, first), (row, max(first - 1, 0))}
    return sorted(cells)


def _spread(count: int, chosen: int) -> Sequence[int]:
    return [round(place * (count - 1) / (chosen - 1)) for place in range(chosen)]


def _loss(student: Student, inputs: Tensor, answers: Tensor) -> Tensor:
    loss: Tensor = (student(inputs) - answers).square().sum() / (2 * len(inputs))
    return loss
