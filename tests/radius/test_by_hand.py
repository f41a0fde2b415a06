"""Guarded gradient descent against a recursion by hand: population moments, W = 0 at the start, no random numbers.

With x ~ U(0, 1) the second moments are M = E[xx'] = I/12 + 11'/4: eigenvalue 13/12 along u = (1, 1, 1, 1)/2 and 1/12
across it. From W = 0 the error of a linear student that learns y = A x stays c_1 A uu' + c_2 A (I - uu'), and gradient
descent multiplies each c by 1 - alpha eta lambda. Two numbers are the whole run; here they have thirty digits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch
from mpmath import mpf, sqrt, workdps

import safestep
from safestep import CurvatureRadius, SecantCurvature, Throttle, Watch

A = ((1.25, -0.75, 0.50, 0.20), (-0.40, 0.90, 1.10, -0.60))
ETA, GAIN, CHI, BETA = 0.5, 4, 1.5, 0.05
WARM_UP, DRIFTED = 20, 50


@pytest.fixture(autouse=True)
def thirty_digits():
    with workdps(30):
        yield


# -- by hand -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Modes:
    """The error in its two modes, for data with eigenvalues ``gain^2 (13/12, 1/12)``."""

    along: mpf
    across: mpf
    gain: int = 1

    @property
    def terms(self):
        """For each mode its eigenvalue, its coefficient, and the squared length of what the coefficient multiplies."""
        whole = mpf(sum(mpf(a) ** 2 for row in A for a in row))
        along = sum(mpf(sum(map(mpf, row))) ** 2 for row in A) / 4
        return (
            (self.gain**2 * mpf(13) / 12, self.along, along),
            (self.gain**2 * mpf(1) / 12, self.across, whole - along),
        )

    def moment(self, power):
        """Return ``<e, M^power e>``, by which loss, gradient and bend are known."""
        return sum(eigenvalue**power * c**2 * square for eigenvalue, c, square in self.terms)

    @property
    def loss(self):
        return self.moment(1) / 2

    @property
    def curvature_margin(self):
        """``2 r = p.Hp / (-g.p)`` of the raw step ``p = -eta g``."""
        return mpf(ETA) * self.moment(3) / self.moment(2)

    def after(self, alpha):
        along, across = (c * (1 - alpha * mpf(ETA) * eigenvalue) for eigenvalue, c, _ in self.terms)
        return replace(self, along=along, across=across)

    def drifted(self):
        """Return the error after ``x <- gain x`` with y kept, when the solution is ``A / gain``."""
        moved = 1 - mpf(1) / GAIN
        return Modes(self.along + moved, self.across + moved, GAIN)


def secant(now, before):
    """Return ``||g_t - g_{t-1}|| / ||theta_t - theta_{t-1}||`` of two errors on the same data."""
    pairs = zip(now.terms, before.terms, strict=True)
    moves = [(eigenvalue, a - b, square) for (eigenvalue, a, square), (_, b, _) in pairs]
    change = sum((eigenvalue * c) ** 2 * square for eigenvalue, c, square in moves)
    return sqrt(change / sum(c**2 * square for _, c, square in moves))


def margins_by_curvature():
    while True:
        now = yield
        yield now.curvature_margin


def margins_by_secant():
    before, mean, curvature = None, mpf(0), mpf(0)
    while True:
        now = yield
        if before not in {None, now}:  # where an alpha of 0 moved nothing the last curvature stands
            curvature = secant(now, before)
        mean, before = (1 - mpf(BETA)) * mean + mpf(BETA) * curvature, now
        yield mpf(ETA) * max(curvature, mean)


def clip(alpha):
    return min(max(alpha, mpf(0)), mpf(1))


def alphas(order):
    """Yield alpha for each margin sent in; order None applies every step as it is."""
    alpha, velocity, chi, gain, damping = mpf(0), mpf(0), mpf(CHI), mpf("0.1"), mpf("0.8")
    while True:
        margin = yield
        if order is None:
            alpha = mpf(1)
        elif order == 0:
            alpha = clip(chi / margin) if margin else mpf(1)
        elif order == 1:
            alpha = clip(alpha + gain * (chi - alpha * margin))
        else:
            velocity = damping * velocity + gain * (chi - alpha * margin)
            alpha = clip(alpha + velocity)
        yield alpha


def by_hand(start, margins, order, steps):
    """Return loss, margin and alpha of every step, and where the run ends."""
    law, now, lines = alphas(order), start, []
    for _ in range(steps):
        next(margins), next(law)
        margin = margins.send(now)
        alpha = law.send(margin)
        lines.append((now.loss, margin, alpha))
        now = now.after(alpha)
    return lines, now


# -- for real ----------------------------------------------------------------------------------------------------------


def data(gain):
    """Return four samples with X'X / 4 = gain^2 M exactly: the rows of twice the root of M."""
    root = torch.full((4, 4), 0.25 * (math.sqrt(13 / 12) - math.sqrt(1 / 12)), dtype=torch.float64)
    x = 2.0 * (root + math.sqrt(1 / 12) * torch.eye(4, dtype=torch.float64))
    return gain * x, x @ torch.tensor(A, dtype=torch.float64).T


