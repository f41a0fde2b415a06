"""Noise: its covariance, what one draw serves, and which samples a batch has."""

from __future__ import annotations

from itertools import combinations, islice, product

import pytest
import torch

from safestep.descent import PLANE, Batches, Bowls, DescentError, Gaussian, simulate
from safestep.descent.noise import Silent

RUNS = 40_000
TILTED = ((2.0, -1.2), (-1.2, 1.0))


def losses(noise, objective=PLANE, runs=RUNS, seed=3):
    return noise.losses(objective, runs, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "noise",
    [Gaussian(), Gaussian(batch=4), Gaussian((0.5, 3.0)), Gaussian(covariance=TILTED, batch=2)],
    ids=["one", "batch", "scales", "covariance"],
)
def test_gaussian_noise_has_the_mean_and_covariance_it_states(noise):
    loss = next(losses(noise))
    x = torch.tensor(PLANE.start).double().expand(RUNS, -1)
    off = loss.gradient(x) - PLANE.gradient(x)
    sigma = noise.covariance_in(2)
    assert (off.mean(0).abs() < 4.5 * (sigma.diagonal() / RUNS).sqrt()).all()
    error = ((sigma.diagonal()[:, None] * sigma.diagonal() + sigma.square()) / RUNS).sqrt()
    assert ((off.T.cov() - sigma).abs() < 4.5 * error).all()


def test_a_singular_covariance_moves_along_its_range_only():
    loss = next(losses(Gaussian(covariance=((1.0, 1.0), (1.0, 1.0))), runs=100))
    off = loss.gradient(torch.zeros(100, 2).double())
    torch.testing.assert_close(off[:, 0], off[:, 1])
    assert off.std() > 0.5


@pytest.mark.parametrize("noise", [Gaussian(), Batches(3), Batches(3, "distinct"), Batches(3, "epochs")], ids=str)
def test_one_draw_serves_the_whole_step_and_the_next_is_another(noise):
    bowls = Bowls.scattered(10, (2.0, 4.0), (-5.0, -2.0))
    asked, x = losses(noise, bowls, runs=5), torch.ones(5, 2).double()
    loss = next(asked)
    first, again, elsewhere = loss.gradient(x), loss.gradient(x), loss.gradient(x + 1)
    assert torch.equal(first, again)
    torch.testing.assert_close(elsewhere - first, bowls.gradient(x + 1) - bowls.gradient(x))
    assert not torch.equal(next(asked).gradient(x), first)


def test_without_noise_the_gradient_is_a_tensor_of_its_own():
    x = torch.ones(3, 2).double()

    class Half(type(PLANE)):
        def gradient(self, x):
            return x

    assert next(losses(Silent(), Half((1.0, 1.0), (0.0, 0.0)), 3)).gradient(x).data_ptr() != x.data_ptr()


def chosen(draw, size, samples, draws, runs=200):
    """Return the samples that each draw chose, shape (draws, runs, size)."""
    indices = Batches(size, draw).indices(samples, runs, torch.Generator().manual_seed(3))
    return torch.stack(list(islice(indices, draws)))


def test_with_replacement_every_sample_comes_as_often_and_some_twice():
    found = chosen("replacement", 4, 5, 50)
    counts = found.flatten().bincount(minlength=5).double()
    n = found.numel()
    assert ((counts - n / 5).abs() < 4.5 * (n * 0.2 * 0.8) ** 0.5).all()
    assert any(len(set(batch)) < 4 for batch in found.flatten(0, 1).tolist())


def test_distinct_samples_are_distinct_and_every_set_as_likely():
    found = chosen("distinct", 2, 5, 100)
    sets = {}
    for batch in found.flatten(0, 1).tolist():
        assert len(set(batch)) == 2
        sets[frozenset(batch)] = sets.get(frozenset(batch), 0) + 1
    n, share = found.numel() / 2, 1 / 10
    assert len(sets) == 10
    assert all(abs(count - n * share) < 4.5 * (n * share * (1 - share)) ** 0.5 for count in sets.values())


def test_an_epoch_deals_every_sample_once_and_leaves_the_rest_out():
    found = chosen("epochs", 3, 11, 9, runs=20)  # three epochs of three batches; two samples are left out of each
    for run in found.transpose(0, 1):
        epochs = [set(epoch.flatten().tolist()) for epoch in run.view(3, 3, 3)]
        assert all(len(epoch) == 9 for epoch in epochs)
    orders = {tuple(run.flatten().tolist()) for run in found.transpose(0, 1)}
    assert len(orders) == 20


def test_many_samples_are_shuffled_in_pieces(monkeypatch):
    monkeypatch.setattr("safestep.descent.batches._ENTRIES", 12)
    assert all(len(set(batch)) == 4 for batch in chosen("distinct", 4, 5, 3, runs=7).flatten(0, 1).tolist())


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("draw", ["replacement", "distinct"])
def test_the_variance_of_a_batch_is_that_over_all_batches(size, draw):
    values = torch.tensor([1.0, 4.0, -2.0, 0.5, 7.0], dtype=torch.float64)
    every = product(range(5), repeat=size) if draw == "replacement" else combinations(range(5), size)
    means = torch.stack([values[list(batch)].mean() for batch in every])
    expected = Batches(size, draw).variance_factor(5) * values.var(correction=0)
    torch.testing.assert_close(means.var(correction=0), expected)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Gaussian(-1.0), "standard deviation"),
        (lambda: Gaussian(float("nan")), "standard deviation"),
        (lambda: Gaussian(2.0, covariance=((1.0, 0.0), (0.0, 1.0))), "one of them"),
        (lambda: Gaussian(batch=0), "batch = 0"),
        (lambda: Gaussian(covariance=((1.0, 2.0), (2.0, 1.0))), "semidefinite"),
        (lambda: Gaussian(covariance=((1.0, 0.5), (0.0, 1.0))), "symmetric"),
        (lambda: Gaussian(covariance=((1.0, 2.0),)), "d by d"),
        (lambda: Batches(0), "size = 0"),
        (lambda: Batches(2, "without"), "draw = 'without'"),
        (lambda: simulate(PLANE, noise=Gaussian((1.0, 2.0, 3.0))), "in 2 variables"),
        (lambda: simulate(PLANE, noise=Batches(2)), "expected a finite sum"),
        (lambda: simulate(Bowls.scattered(5, (1.0,), (1.0,)), noise=Batches(6, "epochs")), "at most all"),
    ],
)
def test_noise_that_cannot_be_is_refused(make, said):
    with pytest.raises(DescentError, match=said):
        make()
