"""Steps of a run and what they come to: disturbances reach training, and every count is what it says."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from safestep import Cap, SoftmaxRadius, Watch, attach
from safestep.experiments.protection.protection_steps import StepLine, columns, outcome, steps
from safestep.experiments.protection.protection_witness import Witness
from safestep.lab.disturbances import DISTURBANCES, Disturbance
from safestep.lab.seeding import seed_everything
from safestep.lab.tasks import digits_mlp

INSIDE = StepLine(
    loss=1.0,
    status="inside",
    way="skip/train",
    age=1,
    ratio=0.5,
    scale=1.0,
    step_length=0.1,
    audited_ratio=0.5,
    touched=False,
)
CAPPED = replace(INSIDE, status="capped", way="probe/train", ratio=2.0, scale=0.5, audited_ratio=1.0)


def taken(disturbance=None, policy=None, lr=0.05, count=8, method="exact"):
    seed_everything(7)
    task = digits_mlp(7)
    optimizer = torch.optim.SGD(task.model.parameters(), lr=lr)
    radius = SoftmaxRadius(method=method)
    with Witness(optimizer) as witness, attach(task.model, optimizer, radius=radius, policy=policy) as guard:
        guard.audit()
        lines = list(steps(task, optimizer, guard, witness, disturbance or Disturbance(), count, seed=7))
        return lines, guard


def test_a_rate_spike_is_in_force_for_its_steps_alone():
    lines, guard = taken(Disturbance(steps=2, rate_factor=100.0))
    rates = [lr for (lr,) in guard.history["lrs"]]
    assert rates == [0.05, 0.05, 5.0, 5.0, 0.05, 0.05, 0.05, 0.05]
    assert lines[2].step_length > 10 * lines[1].step_length


@pytest.mark.parametrize(
    ("name", "differs"), [("shuffled-labels", 2), ("inputs-x100", 2), ("rate-x10-1", 3), ("batch-8", 0)]
)
def test_losses_are_those_of_the_plain_run_until_the_disturbance(name, differs):
    plain, disturbed = ([line.loss for line in taken(DISTURBANCES[one])[0]] for one in ("none", name))
    assert disturbed[:differs] == plain[:differs]
    assert disturbed[differs] != plain[differs]


def test_runs_that_differ_in_the_guard_alone_meet_the_same_batches():
    watched, capped = taken(policy=Watch())[0], taken(policy=Cap(1e-4))[0]
    assert watched[0].loss == capped[0].loss
    assert watched[0].ratio == capped[0].ratio
    assert watched[-1].loss != capped[-1].loss
    inside = taken(policy=Cap(1e4))[0]
    assert [line.loss for line in inside] == [line.loss for line in watched]


def test_an_exact_cap_passes_its_own_audit():
    lines, _ = taken(lr=5.0, count=20)
    found = outcome(lines, 1.0)
    assert 0 < found["capped"] < 20  # otherwise this test says nothing
    assert found["audited"] == 20
    assert (found["above_105"], found["touched"], found["needless"]) == (0, 0, 0)
    assert found["worst"] == pytest.approx(1.0, abs=1e-3)
    assert found["capped_median"] == pytest.approx(1.0, abs=1e-3)


def test_what_a_tiered_guard_leaves_out_is_in_the_lines_and_audited_all_the_same():
    lines, _ = taken(lr=0.01, count=12, method="tiered")
    skipped = [line for line in lines if line.way.startswith("skip")]
    assert len(skipped) == 12 * outcome(lines, 1.0)["share_skipped"] > 0
    assert [line.age for line in lines if not line.way.startswith("skip")] == [0] * (12 - len(skipped))
    assert all(line.age > 0 for line in skipped)
    exact, _ = taken(lr=0.01, count=12, method="exact")  # nothing is capped: the same run
    assert [line.audited_ratio for line in lines] == pytest.approx([line.ratio for line in exact], rel=1e-4)


def test_a_step_that_moves_nothing_is_no_step_to_audit():
    lines, _ = taken(lr=0.0)
    assert {line.status for line in lines} == {""}
    found = outcome(lines, 1.0)
    assert (found["steps"], found["audited"]) == (8, 0)
    assert math.isnan(found["share_above_105"])
    assert math.isnan(found["worst"])


def test_too_long_is_counted_in_units_of_the_target():
    lines = [INSIDE, CAPPED, *(replace(CAPPED, audited_ratio=ratio) for ratio in (1.04, 1.06, 1.3))]
    found = outcome(lines, 1.0)
    assert (found["above_105"], found["share_above_105"], found["worst"]) == (2, 0.4, 1.3)
    found = outcome(lines, 2.0)
    assert (found["above_105"], found["worst"]) == (0, 0.65)


def test_steps_that_were_not_audited_count_for_nothing_in_the_audit():
    found = outcome([INSIDE, replace(CAPPED, audited_ratio=math.nan), replace(CAPPED, audited_ratio=1.1)], 1.0)
    assert (found["steps"], found["audited"], found["share_above_105"]) == (3, 2, 0.5)
    assert (found["capped"], found["capped_median"]) == (2, 1.1)


def test_moving_less_is_not_protection():
    """Exact r of the proposal is audited r over scale: 0.8 was needlessly halved, 0.99 is too near to say so."""
    lines = [INSIDE, replace(CAPPED, audited_ratio=0.4), replace(CAPPED, audited_ratio=0.495), CAPPED]
    found = outcome(lines, 1.0)
    assert (found["within"], found["needless"]) == (2, 1)
    assert found["capped_median"] == 0.495


def test_skipped_touched_and_undone_steps_are_counted():
    undone = replace(INSIDE, status="undone", scale=0.0, way="", audited_ratio=math.nan)
    found = outcome([INSIDE, replace(INSIDE, touched=True), CAPPED, undone], 1.0)
    assert (found["share_skipped"], found["share_capped"]) == (0.5, 0.25)
    assert (found["inside"], found["touched"], found["undone"]) == (2, 1, 1)


def test_a_touch_is_seen_in_the_run():
    """A hook that comes after the guard moves a parameter that the guard left alone."""
    seed_everything(7)
    task = digits_mlp(7)
    optimizer = torch.optim.SGD(task.model.parameters(), lr=0.05)
    with Witness(optimizer) as witness, attach(task.model, optimizer) as guard:
        bias = task.model[0].bias
        optimizer.register_step_post_hook(lambda *_: bias.data[0].add_(1e-6) if guard.last.step >= 2 else None)
        lines = list(steps(task, optimizer, guard, witness, Disturbance(), 4, seed=7))
    assert [line.touched for line in lines] == [False, False, True, True]


def test_a_record_has_one_list_for_each_column():
    assert columns([INSIDE, CAPPED])["scale"] == [1.0, 0.5]
    assert all(len(column) == 2 for column in columns([INSIDE, CAPPED]).values())
