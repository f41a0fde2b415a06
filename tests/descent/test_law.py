"""The exact law: against the scalar recursion, 30 digits, every possible run of a small problem, and its limits."""

from __future__ import annotations

import math
from itertools import chain, combinations, permutations, product

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safestep.descent import (
    PLANE,
    Batches,
    Beale,
    Bowls,
    DescentError,
    Gaussian,
    LeastSquares,
    Noise,
    Quadratic,
    Terms,
    exact_law,
    stationary_law,
)

TILTED = Quadratic(((3.0, 1.0), (1.0, 2.0)), (4.0, -1.0), minimum=(0.5, 0.25))
COVARIANCE = ((2.0, -1.2), (-1.2, 1.0))
BOWLS = Bowls(torch.tensor([[1.0, 0.0], [-2.0, 1.0], [0.5, -3.0], [0.0, 0.7], [2.0, 2.0]]), TILTED.hessian, (4.0, -1.0))
LINE = LeastSquares(
    torch.tensor([[1.0, 0.2], [-0.5, 1.0], [0.3, -1.4], [2.0, 0.1]]), torch.tensor([1.0, -1.0, 0.5, 2.0]), (1.0, 1.0)
)
RATES = [0.3, 0.05, 0.2, 0.1]
rates = st.lists(st.floats(0.0, 0.6), min_size=1, max_size=30)


def assert_close(found, expected, tolerance=1e-12):
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=torch.float64), rtol=tolerance, atol=tolerance)


@given(rates=rates, scale=st.floats(0.0, 3.0), batch=st.integers(1, 8))
def test_on_the_plane_it_is_the_recursion_of_the_note(rates, scale, batch):
    law = exact_law(PLANE, rates, noise=Gaussian(scale, batch=batch))
    for axis, (h, start) in enumerate(((2.0, -5.0), (4.0, -2.0))):
        m, v = start, 0.0
        for step, rate in enumerate(rates, 1):
            m, v = (1 - rate * h) * m, (1 - rate * h) ** 2 * v + rate**2 * scale**2 / batch
            assert law.mean[step, axis].item() == pytest.approx(m, rel=1e-10, abs=1e-12)
            assert law.variance[step, axis].item() == pytest.approx(v, rel=1e-10, abs=1e-12)
    expected = sum(c * (law.mean[:, i] ** 2 + law.variance[:, i]) for i, c in enumerate((1.0, 2.0)))
    assert_close(law.loss, expected, 1e-10)


def test_the_published_means_and_the_off_by_one():
    for first, end in ((2, -0.826), (1, -0.676)):
        factors = [0.1 * math.exp(-0.1 * (first + k)) for k in range(1000)]
        law = exact_law(PLANE, factors)
        assert law.mean[-1, 0].item() == pytest.approx(end, abs=5e-4)
        with mpmath.workdps(30):
            exact = -5 * mpmath.fprod(1 - mpmath.exp(-mpmath.mpf(first + k) / 10) / 5 for k in range(1000))
        assert law.mean[-1, 0].item() == pytest.approx(float(exact), rel=1e-12)


@given(rates=rates, angle=st.floats(0.0, 6.3), scales=st.tuples(st.floats(0.0, 2.0), st.floats(0.0, 2.0)))
def test_a_rotation_of_everything_rotates_the_law(rates, angle, scales):
    c, s = math.cos(angle), math.sin(angle)
    turn = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    start = torch.tensor([-5.0, -2.0], dtype=torch.float64)
    noise = torch.tensor(scales, dtype=torch.float64).square().diag()
    h = turn @ torch.tensor([2.0, 4.0], dtype=torch.float64).diag() @ turn.T
    sigma = turn @ noise @ turn.T
    straight = exact_law(PLANE, rates, noise=Gaussian(covariance=noise))
    turned = exact_law(Quadratic((h + h.T) / 2, turn @ start), rates, noise=Gaussian(covariance=(sigma + sigma.T) / 2))
    assert_close(turned.mean, straight.mean @ turn.T, 1e-9)
    assert_close(turned.covariance, turn @ straight.covariance @ turn.T, 1e-9)
    assert_close(turned.loss, straight.loss, 1e-9)
    assert_close(turned.loss_variance, straight.loss_variance, 1e-8)


