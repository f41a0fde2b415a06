"""The ends of a Hessian's spectrum against dense eigenvalues, and what is recorded of them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call, hessian

import safestep
from safestep.errors import MeasurementError
from safestep.tools.diagnostics import Sharpness
from safestep.tools.diagnostics.hessian_products import Hessian, Lanczos

SIGNS = {"positive": (0.1, 5.0), "negative": (-5.0, -0.1), "indefinite": (-3.0, 4.0), "mostly negative": (-9.0, 0.5)}


def symmetric(low, high, size, seed, dtype=torch.float64):
    """A random symmetric matrix whose spectrum ends at low and high, and is drawn in between."""
    generator = torch.Generator().manual_seed(seed)
    inside = low + (high - low) * torch.rand(size, generator=generator, dtype=torch.float64)
    inside[0], inside[1] = low, high
    basis = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))[0]
    return ((basis * inside) @ basis.T).to(dtype)


class Quadratic(nn.Module):
    """``w.Hw / 2``."""

    def __init__(self, matrix):
        super().__init__()
        self.matrix = matrix
        self.w = nn.Parameter(torch.linspace(0.5, 1.5, len(matrix), dtype=matrix.dtype))

    def forward(self):
        return (self.w @ self.matrix @ self.w / 2).reshape(1, 1)


def recorded(model, loss, *, steps=1, rate=1e-3, each=lambda step: None, **options):
    """Train on a loss without data and return the columns of every step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    sharpness = Sharpness(loss, **options)
    radius = safestep.radius.SecantCurvature()  # looks at no logits
    with safestep.attach(model, optimizer, radius=radius, policy=safestep.Watch(), diagnostics=[sharpness]) as guard:
        for step in range(steps):
            each(step)
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
        return [report.extras for report in guard.history]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("size", [3, 8, 100, 300])
@pytest.mark.parametrize("ends", SIGNS.values(), ids=SIGNS.keys())
def test_quadratics_of_every_sign(ends, size, dtype):
    model = Quadratic(symmetric(*ends, size, seed=size, dtype=dtype))
    for columns in recorded(model, lambda: model().sum(), steps=3):
        assert columns["hessian_lambda_min"] == pytest.approx(ends[0], rel=1e-3)
        assert columns["hessian_lambda_max"] == pytest.approx(ends[1], rel=1e-3)
        assert columns["hessian_spectral_norm"] == pytest.approx(max(map(abs, ends)), rel=1e-3)


@given(
    st.floats(-10.0, 10.0), st.floats(0.1, 10.0), st.integers(3, 60), st.integers(0, 10**6), st.sampled_from([2, 10**3])
)
def test_random_quadratics(low, width, size, seed, dense):
    """To 1e-3 of the spectral norm, wherever the ends are; from ``dense=2`` on it is Lanczos."""
    matrix = symmetric(low, low + width, size, seed)
    model = Quadratic(matrix)
    (columns,) = recorded(model, lambda: model().sum(), dense=dense)
    norm = max(abs(low), abs(low + width))
    assert columns["hessian_lambda_min"] == pytest.approx(low, abs=1e-3 * norm)
    assert columns["hessian_lambda_max"] == pytest.approx(low + width, abs=1e-3 * norm)


@given(st.floats(-20.0, 20.0), st.integers(0, 1000))
def test_lanczos_scales_and_shifts_with_the_matrix(exponent, seed):
    matrix, factor = symmetric(-1.0, 3.0, 90, seed), 10.0**exponent
    low, high = Lanczos().ends(lambda v: factor * (matrix @ v), 90)
    assert low == pytest.approx(-factor, rel=1e-3)
    assert high == pytest.approx(3.0 * factor, rel=1e-3)
    low, high = Lanczos().ends(lambda v: matrix @ v + v, 90)
    assert low == pytest.approx(0.0, abs=1e-3)
    assert high == pytest.approx(4.0, rel=1e-3)


@pytest.mark.parametrize("factor", [256.0, 1e4, 1 / 256.0, -256.0, -1.0])
def test_a_warm_start_survives_a_jump_of_the_matrix(factor):
    matrix = symmetric(0.1, 3.0, 120, seed=1)
    lanczos = Lanczos()
    lanczos.ends(lambda v: matrix @ v, 120)
    wanted = sorted([0.1 * factor, 3.0 * factor])
    for _ in range(2):
        assert lanczos.ends(lambda v: factor * (matrix @ v), 120) == pytest.approx(wanted, rel=2e-3)


