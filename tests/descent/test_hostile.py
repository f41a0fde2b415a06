"""Optimizers, functions and settings that do what is not usual: each must change nothing, or be told."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.optim import SGD, Adam, Optimizer

from safestep import Cap, Watch
from safestep.descent import (
    PLANE,
    Batches,
    Bowls,
    DescentError,
    Function,
    Gaussian,
    LeastSquares,
    Objective,
    Rosenbrock,
    distance,
    simulate,
    stationary_law,
)
from safestep.schedules import Inverse

LINE = LeastSquares(torch.tensor([[1.0, 0.5], [2.0, -1.0], [0.5, 3.0]]), torch.tensor([1.0, 2.0, 0.0]), (1.0, 1.0))
BY_HAND = Function.of_coordinates(lambda a, b: a**2 + 2 * b**2, PLANE.start, lambda a, b: (2 * a, 4 * b))


class Replacing(Optimizer):
    """Puts another tensor in the place of the parameter, as older optimizers do."""

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        super().__init__(parameters, {"lr": 0.1})

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step."""
        for parameter in self.param_groups[0]["params"]:
            parameter.data = parameter.data - 0.1 * parameter.grad


def test_an_optimizer_may_put_another_tensor_in_place() -> None:
    found, plain = simulate(PLANE, Replacing, steps=5), simulate(PLANE, steps=5)
    torch.testing.assert_close(found.traces, plain.traces)
    torch.testing.assert_close(found.moments.mean, plain.moments.mean)
    assert torch.equal(found.traces[0, -1], found.last[0])


@pytest.mark.parametrize("objective", [BY_HAND, LINE, Bowls.scattered(8, (2.0, 4.0), (-5.0, -2.0))])
@pytest.mark.parametrize("kind", [partial(SGD, momentum=0.5), Adam])
def test_fused_equals_unfused_whatever_the_layout_of_the_gradient(
    kind: Callable[..., Optimizer], objective: Objective
) -> None:
    start = torch.randn(9, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = None if objective is BY_HAND else Batches(2)
    fused, plain = (
        simulate(objective, partial(kind, lr=0.05, fused=fused), noise=noise, start=start, runs=9, steps=5).last
        for fused in (True, False)
    )
    torch.testing.assert_close(fused, plain, rtol=1e-9, atol=1e-12)


def test_a_gradient_that_the_optimizer_writes_into_does_not_mislead_the_guard() -> None:
    # foreach adds Nesterov's momentum into the gradient itself
    one, other = (
        simulate(
            PLANE,
            partial(SGD, lr=0.4, momentum=0.9, nesterov=True, foreach=foreach),
            noise=Gaussian(),
            policy=Cap(0.5),
            runs=20,
        ).last
        for foreach in (True, False)
    )
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_functions_may_write_into_x() -> None:
    def value(x: Tensor) -> Tensor:
        x *= x
        return x[..., 0] + 2 * x[..., 1]

    def gradient(x: Tensor) -> Tensor:
        return x.mul_(torch.tensor([2.0, 4.0], dtype=x.dtype))

    found = simulate(Function(value, PLANE.start, gradient), steps=5)
    torch.testing.assert_close(found.traces, simulate(PLANE, steps=5).traces)


def test_a_gradient_in_single_precision_becomes_that_of_the_points() -> None:
    single = Function(PLANE.value, PLANE.start, lambda x: PLANE.gradient(x.float()))
    torch.testing.assert_close(simulate(single, steps=5).last, simulate(PLANE, steps=5).last, rtol=1e-5, atol=0.0)


def test_a_rate_that_is_a_tensor_stays_as_it_was_given() -> None:
    rate = torch.tensor(0.1)
    ensemble = simulate(PLANE, partial(SGD, lr=rate), schedule=Inverse(0.1), noise=Gaussian(), runs=500, steps=20)
    assert rate == 0.1
    assert ensemble.setting.rates()[-1].item() == pytest.approx(ensemble.rates[-1].item())
    assert distance(ensemble).worst.max() < 4.5


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, math.inf), (torch.float32, 1e300), (torch.float16, 1e6)])
def test_a_run_at_infinity_has_diverged_whatever_the_limit(dtype: torch.dtype, limit: float) -> None:
    # the last point is inf, not nan
    bowl = Function(lambda x: (x.square() / 2).sum(-1), (1.0,), lambda x: -x)
    steps = math.ceil(math.log2(torch.finfo(dtype).max)) + 1
    ensemble = simulate(bowl, partial(SGD, lr=1.0), steps=steps, limit=limit, dtype=dtype)
    assert ensemble.last.isinf().all()
    assert ensemble.lost == 1


