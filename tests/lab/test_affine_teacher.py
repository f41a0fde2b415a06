"""The affine teacher: the facts of the note, its drifts, and what it hands out."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safestep.formulas.quadratic_ratio import margin
from safestep.lab.affine_teacher import AffineTeacher, Drift

GAINS = st.floats(0.1, 8.0) | st.floats(-8.0, -0.1)


def of(x):
    """Eigenvalues of X'X / N, by NumPy."""
    x = np.asarray(x, dtype=np.float64)
    return np.linalg.eigvalsh(x.T @ x / len(x))


def test_the_matrix_and_the_samples_are_those_of_the_note():
    teacher = AffineTeacher()
    assert teacher.A == ((1.25, -0.75, 0.50, 0.20), (-0.40, 0.90, 1.10, -0.60))
    x, y = teacher.data(torch.float64)
    drawn = np.random.default_rng(42).uniform(size=(1000, 4))
    assert np.array_equal(x.numpy(), drawn)
    assert torch.allclose(y, x @ torch.tensor(teacher.A, dtype=torch.float64).T, atol=1e-14)
    assert round(teacher.lambda_max, 4) == 1.0822
    assert round(teacher.eta_max, 4) == 1.8481
    assert teacher.spectrum == pytest.approx(of(drawn))


def test_over_seeds_lambda_max_is_1_084_give_or_take_0_018():
    found = [AffineTeacher(seed=seed).lambda_max for seed in range(200)]
    assert statistics.fmean(found) == pytest.approx(1.084, abs=0.004)
    assert statistics.stdev(found) == pytest.approx(0.018, abs=0.003)


def test_samples_have_the_moments_of_the_uniform_law():
    teacher = AffineTeacher(samples=40_000)
    assert torch.allclose(teacher.moments, torch.eye(4, dtype=torch.float64) / 12 + 1 / 4, atol=0.01)  # 6 errors
    x, _ = teacher.data()
    assert 0 <= x.min() < x.max() <= 1


@given(GAINS)
def test_curvature_grows_with_the_square_of_the_gain(gain):
    teacher = AffineTeacher(samples=50)
    drifted = teacher.drifted(gain=gain)
    assert drifted.lambda_max == pytest.approx(gain**2 * teacher.lambda_max, rel=1e-9)
    assert drifted.lambda_min == pytest.approx(gain**2 * teacher.lambda_min, rel=1e-9)
    assert drifted.eta_max == pytest.approx(teacher.eta_max / gain**2, rel=1e-9)
    assert torch.allclose(drifted.reference, teacher.reference / gain)


def test_the_margins_of_the_note():
    """They are of the uniform law, whose second moments 1/12 I + 1/4 have the largest eigenvalue 13/12."""
    assert margin(0.5, 13 / 12) == pytest.approx(0.54, abs=0.005)
    assert margin(0.5, 16 * 13 / 12) == pytest.approx(8.67, abs=0.005)
    many = AffineTeacher(samples=400_000)
    assert many.lambda_max == pytest.approx(13 / 12, abs=0.005)
    assert margin(0.5, many.drifted(gain=4.0).lambda_max) == pytest.approx(8.67, abs=0.04)


@given(GAINS, st.floats(-3.0, 3.0), st.booleans(), GAINS, st.booleans())
def test_the_reference_answers_the_drifted_inputs(gain, shift, relabel, again, relabel_again):
    teacher = AffineTeacher(samples=20)
    drifted = teacher.drifted(gain, shift, relabel=relabel).drifted(again, relabel=relabel_again)
    (x0, y0), (x, y) = teacher.data(torch.float64), drifted.data(torch.float64)
    assert torch.allclose(x, again * (gain * x0 + shift), atol=1e-9)
    assert torch.allclose(y, x @ drifted.reference.T + drifted.reference_bias, atol=1e-8)
    if not (relabel or relabel_again):
        assert torch.equal(y, y0)
    if relabel_again:
        assert torch.allclose(drifted.reference, teacher.reference)


