"""The simulator: equal to torch.optim and to recursions by hand, repeatable, bounded in memory, and honest."""

from __future__ import annotations

import math
import tracemalloc
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, ReduceLROnPlateau

from safestep import Throttle
from safestep.descent import (
    PLANE,
    Batches,
    Beale,
    Bowls,
    DescentError,
    Function,
    Gaussian,
    Quadratic,
    Rosenbrock,
    Rule,
    simulate,
)

ELEMENTWISE = {
    "SGD": partial(torch.optim.SGD, lr=1e-4),
    "momentum": partial(torch.optim.SGD, lr=1e-4, momentum=0.9, nesterov=True, weight_decay=1e-2),
    "Adam": partial(torch.optim.Adam, lr=0.1),
    "AMSGrad": partial(torch.optim.Adam, lr=0.1, amsgrad=True),
    "AdamW": partial(torch.optim.AdamW, lr=0.1),
    "RMSprop": partial(torch.optim.RMSprop, lr=0.01, momentum=0.5, centered=True),
    "Adagrad": partial(torch.optim.Adagrad, lr=0.5),
    "Adadelta": torch.optim.Adadelta,
    "Adamax": torch.optim.Adamax,
    "NAdam": torch.optim.NAdam,
    "RAdam": torch.optim.RAdam,
    "ASGD": partial(torch.optim.ASGD, lr=1e-4),
    "Rprop": torch.optim.Rprop,
}


def decay(t):
    return math.exp(-0.1 * t)


def published(steps, first=2):
    """The note's recursion by hand, in plain floats."""
    x1, x2 = -5.0, -2.0
    points = [(x1, x2)]
    for k in range(1, steps + 1):
        rate = 0.1 * decay(first + k - 1)
        x1, x2 = x1 - rate * 2 * x1, x2 - rate * 4 * x2
        points.append((x1, x2))
    return torch.tensor(points, dtype=torch.float64)


def test_a_noiseless_run_is_the_recursion_by_hand():
    run = simulate(PLANE, schedule=decay, steps=1000)
    assert run.trace().shape == (1001, 2)
    torch.testing.assert_close(run.trace(), published(1000), rtol=0.0, atol=1e-12)
    assert run.last[0, 0].item() == pytest.approx(-0.826, abs=5e-4)


def test_an_off_by_one_in_t_is_visible():
    assert simulate(PLANE, schedule=decay, first=1, steps=1000).last[0, 0].item() == pytest.approx(-0.676, abs=5e-4)


def test_single_precision_follows_the_recursion_to_its_own():
    run = simulate(PLANE, schedule=decay, steps=1000, dtype=torch.float32)
    torch.testing.assert_close(run.trace().double(), published(1000), rtol=1e-5, atol=1e-6)


def test_the_last_point_is_printed_as_the_note_says():
    assert str(simulate(PLANE, steps=20)) == "epoch 20, x1: -0.057646, x2: -0.000073"


@pytest.mark.parametrize("objective", [PLANE, Rosenbrock(), Beale()], ids=["plane", "rosenbrock", "beale"])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_every_run_is_what_torch_does_with_it_alone(name, objective):
    make, starts = ELEMENTWISE[name], torch.tensor(objective.start).double() + torch.arange(5)[:, None] * 0.05
    together = simulate(objective, make, start=starts, runs=5, steps=30, schedule=lambda t: 1 / (1 + 0.1 * t), first=0)
    for run in range(5):
        parameter = torch.nn.Parameter(starts[run].clone())
        optimizer = make([parameter])
        scheduler = LambdaLR(optimizer, lambda k: 1 / (1 + 0.1 * k))
        for step in range(31):
            # runs side by side are computed in vector registers, one alone is not: they may round differently
            torch.testing.assert_close(together.trace(run)[step], parameter.detach(), rtol=1e-11, atol=1e-13)
            optimizer.zero_grad()
            objective.value(parameter).backward()
            optimizer.step()
            scheduler.step()


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_one_run_is_torch_exactly(name):
    run = simulate(Rosenbrock(), ELEMENTWISE[name], steps=50)
    parameter = torch.nn.Parameter(torch.tensor(Rosenbrock().start, dtype=torch.float64))
    optimizer = ELEMENTWISE[name]([parameter])
    for _ in range(50):
        optimizer.zero_grad()
        Rosenbrock().value(parameter).backward()
        optimizer.step()
    assert torch.equal(run.last[0], parameter.detach())


def test_a_scheduler_of_torch_steps_after_every_step():
    run = simulate(PLANE, scheduler=partial(CosineAnnealingLR, T_max=40), steps=40, records=41)
    expected = [0.05 * (1 + math.cos(math.pi * k / 40)) for k in range(40)]
    assert run.rates[1:].tolist() == pytest.approx(expected, abs=1e-12)
    assert run.setting.rates().tolist() == pytest.approx(expected, abs=1e-12)
    assert math.isnan(run.rates[0])


