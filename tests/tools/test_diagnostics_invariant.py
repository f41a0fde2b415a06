"""What must not change in the columns of the probes: under the scale of the loss, under rotations of the inputs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import safestep
from safestep.policy import Throttle
from safestep.radius import SecantCurvature
from safestep.tools.diagnostics import FIELDS, published

LENGTHS = ["raw_update_norm", "actual_update_norm", "theta_norm", "weight_error_fro", "forward_gain_spectral"]
MARGINS = [name for name in FIELDS if name.startswith(("stability", "spectral", "alpha"))]
BENDS = ["curvature_proxy", "curvature_ema", "hessian_lambda_max", "hessian_lambda_min", "hessian_spectral_norm"]
SOME_STEPS = 3


def columns(x, w, reference, factor=1.0, rate=0.1):
    """Train a linear student under the secant law on ``factor`` times half_mse and return the columns of its steps."""
    model = nn.Linear(w.shape[1], w.shape[0], bias=False, dtype=torch.float64)
    model.weight.data = w.clone()
    y = x @ reference.T

    def loss():
        return factor * (model(x) - y).square().sum() / (2 * len(x))

    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    probes = published(loss, square=factor * len(w) / 2, weights=[model.weight], reference=reference)
    guard = safestep.attach(model, optimizer, radius=SecantCurvature(), policy=Throttle(), diagnostics=probes)
    for _ in range(SOME_STEPS):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    return guard.history.columns()


def problem(seed, inputs, gain):
    """Return inputs, a start and a reference."""
    generator = torch.Generator().manual_seed(seed)
    x, w, reference = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((12, inputs), (2, inputs), (2, inputs))
    )
    return gain * x, w, reference


PROBLEMS = st.builds(problem, st.integers(0, 10**6), st.integers(1, 5), st.floats(0.2, 5.0))


@given(PROBLEMS, st.floats(-8.0, 8.0))
def test_a_loss_times_c_at_a_rate_over_c_is_the_same_run(given_problem, exponent):
    factor = 10.0**exponent
    one, other = columns(*given_problem), columns(*given_problem, factor=factor, rate=0.1 / factor)
    for name in [*LENGTHS, *MARGINS, "rmse"]:
        assert other[name] == pytest.approx(one[name], rel=1e-6, abs=1e-9), name
    for name in [*BENDS, "loss", "grad_norm"]:
        assert other[name] == pytest.approx([factor * value for value in one[name]], rel=1e-6, abs=1e-9 * factor), name


@given(PROBLEMS, st.integers(0, 10**6))
def test_a_rotation_of_the_inputs_turns_nothing_that_is_recorded(given_problem, seed):
    x, w, reference = given_problem
    generator = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(w.shape[1], w.shape[1], generator=generator, dtype=torch.float64))[0]
    one, other = columns(x, w, reference), columns(x @ turn, w @ turn, reference @ turn)
    for name in FIELDS:
        assert other[name] == pytest.approx(one[name], rel=1e-6, abs=1e-9), name


@given(PROBLEMS)
def test_secant_curvature_and_margins_lie_between_the_ends_of_the_spectrum(given_problem):
    found = columns(*given_problem)
    for step in range(1, SOME_STEPS):
        low, high = found["hessian_lambda_min"][step], found["hessian_lambda_max"][step]
        assert low - 1e-6 * high <= found["curvature_proxy"][step] <= high * (1 + 1e-6)
        raw, applied = (found[f"stability_margin_lambda_{name}"][step] for name in ("raw", "ctrl"))
        assert applied == pytest.approx(found["alpha"][step] * raw)