class Student:
    def __init__(self):
        self.model = torch.nn.Linear(4, 2, bias=False, dtype=torch.float64)
        torch.nn.init.zeros_(self.model.weight)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=ETA)

    def descend(self, gain, radius, policy, steps):
        """Return loss, margin and alpha of every step."""
        x, y = data(gain)
        lines = []
        with safestep.attach(self.model, self.optimizer, radius=radius, policy=policy) as guard:
            for _ in range(steps):
                self.optimizer.zero_grad()
                loss = (self.model(x) - y).square().sum() / (2 * len(x))
                loss.backward()
                self.optimizer.step()
                lines.append((loss.item(), 2 * guard.last.ratio, guard.last.scale))
        return lines

    def modes(self, gain):
        """Return the error's coefficients along and across u, and how far it is from being these two modes alone."""
        a = torch.tensor(A, dtype=torch.float64)
        error = self.model.weight.detach() - a / gain
        u = torch.full((4, 4), 0.25, dtype=torch.float64)
        parts = (a @ u, a - a @ u)
        along, across = ((error * part).sum() / part.square().sum() for part in parts)
        left = error - along * parts[0] - across * parts[1]
        return float(along), float(across), float(left.norm())


def agree(real, hand):
    for step, (lines, expected) in enumerate(zip(real, hand, strict=True)):
        assert list(lines) == pytest.approx([float(number) for number in expected], rel=1e-9, abs=0), step


WARM = Modes(mpf(-1), mpf(-1))
RADII = {
    "curvature": (lambda: CurvatureRadius("half_mse"), margins_by_curvature),
    "secant": (lambda: SecantCurvature(beta=BETA), margins_by_secant),
}
ORDERS = [None, 0, 1, 2]


def policy_of(order):
    return Watch(Throttle(chi=CHI)) if order is None else Throttle(chi=CHI, order=order)


def test_the_data_have_the_moments_of_the_population():
    x, _ = data(GAIN)
    expected = GAIN**2 * (torch.eye(4).double() / 12 + torch.ones(4, 4).double() / 4)
    torch.testing.assert_close(x.T @ x / 4, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("order", ORDERS, ids="order {}".format)
@pytest.mark.parametrize("radius", RADII)
def test_the_warm_up_agrees_with_the_recursion(radius, order):
    make, margins = RADII[radius]
    student = Student()
    real = student.descend(1, make(), policy_of(order), WARM_UP)
    hand, end = by_hand(WARM, margins(), order, WARM_UP)
    agree(real, hand)
    assert student.modes(1) == pytest.approx((float(end.along), float(end.across), 0.0), rel=1e-9, abs=1e-14)


@pytest.mark.parametrize("order", ORDERS, ids="order {}".format)
@pytest.mark.parametrize("radius", RADII)
def test_the_drifted_run_agrees_with_the_recursion(radius, order):
    make, margins = RADII[radius]
    student = Student()
    student.descend(1, make(), Watch(), WARM_UP)
    _, warm = by_hand(WARM, margins(), None, WARM_UP)
    real = student.descend(GAIN, make(), policy_of(order), DRIFTED)
    hand, _ = by_hand(warm.drifted(), margins(), order, DRIFTED)
    agree(real, hand)


def test_the_recursion_says_what_was_published():
    """Loss 1.005 -> 0.0708 in the warm-up, x 58.9 a step without control, alpha 0.173 and less than 1e-6 with it."""
    warm_up, warm = by_hand(WARM, margins_by_secant(), None, WARM_UP)
    free, _ = by_hand(warm.drifted(), margins_by_secant(), None, 10)
    tamed, _ = by_hand(warm.drifted(), margins_by_secant(), 0, DRIFTED)
    assert free[9][0] / free[8][0] == pytest.approx(float((1 - mpf(ETA) * 16 * mpf(13) / 12) ** 2), rel=1e-3)
    assert tamed[0][2] == 1
    assert tamed[1][2] == pytest.approx(CHI / (ETA * 16 * 13 / 12), rel=0.03)
    assert tamed[-1][0] < 1e-6 < warm_up[-1][0]
    # with the secant of two modes alpha settles where both shrink equally
    assert tamed[-1][2] == pytest.approx(2 / (ETA * 16 * (13 / 12 + 1 / 12)), rel=0.01)


def test_the_curvature_on_the_batch_never_lets_the_loss_rise():
    _, warm = by_hand(WARM, margins_by_curvature(), None, WARM_UP)
    tamed, _ = by_hand(warm.drifted(), margins_by_curvature(), 0, DRIFTED)
    losses = [loss for loss, _, _ in tamed]
    assert all(after < before for before, after in pairwise(losses))