@given(steps=st.integers(0, 12), records=st.integers(2, 9), runs=st.integers(1, 4))
def test_records_begin_at_the_start_and_end_at_the_end(steps, records, runs):
    run = simulate(PLANE, noise=Gaussian(), steps=steps, records=records, runs=runs, traces=runs)
    assert run.at[0] == 0
    assert run.at[-1] == steps
    assert len(run.at) == min(records, steps + 1) == len(run.moments.loss) == len(run.rates)
    assert (run.at.diff() > 0).all()
    assert torch.equal(run.traces[:, 0], torch.tensor([PLANE.start] * runs).double())
    assert torch.equal(run.traces[:, -1], run.last)
    torch.testing.assert_close(run.moments.mean, run.traces[:, run.at].mean(0))


def test_the_statistics_are_those_of_the_runs():
    run = simulate(PLANE, noise=Gaussian(), runs=7, steps=5, traces=7, records=6)
    x, f = run.traces, PLANE.value(run.traces)
    torch.testing.assert_close(run.moments.variance, x.var(0))
    torch.testing.assert_close(run.moments.fourth, (x - x.mean(0)).pow(4).mean(0))
    torch.testing.assert_close(run.moments.loss, f.mean(0))
    torch.testing.assert_close(run.moments.loss_variance, f.var(0))
    levels = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], dtype=torch.float64)
    torch.testing.assert_close(run.moments.loss_quantiles, f.quantile(levels, dim=0).T)
    assert run.moments.finite.tolist() == [7] * 6


@pytest.mark.parametrize("noise", [Gaussian(), Batches(3), Batches(3, "epochs")], ids=str)
def test_equal_seeds_give_equal_runs_and_the_global_generator_is_left_alone(noise):
    bowls = Bowls.scattered(10, (2.0, 4.0), (-5.0, -2.0))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, other = (simulate(bowls, noise=noise, runs=9, seed=4) for _ in range(2))
    assert torch.equal(one.last, other.last)
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(simulate(bowls, noise=noise, runs=9, seed=5).last, one.last)


def test_chance_inside_the_users_function_is_seeded_too():
    shaky = Function(lambda x: x.square().sum(-1), (1.0, 1.0), lambda x: 2 * x + 1e-6 * torch.randn_like(x[:1]))
    assert torch.equal(simulate(shaky, seed=3).last, simulate(shaky, seed=3).last)


def test_zero_steps_are_the_start():
    run = simulate(PLANE, noise=Gaussian(), steps=0, runs=3)
    assert torch.equal(run.last, torch.tensor([PLANE.start] * 3).double())
    assert run.traces.shape == (3, 1, 2)
    assert run.at.tolist() == [0]
    assert run.last_point() == "epoch 0, x1: -5.000000, x2: -2.000000"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"runs": 0}, "runs = 0: expected a whole number of at least 1"),
        ({"runs": 2.0}, "runs = 2.0"),
        ({"steps": -1}, "steps = -1"),
        ({"steps": True}, "steps = True"),
        ({"seed": -1}, "seed = -1"),
        ({"records": 1}, "records = 1"),
        ({"traces": 3, "runs": 2}, "traces = 3 of 2 runs"),
        ({"limit": 0.0}, "limit = 0.0"),
        ({"start": (1.0,)}, r"start of shape \(1,\): expected \(2,\)"),
        ({"start": torch.zeros(3, 2), "runs": 2}, r"start of shape \(3, 2\): .* or \(2, 2\)"),
        ({"start": (1.0, math.nan)}, "expected finite numbers"),
        ({"dtype": torch.int64}, "expected a floating one"),
        ({"schedule": decay, "scheduler": partial(CosineAnnealingLR, T_max=4)}, "one of them"),
        ({"schedule": 0.1}, "schedule = 0.1: expected a function"),
        ({"first": -1}, "first = -1"),
        ({"scheduler": ReduceLROnPlateau}, "ReduceLROnPlateau: expected one that needs no loss"),
        ({"optimizer": 0.1}, "optimizer = 0.1: expected a function"),
    ],
)
def test_what_makes_no_ensemble_is_refused(options, said):
    with pytest.raises(DescentError, match=said):
        simulate(PLANE, **options)


def test_a_rate_beyond_the_limit_is_a_reported_divergence():
    run = simulate(PLANE, partial(torch.optim.SGD, lr=0.6), noise=Gaussian(), runs=20, steps=100)
    assert run.lost == 20
    assert len(run.last_point()) < 80
    assert "20 of 20 runs diverged: the largest rate times the steepest curvature is 2.4" in str(run)


def test_runs_that_overflow_are_counted_out_of_the_statistics():
    starts = torch.tensor([[0.1, 0.1]] * 3 + [[50.0, 0.0]]).double()
    steep = Function(lambda x: x.pow(4).sum(-1), (0.1, 0.1))
    run = simulate(steep, partial(torch.optim.SGD, lr=0.1), start=starts, runs=4, steps=60)
    assert run.diverged.tolist() == [False, False, False, True]
    assert run.moments.finite[-1] == 3
    assert run.moments.mean[-1].isfinite().all()
    assert run.moments.finite[0] == 4
    assert "1 of 4 runs diverged" in run.trouble


