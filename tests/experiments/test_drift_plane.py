"""The plane that is computed at once against real training, step by step and cell by cell."""

from __future__ import annotations

import math

import pytest
import torch

from safestep.experiments.drift.drift_plane import LAWS, NONE, SECANT, Protocol, simulate
from safestep.guard.attach import attach
from safestep.lab.affine_teacher import AffineTeacher
from safestep.lab.drift import half_mse
from safestep.policy import Throttle, Watch
from safestep.radius import CurvatureRadius, SecantCurvature
from zoo.crossing import LONG

TEACHER = AffineTeacher(seed=42)
RATES = torch.logspace(-2, 0.3, 41, dtype=torch.float64)
GAINS = torch.logspace(0, math.log10(4), 41, dtype=torch.float64)
PUBLISHED = Protocol(chi=1.0, steps=1000, limit=100.0)


def guard_of(law, chi, model, optimizer):
    policy = Throttle(chi=chi, order=SECANT.get(law, 0))
    radius = SecantCurvature() if law in SECANT else CurvatureRadius("half_mse")
    return attach(model, optimizer, radius=radius, policy=Watch(policy) if law == NONE else policy)


def trained(student, rate, gain, law, protocol):
    """Train one cell by torch.optim.SGD under a real guard; return whether it diverged, and its largest loss."""
    inputs, answers = TEACHER.drifted(gain).data(next(student.parameters()).dtype)
    optimizer = torch.optim.SGD(student.reset().parameters(), lr=rate)
    losses = []
    with guard_of(law, protocol.chi, student, optimizer):
        for _ in range(protocol.steps + 1):
            loss = half_mse(student(inputs), answers)
            losses.append(loss.item())
            if not losses[-1] <= protocol.limit:
                break
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()  # one more than the protocol asks for, which nobody looks at
    return not losses[-1] <= protocol.limit, max(losses)


def chosen_cells(diverged, side):
    """A lattice from border to border of the plane, and both sides of where its rows begin to diverge."""
    rows, columns = ([round(place * (count - 1) / (side - 1)) for place in range(side)] for count in diverged.shape)
    cells = {(row, column) for row in rows for column in columns}
    for row in rows:
        first = next((column for column, flag in enumerate(diverged[row]) if flag), 0)
        cells |= {(row, first), (row, max(first - 1, 0))}
    return sorted(cells)


@pytest.fixture(scope="module")
def planes():
    start = TEACHER.student(seed=7).matrices[0].detach()
    return {law: simulate(TEACHER, start, RATES, GAINS, law, PUBLISHED) for law in LAWS}


def share(flags):
    return flags.double().mean().item()


def test_without_a_throttle_what_diverges_is_what_theory_says(planes):
    beyond = GAINS[:, None].square() * RATES * TEACHER.lambda_max > 2
    assert share(beyond) == pytest.approx(0.281, abs=5e-4)
    assert share(planes["none"].diverged) == pytest.approx(0.281, abs=5e-4)
    wrong = (planes["none"].diverged != beyond).nonzero()
    assert len(wrong) <= 1  # so close to the limit that 1000 steps do not tell


def test_the_default_law_loses_no_cell_and_no_loss_ever_rises(planes):
    assert not planes["curvature"].diverged.any()
    assert torch.equal(planes["curvature"].peak_loss, planes["curvature"].first_loss)


def test_order_0_of_the_published_law_loses_cells_to_its_first_step_alone(planes):
    plane = planes["secant-0"]
    assert 0.018 <= share(plane.diverged) <= 0.12
    assert (plane.steps[plane.diverged] == 1).all()


def test_order_1_of_the_published_law_loses_what_is_beyond_its_own_limit(planes):
    beyond = 0.1 * GAINS[:, None].square() * RATES * TEACHER.lambda_max > 2
    lost = planes["secant-1"].diverged
    assert share(lost) == pytest.approx(0.014, abs=0.005)
    assert not (lost & ~beyond).any()


@pytest.mark.parametrize("law", LAWS)
def test_losses_are_those_of_a_guarded_optimizer_in_float64(law):
    student = TEACHER.student(seed=3, dtype=torch.float64)
    inputs, answers = TEACHER.drifted(4.0).data(torch.float64)
    start = student.matrices[0].detach().clone()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.5)
    losses = []
    with guard_of(law, 1.0, student, optimizer):
        for _ in range(20):
            loss = (student(inputs) - answers).square().sum() / (2 * len(inputs))
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    rate, gain = torch.tensor([0.5], dtype=torch.float64), torch.tensor([4.0], dtype=torch.float64)
    computed = [
        simulate(TEACHER, start, rate, gain, law, Protocol(1.0, steps, math.inf)).final_loss.item()
        for steps in range(20)
    ]
    assert computed == pytest.approx(losses, rel=1e-9)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(
    ("steps", "side", "close"),
    [(100, 2, 1e-4), pytest.param(1000, 4, 1e-2, marks=pytest.mark.skipif(not LONG, reason="of make test-long"))],
    ids=["few", "93 cells of all laws"],
)
def test_cells_spread_over_the_plane_end_as_in_real_training(planes, law, steps, side, close):
    student, protocol = TEACHER.student(seed=7), Protocol(PUBLISHED.chi, steps, PUBLISHED.limit)
    plane = simulate(TEACHER, student.matrices[0].detach(), RATES, GAINS, law, protocol)
    for row, column in chosen_cells(planes[law].diverged, side):
        diverged, peak = trained(student, RATES[column].item(), GAINS[row].item(), law, protocol)
        assert diverged == plane.diverged[row, column], (row, column)
        if not diverged:
            assert peak == pytest.approx(plane.peak_loss[row, column].item(), rel=close)


def test_a_run_that_diverged_keeps_what_it_stopped_at():
    start = torch.zeros(2, 4)
    rate, gain = torch.tensor([0.5]), torch.tensor([4.0])
    plane = simulate(TEACHER, start, rate, gain, "none", PUBLISHED)
    assert plane.diverged.item()
    assert plane.final_loss.item() == plane.peak_loss.item() > 100.0
    assert plane.steps.item() < 5


def test_nothing_left_to_learn_is_no_division_by_zero():
    start = TEACHER.reference
    for law in LAWS:
        plane = simulate(TEACHER, start, torch.tensor([0.5]), torch.tensor([1.0]), law, PUBLISHED)
        assert plane.final_loss.item() == 0.0
        assert not plane.diverged.item()