def test_a_warm_start_costs_fewer_products():
    """The point of it: the second look at the same matrix is cheaper than the first."""
    matrix, made = symmetric(-2.0, 3.0, 400, seed=1), []

    def product(v):
        made.append(1)
        return matrix @ v

    lanczos = Lanczos()
    counts = []
    for _ in range(2):
        made.clear()
        lanczos.ends(product, 400)
        counts.append(len(made))
    assert counts[1] < counts[0] / 2


@pytest.mark.parametrize("size", [5, 90])
@pytest.mark.parametrize("weight", [0.0, 2.0])
def test_flat_directions(size, weight):
    """A loss that bends in one direction, or in none."""
    model = nn.Linear(size, 1, bias=False)
    x = torch.zeros(1, size)
    x[0, 1] = 1.0
    (columns,) = recorded(model, lambda: weight * model(x).square().sum() + model(x).sum())
    assert columns["hessian_lambda_min"] == pytest.approx(0.0, abs=1e-4)
    assert columns["hessian_lambda_max"] == pytest.approx(2 * weight, rel=1e-4)


def network():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(5, 12), nn.Tanh(), nn.Linear(12, 3))


@pytest.mark.parametrize("dense", [2, 1000], ids=["lanczos", "dense"])
def test_a_small_network_along_its_training(dense):
    """Against torch.func, where every step started."""
    model, x, y = network(), torch.randn(20, 5), torch.randint(0, 3, (20,))
    wanted = []

    def look(_):
        start = {name: p.detach().double() for name, p in model.named_parameters()}
        sizes = [p.numel() for p in start.values()]

        def loss(flat):
            pieces = {n: f.view_as(p) for (n, p), f in zip(start.items(), flat.split(sizes), strict=True)}
            return nn.functional.cross_entropy(functional_call(model, pieces, x.double()), y)

        values = torch.linalg.eigvalsh(hessian(loss)(torch.cat([p.flatten() for p in start.values()])))
        wanted.append((float(values[0]), float(values[-1])))

    rows = recorded(model, lambda: nn.functional.cross_entropy(model(x), y), steps=5, rate=0.3, each=look, dense=dense)
    for (low, high), columns in zip(wanted, rows, strict=True):
        assert low < 0.0 < high
        assert columns["hessian_lambda_max"] == pytest.approx(high, rel=1e-3)
        assert columns["hessian_lambda_min"] == pytest.approx(low, rel=1e-3)


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_margins_are_of_the_rate_and_of_what_was_applied(scale):
    model = Quadratic(symmetric(-1.0, 4.0, 6, seed=0))

    class Scaled(safestep.Watch):
        writes = True

        def scale(self, ratio, length, target, state):
            return torch.full_like(ratio, scale), state

    def loss():
        return model().sum()

    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    radius = safestep.radius.SecantCurvature()
    guard = safestep.attach(model, optimizer, radius=radius, policy=Scaled(), diagnostics=[Sharpness(loss)])
    loss().backward()
    optimizer.step()
    columns = guard.last.extras
    for name, eta in (("raw", 0.5), ("ctrl", 0.5 * scale)):
        assert columns[f"stability_margin_lambda_{name}"] == pytest.approx(4.0 * eta)
        assert columns[f"stability_margin_norm_{name}"] == pytest.approx(4.0 * eta)
        assert columns[f"spectral_radius_{name}"] == pytest.approx(max(abs(1 + eta), abs(1 - 4 * eta)))


@pytest.mark.parametrize("size", [5, 90])
def test_what_is_not_finite_is_nan(size):
    model, weight = nn.Linear(size, 1, bias=False), torch.tensor(1.0)

    def loss():
        return weight * model(torch.ones(1, size)).square().sum()

    rows = recorded(model, loss, steps=3, each=lambda step: weight.fill_([1.0, math.inf, 1.0][step]))
    assert [math.isnan(row["hessian_lambda_max"]) for row in rows][:2] == [False, True]
    assert all(math.isnan(row[name]) for row in rows[1:2] for name in row)


@pytest.mark.parametrize("closure", [lambda: 1.0, lambda: torch.ones(2, requires_grad=True), lambda: torch.ones(())])
def test_a_closure_that_returns_no_loss_is_named(closure):
    with pytest.raises(MeasurementError, match="expected the loss of the batch"):
        Hessian(closure, [nn.Parameter(torch.ones(2))])


def test_without_scipy_the_error_names_the_extra(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "scipy.sparse.linalg", None)
    with pytest.raises(safestep.errors.MissingExtraError, match="extra 'sharpness'"):
        Lanczos().ends(lambda v: v, 100)
