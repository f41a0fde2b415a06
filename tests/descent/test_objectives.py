"""Objectives: their derivatives against differences and dense Hessians, their minima, and what they refuse."""

from __future__ import annotations

import pytest
import torch

from safestep.descent import (
    PLANE,
    VALLEY,
    Beale,
    Bowls,
    DescentError,
    Function,
    LeastSquares,
    Quadratic,
    Rosenbrock,
    Saddle,
    Terms,
    simulate,
)

X = torch.tensor([[0.3, -0.7], [1.2, 0.4], [-0.9, 1.1]], dtype=torch.float64)
P = torch.tensor([[0.5, 0.1], [-1.0, 2.0], [0.3, -0.4]], dtype=torch.float64)


def regression(rows=12):
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(rows, 2, generator=generator, dtype=torch.float64)
    return LeastSquares(inputs, inputs @ torch.tensor([1.0, -2.0]).double() + 0.1, start=(0.0, 0.0))


OBJECTIVES = {
    "plane": PLANE,
    "valley": VALLEY,
    "tilted": Quadratic(((3.0, 1.0), (1.0, 2.0)), (1.0, 1.0), minimum=(0.5, -0.5)),
    "raised": Quadratic((3.0, 2.0), (1.0, 1.0), least=-4.0),
    "rosenbrock": Rosenbrock(),
    "rosenbrock-3": Rosenbrock(10.0, (0.0, 0.0, 0.0)),
    "beale": Beale(),
    "saddle": Saddle(),
    "function": Function(lambda x: (x.sin() * x.flip(-1)).sum(-1), (0.0, 0.0)),
    "coordinates": Function.of_coordinates(lambda a, b: a.exp() * b**2, (0.0, 0.0)),
    "linear": Function(lambda x: 3 * x[..., 0] - x[..., 1], (0.0, 0.0)),
    "bowls": Bowls.scattered(9, ((3.0, 1.0), (1.0, 2.0)), (0.0, 0.0)),
    "regression": regression(),
    "terms": Terms(lambda x, s: (x - s).square().sum(-1).log1p(), X, (0.0, 0.0)),
}


def points(objective):
    extra = objective.dimension - 2
    return tuple(torch.cat([t, t[:, :1].expand(-1, extra)], 1) if extra else t for t in (X, P))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_gradient_is_what_differences_say(name):
    objective, step = OBJECTIVES[name], 1e-6
    x, p = points(objective)
    slope = (objective.value(x + step * p) - objective.value(x - step * p)) / (2 * step)
    torch.testing.assert_close((objective.gradient(x) * p).sum(-1), slope, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_bend_is_that_of_the_dense_hessian(name):
    objective = OBJECTIVES[name]
    x, p = points(objective)
    for row, along, bend in zip(x, p, objective.bend(x, p), strict=True):
        hessian = torch.autograd.functional.hessian(lambda point: objective.value(point[None])[0], row)
        torch.testing.assert_close(bend, along @ hessian @ along)


@pytest.mark.parametrize("name", [name for name, one in OBJECTIVES.items() if one.minimum is not None])
def test_the_gradient_vanishes_at_the_minimum(name):
    objective = OBJECTIVES[name]
    at = torch.tensor([objective.minimum], dtype=torch.float64)
    assert objective.gradient(at).abs().max() < 1e-12
    away = at + 1e-3 * torch.randn(50, objective.dimension, generator=torch.Generator().manual_seed(0)).double()
    assert (objective.value(away) > objective.value(at)).all()


@pytest.mark.parametrize("name", ["bowls", "regression", "terms"])
def test_a_batch_of_every_sample_is_the_whole_sum(name):
    objective = OBJECTIVES[name]
    every = objective.samples.expand(len(X), -1, -1)
    torch.testing.assert_close(objective.batch_gradient(X, every), objective.gradient(X))
    torch.testing.assert_close(objective.batch_bend(X, P, every), objective.bend(X, P))


@pytest.mark.parametrize("name", ["bowls", "regression"])
def test_the_affine_pieces_are_the_gradients_of_single_samples(name):
    objective = OBJECTIVES[name]
    hessians, offsets = objective.affine()
    for sample, hessian, offset in zip(objective.samples, hessians, offsets, strict=True):
        single = objective.batch_gradient(X, sample.expand(len(X), 1, -1))
        torch.testing.assert_close(single, X @ hessian - offset)


@pytest.mark.parametrize("name", ["bowls", "regression"])
def test_the_whole_of_quadratics_is_the_mean_of_their_terms(name):
    objective = OBJECTIVES[name]
    torch.testing.assert_close(objective.value(X), objective.on(X, objective.samples))


def test_a_regression_with_fewer_samples_than_variables_is_flat_along_the_rest():
    inputs = torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 1.0]], dtype=torch.float64)
    wide = LeastSquares(inputs, torch.tensor([3.0, -1.0]), (0.0, 0.0, 0.0))
    assert inputs @ torch.tensor(wide.minimum, dtype=torch.float64) == pytest.approx([3.0, -1.0])
    along = torch.tensor([[2.0, -1.0, 1.0]], dtype=torch.float64)  # orthogonal to both samples
    at = torch.tensor([wide.minimum], dtype=torch.float64)
    torch.testing.assert_close(wide.value(at + 5 * along), wide.value(at), atol=1e-12, rtol=0)
    torch.testing.assert_close(wide.gradient(at + along), torch.zeros(1, 3).double(), atol=1e-12, rtol=0)


