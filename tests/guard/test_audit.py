"""The audit: which steps it measures again, what it counts, and that training does not feel it."""

from __future__ import annotations

import math

import pytest
import torch

from safestep import Cap, MeasurementError, Radius, Reading, SafestepWarning, SoftmaxRadius, Status, Watch
from zoo import ALL, ZOO, Training, poison, said
from zoo.asserts import assert_identical, assert_untouched
from zoo.loop import Loop


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1, math.nan, math.inf])
def test_a_share_outside_its_range_is_refused(fraction):
    with pytest.raises(ValueError, match="fraction="):
        Loop().guard.audit(fraction)


@pytest.mark.parametrize("fraction", [1.0, 0.5, 0.3, 0.1, 0.01])
def test_every_stretch_of_steps_has_its_share(fraction):
    """Multiples of the golden ratio: of n steps in a row n f are audited, give or take two."""
    loop = Loop()
    audit = loop.guard.audit(fraction)
    loop.steps(300)
    chosen = [step in audit.excesses for step in range(300)]
    for length in (1, 10, 37, 300):
        for start in range(0, 300 - length + 1, 13):
            assert abs(sum(chosen[start : start + length]) - fraction * length) <= 2


def test_the_choice_depends_on_the_number_of_the_step_alone():
    def chosen(**options):
        loop = Loop(**options)
        audit = loop.guard.audit(0.3)
        return list(audit.excesses) if loop.steps(30) else None

    torch.manual_seed(5)
    first = chosen()
    torch.manual_seed(6)
    assert chosen(lr=3.0, policy=Cap(0.1)) == first


@pytest.mark.parametrize("policy", [Cap(1.0), Cap(0.01), Watch()], ids=str)
@pytest.mark.parametrize("case", ["mlp", "cnn", "chancy", "checkpoint", "checkpoint-reentrant", "annealed"])
def test_training_is_bit_for_bit_what_it_is_without_an_audit(case, policy):
    plain = Training(ZOO[case], ALL["AdamW"])
    guard = plain.attach(policy=policy)
    with said(ZOO[case].warns):  # the first measurements are exact
        left = plain.steps(6).everything()
    training = Training(ZOO[case], ALL["AdamW"])
    audited = training.attach(policy=policy)
    audit = audited.audit()
    with said(ZOO[case].warns):
        training.steps(6)
    assert_untouched(training.everything(), left)
    assert audit.count == 6
    rows = [report.row() for report in audited.history]
    assert all(row.pop("audited_ratio") > 0 for row in rows)
    assert_identical(rows, [report.row() for report in guard.history])
    assert_identical(audited.state_dict(), guard.state_dict())


@pytest.mark.parametrize(
    "policy",
    [Cap(0.2), Cap(lambda step: 0.01 * (1 + step)), Watch(Cap(0.5)), Watch()],
    ids=["cap", "schedule", "watch-cap", "watch"],
)
def test_it_measures_what_was_applied_in_units_of_the_target(policy):
    """Against an exact guard that watches the same training: r of the proposal, times the scale that was applied."""
    watched, loop = (
        Loop(lr=0.0, policy=Watch(), radius=SoftmaxRadius(method="exact")),
        Loop(lr=0.5, policy=policy, radius=SoftmaxRadius()),
    )
    audit = loop.guard.audit()
    for step in range(12):
        for mine, theirs in zip(watched.model.parameters(), loop.parameters(), strict=True):
            mine.data.copy_(theirs)
        watched.step(lr=0.5)
        loop.step()
        applied = watched.guard.last.ratio * loop.guard.last.scale
        target = loop.guard.last.target
        assert loop.guard.last.extras["audited_ratio"] == pytest.approx(applied, rel=1e-3)
        assert audit.excesses[step] == pytest.approx(applied / (1.0 if math.isnan(target) else target), rel=1e-3)


def filled(excesses, unmeasured=0):
    audit = Loop().guard.audit()
    audit.excesses, audit.unmeasured = dict(enumerate(excesses)), unmeasured
    return audit


def test_its_figures_by_hand():
    audit = filled([0.5, 1.0, 1.06, 1.3])
    assert (audit.count, audit.worst) == (4, 1.3)
    assert [audit.share_above(limit) for limit in (0.4, 1.0, 1.05, 1.3)] == [1.0, 0.5, 0.5, 0.0]
    assert str(audit) == "audit of 4 steps: 50.00% above 1.05 target, worst 1.3 target"
    assert repr(audit) == f"<{audit}>"
    assert "2 could not be measured" in str(filled([1.0], unmeasured=2))


def test_nan_is_the_worst_of_all_and_above_every_limit():
    audit = filled([0.5, math.nan, 2.0])
    assert math.isnan(audit.worst)
    assert audit.share_above(10.0) == pytest.approx(1 / 3)


def test_before_the_first_step_nothing_is_known():
    audit = Loop().guard.audit()
    assert (audit.count, str(audit)) == (0, "audit: no step audited yet")
    assert math.isnan(audit.worst)
    assert math.isnan(audit.share_above(1.0))


def test_an_undone_step_moved_nothing_and_is_not_audited():
    training = Training(ZOO["mlp"], ALL["SGD"])
    guard = training.attach()
    audit = guard.audit()
    training.step()
    training.step(between=poison)
    training.step()
    assert guard.history["status"] == [Status.INSIDE, Status.UNDONE, Status.INSIDE]
    assert list(audit.excesses) == [0, 2]


def test_a_skipped_step_is_not_audited():
    training = Training(ZOO["mlp"], ALL["SGD"])
    guard = training.attach(on_nonfinite="skip")
    audit = guard.audit()
    training.step(between=poison)
    training.step()
    assert list(audit.excesses) == [1]


class Plain(Radius):
    """A radius that knows no other way of measuring than its own."""

    def __init__(self, ratio):
        self.ratio = ratio

    def measure(self, proposal, state):
        if self.ratio is None:
            raise MeasurementError("not today")
        return Reading(proposal.step.index, self.ratio, "plain"), None


def test_a_radius_without_an_exact_kin_is_its_own_audit():
    loop = Loop(radius=Plain(4.0), policy=Cap(2.0))
    audit = loop.guard.audit()
    loop.steps(3)
    assert audit.excesses == {0: 2.0, 1: 2.0, 2: 2.0}  # Plain sees no difference in a scaled step


def test_what_cannot_be_measured_is_counted():
    loop = Loop(radius=Plain(None), policy=Watch())
    audit = loop.guard.audit()
    with pytest.warns(SafestepWarning, match="not today"):
        loop.steps(3)
    assert (audit.count, audit.unmeasured) == (0, 3)
    assert math.isnan(loop.guard.last.extras["audited_ratio"])


def test_two_audits_of_one_guard_agree():
    loop = Loop()
    one, other = loop.guard.audit(), loop.guard.audit(0.5)
    loop.steps(10)
    assert one.count == 10
    assert other.excesses.items() <= one.excesses.items()


def test_an_audit_ends_deciding_unread():
    """It needs the forwards of a step while they are there."""
    loop = Loop(radius=SoftmaxRadius(sync="never")).steps(6)
    audit = loop.guard.audit()
    loop.steps(6)
    assert list(audit.excesses) == list(range(6, 12))