def test_when_every_run_is_lost_the_statistics_say_nothing():
    run = simulate(Function(lambda x: x.pow(4).sum(-1), (50.0, 50.0)), steps=60, runs=3)
    assert run.moments.finite[-1] == 0
    assert run.moments.mean[-1].isnan().all()
    assert run.moments.loss[-1].isnan()
    assert "3 of 3 runs diverged" in str(run)
    assert "not finite" not in str(run)  # an overflow far away is no fault of the function


def test_nan_in_the_users_function_is_told_with_its_place():
    root = Function(lambda x: x[..., 0].sqrt() + x[..., 1].square(), (0.05, 1.0))
    run = simulate(root, partial(torch.optim.SGD, lr=0.02), steps=20)
    x = 0.05
    for step in range(1, 21):  # noqa: B007
        if x < 0:
            break
        x -= 0.02 * 0.5 / math.sqrt(x)
    assert f"not finite in step {step}: [nan, " in run.trouble
    assert f"at [{x:.6f}"[:11] in run.trouble
    assert run.lost == 1


def test_memory_does_not_grow_with_the_steps():
    """Python's own part; tensors are a handful whatever the steps, since nothing but records and traces is kept."""

    def kept(steps):
        tracemalloc.start()
        run = simulate(PLANE, noise=Gaussian(), steps=steps, runs=10, schedule=decay)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert run.traces.numel() == 0
        assert len(run.at) == 100
        return used

    kept(200)
    assert kept(2000) < 1.2 * kept(200) + 20_000


def test_a_trace_that_was_not_kept_is_said():
    run = simulate(PLANE, noise=Gaussian(), runs=20, traces=2, steps=3)
    assert run.trace(1).shape == (4, 2)
    with pytest.raises(DescentError, match="traces=6"):
        run.trace(5)
    with pytest.raises(DescentError, match="run 20 of 20"):
        run.last_point(20)


def test_a_rule_with_state_is_the_optimizer_it_describes():
    def heavy_ball(x, gradient, rate, velocity):
        velocity = 0.9 * velocity + gradient(x)
        return x - rate * velocity, velocity

    options = {"noise": Gaussian(), "runs": 5, "steps": 40, "schedule": decay, "seed": 2}
    own = simulate(PLANE, Rule(heavy_ball, lr=0.05, state=0.0), **options)
    theirs = simulate(PLANE, partial(torch.optim.SGD, lr=0.05, momentum=0.9), **options)
    torch.testing.assert_close(own.last, theirs.last, rtol=1e-12, atol=1e-14)


def test_a_rule_may_look_elsewhere_with_the_same_noise():
    def extragradient(x, gradient, rate, state):
        return x - rate * gradient(x - rate * gradient(x)), state

    run = simulate(Quadratic((2.0,), (1.0,)), Rule(extragradient, lr=0.1), steps=10)
    assert run.last.item() == pytest.approx((1 - 0.2 + 0.04) ** 10)


def test_a_rule_that_diverges_is_reported_with_its_rates():
    run = simulate(PLANE, Rule(lambda x, g, rate, state: (x - rate * g(x), state), lr=0.7), steps=60, schedule=decay)
    assert run.setting.rates()[0].item() == pytest.approx(0.7 * decay(2))
    wild = simulate(PLANE, Rule(lambda x, g, rate, state: (x - rate * g(x), state), lr=0.7), steps=60)
    assert "1 of 1 runs diverged" in wild.trouble
    assert repr(wild).startswith("<Ensemble of 1 runs and 60 steps on Quadratic")


def test_a_rules_state_is_fresh_for_every_simulation():
    def remembers(x, gradient, rate, seen):
        seen.append(rate)
        return x - rate * gradient(x), seen

    seen = []
    simulate(PLANE, Rule(remembers, state=seen), steps=4)
    assert seen == []


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (lambda x, gradient, rate, state: x, r"expected \(x, state\)"),
        (lambda x, gradient, rate, state: (x[0], state), "expected a tensor of shape"),
        (lambda x, gradient, rate, state: (x - rate * gradient(x) / gradient(x).norm(), state), "beside other runs"),
    ],
)
def test_a_rule_that_is_none_is_refused(step, said):
    with pytest.raises(DescentError, match=said):
        simulate(PLANE, Rule(step), runs=4)


def test_the_users_gradient_may_return_what_it_was_given():
    half = Function(lambda x: x.square().sum(-1) / 2, (1.0, 2.0), lambda x: x)
    run = simulate(half, partial(torch.optim.SGD, lr=0.1, momentum=0.5), steps=20, noise=Gaussian(0.0))
    other = simulate(Quadratic((1.0, 1.0), (1.0, 2.0)), partial(torch.optim.SGD, lr=0.1, momentum=0.5), steps=20)
    torch.testing.assert_close(run.last, other.last)


def test_a_policy_is_reported():
    run = simulate(PLANE, partial(torch.optim.SGD, lr=0.6), noise=Gaussian(), runs=20, steps=30, policy=Throttle())
    assert run.lost == 0
    assert 0 < run.shortened <= 1
    assert run.scales is not None
    assert math.isnan(run.scales[0])
    assert (run.scales[1:] <= 1).all()
    assert "% shortened, " in str(run)