def test_an_objective_with_randomness_of_its_own_is_taken_and_repeats_itself() -> None:
    shaken = Function(PLANE.value, PLANE.start, lambda x: PLANE.gradient(x) + torch.randn_like(x))
    one, other = (simulate(shaken, runs=3000, steps=20) for _ in range(2))
    assert torch.equal(one.last, other.last)
    assert one.moments.variance[-1, 0].item() == pytest.approx(0.0278, rel=0.15)


def test_generators_of_gpus_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    simulate(PLANE, noise=Gaussian(), steps=2)
    assert not seeded


def test_runs_in_inference_mode() -> None:
    make = partial(SGD, lr=1e-3)
    with torch.inference_mode():
        inside = simulate(Rosenbrock(), make, steps=5).last
    assert torch.equal(inside, simulate(Rosenbrock(), make, steps=5).last)


def test_noise_does_not_depend_on_the_default_dtype() -> None:
    expected = simulate(PLANE, noise=Gaussian(), steps=5).last
    torch.set_default_dtype(torch.bfloat16)
    try:
        found = simulate(PLANE, noise=Gaussian(), steps=5).last
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found, expected)


def test_a_start_that_is_changed_later_leaves_the_setting_alone() -> None:
    start = torch.tensor([1.0, 1.0], dtype=torch.float64)
    ensemble = simulate(PLANE, start=start, steps=1)
    start.zero_()
    assert ensemble.setting.start.tolist() == [1.0, 1.0]


def test_a_single_run_on_batches_has_a_finite_distance() -> None:
    bowls = Bowls.scattered(16, (2.0, 4.0), (-5.0, -2.0))
    assert distance(simulate(bowls, noise=Batches(4), steps=20)).worst.max() < 5


def test_a_watched_descent_has_the_law_of_an_unwatched_one() -> None:
    assert distance(simulate(PLANE, policy=Watch(), noise=Gaussian(), runs=500)).worst[-1] < 4.5


def test_shares_of_steps_are_told_of_all_steps() -> None:
    make = partial(SGD, lr=0.1, momentum=0.99)
    ensemble = simulate(PLANE, make, noise=Gaussian(), policy=Cap(0.5), runs=50)
    assert f"of all steps {ensemble.shortened:.1%} shortened, {ensemble.held:.1%} held still" in str(ensemble)


@pytest.mark.parametrize("rate", [0.0, math.inf, math.nan, -1.0])
def test_no_stationary_law_for_such_a_rate(rate: float) -> None:
    with pytest.raises(DescentError, match="expected a finite learning rate above 0"):
        stationary_law(PLANE, rate, Gaussian())


def test_a_rate_beyond_all_floats_has_no_rest() -> None:
    assert stationary_law(PLANE, 1e200, Gaussian()).loss == math.inf


def test_told_seeds_and_optimizers_that_are_none() -> None:
    with pytest.raises(DescentError, match=r"seed = 18446744073709551616: expected one below 2\*\*63"):
        simulate(PLANE, seed=2**64)
    with pytest.raises(DescentError, match=r"made NoneType: expected an optimizer"):
        simulate(PLANE, lambda _: None)  # type: ignore[arg-type, return-value]
