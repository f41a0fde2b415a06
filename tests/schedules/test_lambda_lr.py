"""Schedules in LambdaLR: the rates of a real optimizer, resumed too, and torch's own schedulers where they agree."""

from __future__ import annotations

import io

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, LambdaLR, LinearLR, MultiStepLR, StepLR

from safestep.schedules import (
    Constant,
    Cosine,
    Exponential,
    Inverse,
    PiecewiseConstant,
    Staircase,
    WarmUp,
)
from schedules.examples import every_schedule

BASES = (0.1, 0.37, 3.0)


class Run:
    """Momentum SGD on noisy quadratics in three parameter groups, and the rates it takes."""

    def __init__(self, scheduler=None):
        self.parameters = [torch.nn.Parameter(torch.ones(2) * base) for base in BASES]
        groups = [{"params": [part], "lr": base} for part, base in zip(self.parameters, BASES, strict=True)]
        self.optimizer = torch.optim.SGD(groups, momentum=0.5)
        self.scheduler = scheduler(self.optimizer) if scheduler else None
        self.rates = []

    def step(self, k):
        generator = torch.Generator().manual_seed(k)
        self.optimizer.zero_grad()
        sum((part.square() + part * torch.randn(2, generator=generator)).sum() for part in self.parameters).backward()
        self.rates.append([group["lr"] for group in self.optimizer.param_groups])
        self.optimizer.step()
        if self.scheduler:
            self.scheduler.step()

    def steps(self, start, stop):
        for k in range(start, stop):
            self.step(k)
        return self

    def saved(self):
        file = io.BytesIO()
        weights = [part.detach() for part in self.parameters]
        torch.save([weights, self.optimizer.state_dict(), self.scheduler.state_dict()], file)
        file.seek(0)
        return file

    def load(self, file):
        weights, optimizer, scheduler = torch.load(file, weights_only=True)
        for part, saved in zip(self.parameters, weights, strict=True):
            part.data.copy_(saved)
        self.optimizer.load_state_dict(optimizer)
        self.scheduler.load_state_dict(scheduler)
        return self


def three(schedule):
    """Return a scheduler with a schedule for each group, the first two sharing one."""
    return lambda optimizer: LambdaLR(optimizer, [schedule, schedule, 0.5 * schedule])


def expected(schedule, steps):
    return [[BASES[0] * schedule(k), BASES[1] * schedule(k), BASES[2] * (0.5 * schedule)(k)] for k in steps]


@every_schedule
def test_the_rates_are_those_worked_out_by_hand(schedule):
    assert Run(three(schedule)).steps(0, 50).rates == expected(schedule, range(50))


@every_schedule
def test_the_weights_are_those_of_rates_set_by_hand(schedule):
    scheduled, by_hand = Run(lambda optimizer: LambdaLR(optimizer, schedule)), Run()
    for k in range(20):
        for group, base in zip(by_hand.optimizer.param_groups, BASES, strict=True):
            group["lr"] = base * schedule(k)
        by_hand.step(k)
        scheduled.step(k)
    for one, other in zip(scheduled.parameters, by_hand.parameters, strict=True):
        assert torch.equal(one, other)


@every_schedule
@pytest.mark.parametrize("stop", [0, 1, 6, 13])
def test_a_run_stopped_and_resumed_equals_one_that_was_not(schedule, stop):
    whole = Run(three(schedule)).steps(0, 25)
    stopped = Run(three(schedule)).steps(0, stop)
    resumed = Run(three(schedule)).load(stopped.saved()).steps(stop, 25)
    assert stopped.rates + resumed.rates == whole.rates
    for one, other in zip(resumed.parameters, whole.parameters, strict=True):
        assert torch.equal(one, other)


@every_schedule
def test_a_checkpoint_holds_nothing_of_the_schedule(schedule):
    run = Run(three(schedule)).steps(0, 3)
    state = torch.load(run.saved(), weights_only=True)[2]  # weights_only: no class but torch's own would be read
    assert state["lr_lambdas"] == [{}, {}, {}]
    assert b"safestep" not in run.saved().getvalue()
    assert vars(schedule) == {}


def test_a_resumed_run_follows_the_schedule_it_is_given():
    stopped = Run(three(Inverse(0.1))).steps(0, 5)
    resumed = Run(three(Constant(0.2))).load(stopped.saved()).steps(5, 7)
    assert resumed.rates[1] == expected(Constant(0.2), [6])[0]


def test_the_published_counter_is_a_shift_by_two():
    schedule = Exponential(0.1)
    assert Run(three(schedule.shifted(2))).steps(0, 9).rates == expected(schedule, range(2, 11))


T = 40
TORCHS = {
    "ExponentialLR": (Exponential.of_base(0.9), lambda o: ExponentialLR(o, gamma=0.9), 50),
    "StepLR": (Staircase(7, ratio=0.1), lambda o: StepLR(o, step_size=7, gamma=0.1), 50),
    "MultiStepLR": (
        PiecewiseConstant((5, 11, 30), (1, 0.1, 0.01, 0.001)),
        lambda o: MultiStepLR(o, milestones=[5, 11, 30], gamma=0.1),
        50,
    ),
    "CosineAnnealingLR": (Cosine(T), lambda o: CosineAnnealingLR(o, T_max=T), T + 1),
    "LinearLR": (
        WarmUp(T, start=0.2),
        lambda o: LinearLR(o, start_factor=0.2 + 0.8 / T, total_iters=T - 1),
        60,
    ),
}


@pytest.mark.parametrize(("schedule", "scheduler", "steps"), TORCHS.values(), ids=TORCHS)
def test_where_torch_has_the_same_equation_the_rates_agree(schedule, scheduler, steps):
    """Torch's recursions gather a rounding error a step, 1e-14 in all; and an absolute one where a cosine ends at 0."""
    for mine, torchs in zip(
        Run(lambda o: LambdaLR(o, schedule)).steps(0, steps).rates, Run(scheduler).steps(0, steps).rates, strict=True
    ):
        assert mine == pytest.approx(torchs, rel=1e-12, abs=1e-14)


def test_a_cosine_with_a_floor_is_the_one_of_torch_with_a_smallest_rate():
    run = Run(lambda o: CosineAnnealingLR(o, T_max=T, eta_min=0.01)).steps(0, T + 1)
    for column, base in enumerate(BASES):  # torch's floor is a rate, the same for all groups
        schedule = Cosine(T, floor=0.01 / base)
        mine = [base * schedule(k) for k in range(T + 1)]
        assert mine == pytest.approx([rates[column] for rates in run.rates], rel=1e-12, abs=1e-14)