def test_mse_bends_by_two_over_outputs():
    narrow = {"A": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], "samples": 30}
    half, mse = AffineTeacher(**narrow), AffineTeacher(**narrow, loss="mse")
    assert mse.lambda_max == pytest.approx(2 / 3 * half.lambda_max)


@pytest.mark.parametrize("loss", ["half_mse", "mse"])
def test_the_spectrum_is_that_of_the_loss(loss):
    teacher = AffineTeacher(loss=loss, samples=60).drifted(gain=1.5, bias=0.2)
    x, y = teacher.data(torch.float64)

    def value(w):
        error = (x @ w.view(2, 4).T - y).square()
        return error.sum() / (2 * len(x)) if loss == "half_mse" else error.mean()

    values = torch.linalg.eigvalsh(torch.func.hessian(value)(torch.zeros(8, dtype=torch.float64)))
    assert values.tolist() == pytest.approx(sorted([*teacher.spectrum] * 2))


@given(st.integers(0, 2**32), st.sampled_from([torch.float32, torch.float64]))
def test_rebuilt_from_its_seed_it_is_the_same_bit_for_bit(seed, dtype):
    one, other = AffineTeacher(seed=seed, samples=10), AffineTeacher(seed=seed, samples=10)
    assert one == other
    assert hash(one) == hash(other)
    for mine, theirs in zip(one.data(dtype), other.data(dtype), strict=True):
        assert mine.dtype == dtype
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("teacher", [AffineTeacher(), AffineTeacher().drifted(2.0)])
def test_what_is_handed_out_may_be_written_to(teacher, dtype):
    for part in teacher.data(dtype):
        part.zero_()
    assert all(part.any() for part in teacher.data(dtype))
    assert teacher.lambda_max == type(teacher)(inputs_drift=teacher.inputs_drift).lambda_max


def test_no_global_generator_is_drawn_from():
    np.random.seed(0)
    before, torchs = np.random.get_state(legacy=False)["state"]["key"].copy(), torch.get_rng_state()
    AffineTeacher(seed=3).data()
    assert np.array_equal(np.random.get_state(legacy=False)["state"]["key"], before)
    assert torch.equal(torch.get_rng_state(), torchs)


@pytest.mark.parametrize("matrix", [np.eye(2), torch.eye(2), [[1, 0], [0, 1]]])
def test_a_matrix_may_come_as_anything(matrix):
    assert AffineTeacher(A=matrix) == AffineTeacher(A=((1.0, 0.0), (0.0, 1.0)))


def test_it_prints_what_it_is():
    text = str(AffineTeacher().drifted(gain=4.0))
    for part in ("1000 samples of 4", "samples of 2", "U(0, 1)", "seed 42", "1.25", "17.32", "0.1155"):
        assert part in text
    assert "x <- 4 x, y kept" in text
    assert "y of x = 4 x" in str(AffineTeacher().drifted(gain=4.0, relabel=True))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"A": [[1.0], [1.0, 2.0]]}, "expected a matrix"),
        ({"A": []}, "expected a matrix"),
        ({"loss": "l1"}, "expected one of half_mse, mse"),
        ({"seed": -1}, "at least 0"),
        ({"samples": 0}, "at least 1"),
    ],
)
def test_what_it_refuses(options, words):
    with pytest.raises(ValueError, match=words):
        AffineTeacher(**options)


@pytest.mark.parametrize("options", [{"gain": 0.0}, {"gain": math.nan}, {"bias": math.inf}])
def test_drifts_it_refuses(options):
    with pytest.raises(ValueError, match="expected finite numbers"):
        AffineTeacher().drifted(**options)


@given(GAINS, st.floats(-2, 2), GAINS, st.floats(-2, 2))
def test_drifts_compose(gain, shift, again, more):
    x = torch.linspace(-1, 1, 5, dtype=torch.float64)
    both = Drift(again, more).after(Drift(gain, shift))
    assert torch.allclose(both(x), again * (gain * x + shift) + more)