def every_run(objective, draw, size, steps):
    """Return the points of every possible run, all equally likely, shape (runs, d): the law by enumeration."""
    n = len(objective.samples)
    batches = list(product(range(n), repeat=size) if draw == "replacement" else combinations(range(n), size))
    if draw != "epochs":
        histories = list(product(batches, repeat=steps))
    else:
        per = n // size
        one = [[order[i * size : (i + 1) * size] for i in range(per)] for order in permutations(range(n))]
        epochs = product(one, repeat=math.ceil(steps / per))
        histories = [list(chain.from_iterable(history))[:steps] for history in epochs]
    x = torch.tensor(objective.start, dtype=torch.float64).expand(len(histories), -1)
    for step in range(steps):
        chosen = objective.samples[torch.tensor([history[step] for history in histories])]
        x = x - RATES[step] * objective.batch_gradient(x, chosen)
    return x


@pytest.mark.parametrize(
    ("objective", "draw", "size", "steps"),
    [
        (BOWLS, "replacement", 1, 4),
        (BOWLS, "replacement", 2, 3),
        (BOWLS, "distinct", 2, 4),
        (BOWLS, "distinct", 4, 4),
        (BOWLS, "distinct", 5, 3),
        (BOWLS, "epochs", 1, 4),
        (BOWLS, "epochs", 2, 4),
        (BOWLS, "epochs", 5, 2),
        (LINE, "replacement", 1, 4),
        (LINE, "replacement", 2, 3),
        (LINE, "distinct", 2, 4),
        (LINE, "distinct", 3, 4),
    ],
    ids=lambda value: str(value) if isinstance(value, (str, int)) else type(value).__name__,
)
def test_mini_batches_are_the_average_over_every_possible_run(objective, draw, size, steps):
    x = every_run(objective, draw, size, steps)
    law = exact_law(objective, RATES[:steps], noise=Batches(size, draw))
    assert_close(law.mean[-1], x.mean(0))
    assert_close(law.covariance[-1], (x - x.mean(0)).T @ (x - x.mean(0)) / len(x))
    assert_close(law.loss[-1], objective.value(x).mean())
    assert law.loss_variance is None


@given(noise=st.sampled_from([None, Gaussian(0.0), Gaussian(covariance=((0.0, 0.0), (0.0, 0.0)))]), rates=rates)
def test_without_noise_nothing_spreads(noise, rates):
    law = exact_law(TILTED, rates, noise=noise)
    assert not law.covariance.any()
    assert_close(law.loss, TILTED.value(law.mean))


@given(batch=st.integers(1, 50), rates=rates)
def test_a_batch_divides_the_variance(batch, rates):
    one, many = (exact_law(TILTED, rates, noise=Gaussian(covariance=COVARIANCE, batch=b)) for b in (1, batch))
    assert_close(many.covariance, one.covariance / batch)
    assert_close(many.mean, one.mean)


@given(rates=rates)
def test_the_variance_of_the_loss_is_that_of_a_gaussian_form(rates):
    """Against the scalar closed form: f = h x^2 / 2 with x ~ N(m, v) has variance h^2 (v^2 / 2 + m^2 v)."""
    bowl = Quadratic((3.0,), (2.0,))
    law = exact_law(bowl, rates, noise=Gaussian(0.7))
    m, v = law.mean[:, 0], law.variance[:, 0]
    assert_close(law.loss_variance, 9 * (v.square() / 2 + m.square() * v), 1e-10)