def test_a_large_sum_is_evaluated_in_pieces_and_means_the_same(monkeypatch):
    objective = Terms(lambda x, s: (x - s).square().sum(-1).log1p(), torch.randn(100, 2).double(), (0.0, 0.0))
    whole, slope = objective.value(X), objective.gradient(X)
    monkeypatch.setattr("safestep.descent.finite_sum._NUMBERS", 300)
    torch.testing.assert_close(objective.value(X), whole)
    torch.testing.assert_close(objective.gradient(X), slope)


def test_scattered_bowls_have_the_covariance_asked_for():
    bowls = Bowls.scattered(40, (2.0, 4.0), (-5.0, -2.0), scale=3.0, seed=2)
    single = bowls.batch_gradient(torch.zeros(40, 2).double(), bowls.samples[:, None])
    torch.testing.assert_close(single.T @ single / 40, 9 * torch.eye(2).double())
    assert bowls.minimum == pytest.approx((0.0, 0.0), abs=1e-12)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Rosenbrock(start=(1.0,)), "two numbers or more"),
        (lambda: Beale(start=(1.0, 2.0, 3.0)), "expected two numbers"),
        (lambda: Saddle(start=(1.0,)), "expected two numbers"),
        (lambda: Quadratic((1.0,), (0.0,), least=float("inf")), "finite"),
        (lambda: Quadratic((1.0, 2.0, 3.0), (0.0, 0.0)), r"\(3,\), start of \(2,\)"),
        (lambda: Quadratic(((1.0, 2.0), (0.0, 1.0)), (0.0, 0.0)), "symmetric"),
        (lambda: Quadratic((1.0, float("nan")), (0.0, 0.0)), "finite"),
        (lambda: Quadratic((1.0,), (0.0,), minimum=(1.0, 2.0)), "minimum of"),
        (lambda: Bowls(torch.zeros(3, 2), (1.0,), (0.0, 0.0)), "Hessian of"),
        (lambda: Bowls(torch.zeros(0, 2), (1.0, 1.0), (0.0, 0.0)), "samples of shape"),
        (lambda: Bowls.scattered(2, (1.0, 1.0), (0.0, 0.0)), "more samples than variables"),
        (lambda: LeastSquares(torch.zeros(3, 2), torch.zeros(4), (0.0, 0.0)), r"answers of \(4,\)"),
        (lambda: Terms(lambda x, s: x, torch.zeros(3), (0.0,)), "one sample a row"),
    ],
)
def test_what_does_not_go_together_is_refused(make, said):
    with pytest.raises(DescentError, match=said):
        make()


@pytest.mark.parametrize(
    ("f", "gradient", "said"),
    [
        (
            lambda x: x,
            None,
            r"value at x of shape \(3, 2\) is of shape \(3, 2\): expected a tensor of shape \(3,\)",
        ),
        (lambda x: x[0] ** 2, None, r"expected a tensor of shape \(3,\)"),
        (lambda x: 1.0, None, "is of float"),
        (lambda x: x[..., 2], None, r"IndexError.*of_coordinates"),
        (lambda x, y: x, None, "TypeError"),
        (lambda x: torch.full(x.shape[:-1], 2.0), None, "do not depend on x"),
        (lambda x: x.sum(-1) / x.norm(), None, "depends on the rows beside it"),
        (lambda x: x.sum(-1).log(), None, r"the value at the start \[-1.0, -2.0\] is nan"),
        (lambda x: x.sum(-1), lambda x: x.sum(-1), "the gradient at x"),
        (lambda x: x.sum(-1), lambda x: x * float("inf"), r"the gradient at the start .* is \[-inf, -inf\]"),
        (lambda x: x.sum(-1), lambda x: x - x.mean(0), "the gradient of one row depends on the rows"),
    ],
)
def test_a_function_that_is_none_is_told_before_the_descent(f, gradient, said):
    with pytest.raises(DescentError, match=said):
        simulate(Function(f, (-1.0, -2.0), gradient))