@given(rate=st.floats(1e-3, 0.49), scale=st.floats(0.1, 3.0))
def test_the_stationary_variance_is_the_closed_form(rate, scale):
    found = stationary_law(PLANE, rate, Gaussian(scale))
    for axis, h in enumerate((2.0, 4.0)):
        assert found.variance[axis].item() == pytest.approx(rate * scale**2 / (h * (2 - rate * h)), rel=1e-9)
    assert found.loss.item() == pytest.approx(sum(rate * scale**2 / (2 * (2 - rate * h)) for h in (2.0, 4.0)), rel=1e-9)
    assert found.mean.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("objective", "noise"),
    [
        (TILTED, Gaussian(covariance=COVARIANCE)),
        (BOWLS, Batches(2)),
        (BOWLS, Batches(2, "distinct")),
        (LINE, Batches(1)),
        (LINE, Batches(3, "distinct")),
    ],
    ids=str,
)
def test_the_stationary_law_is_where_the_recursion_ends(objective, noise):
    found = stationary_law(objective, 0.1, noise)
    law = exact_law(objective, [0.1] * 2000, noise=noise, at=[2000])
    assert_close(law.mean[0], found.mean, 1e-9)
    assert_close(law.covariance[0], found.covariance, 1e-9)
    assert_close(law.loss[0], found.loss, 1e-9)


@pytest.mark.parametrize("rate", [0.5, 0.6, 5.0])
def test_beyond_the_limit_nothing_settles(rate):
    found = stationary_law(PLANE, rate, Gaussian())
    assert found.loss == math.inf
    assert (found.covariance == math.inf).all()


def test_batches_of_different_curvature_settle_only_at_smaller_rates_than_their_mean_does():
    limit = 2 / torch.linalg.eigvalsh(LINE.matrix)[-1].item()
    assert stationary_law(LINE, 0.9 * limit, Batches(4, "distinct")).loss < math.inf  # all samples: plain descent
    assert stationary_law(LINE, 0.9 * limit, Batches(1)).loss == math.inf


def test_chosen_steps_are_those_of_all_steps():
    every = exact_law(TILTED, RATES, noise=Gaussian())
    some = exact_law(TILTED, RATES, noise=Gaussian(), at=[0, 3, 1])
    assert some.at.tolist() == [0, 3, 1]
    assert torch.equal(some.mean, every.mean[[0, 3, 1]])
    assert exact_law(TILTED, []).mean.tolist() == [list(TILTED.start)]


class Salt(Noise):
    def losses(self, objective, runs, generator):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: exact_law(Beale(), [0.1]), "no exact law for Beale"),
        (lambda: exact_law(Terms(lambda x, s: x.sum(-1), torch.zeros(3, 1), (0.0,)), [0.1]), "no exact law for Terms"),
        (lambda: exact_law(PLANE, [0.1], noise=Salt()), "no exact law for .*Salt"),
        (lambda: exact_law(PLANE, [0.1], noise=Batches(2)), "Batches of a finite sum"),
        (lambda: exact_law(LINE, [0.1], noise=Batches(2, "epochs")), "curvatures differ"),
        (lambda: exact_law(PLANE, 0.1), "expected one rate a step"),
        (lambda: exact_law(PLANE, [0.1], start=(1.0,)), "start of"),
        (lambda: exact_law(PLANE, [0.1], at=[2]), "steps from 0 to 1"),
        (lambda: exact_law(PLANE, [0.1], at=[0.7]), "steps from 0 to 1"),
        (lambda: exact_law(BOWLS, [0.1], noise=Batches(9, "distinct")), "at most all"),
        (lambda: stationary_law(BOWLS, 0.1, Batches(2, "epochs")), "changes within every epoch"),
        (lambda: stationary_law(PLANE, -0.1), "rate = -0.1"),
        (lambda: stationary_law(PLANE, math.nan), "rate = nan"),
    ],
)
def test_where_no_law_is_known_that_is_said(ask, said):
    with pytest.raises(DescentError, match=said):
        ask()
