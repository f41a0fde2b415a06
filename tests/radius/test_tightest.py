"""The tightest of several radii: whichever binds, and one derivative for those that share it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safestep import Cap, CurvatureRadius, SoftmaxRadius, Status, Tightest, Watch
from safestep.guard.checkpoint import Saved
from safestep.jvp.selection import Route
from safestep.radius.tiers import Tiers
from safestep.recording.proposal import Proposal
from zoo import ALL, ZOO, Training, examples

EXACT = SoftmaxRadius(method="exact")


def ratios(radius, steps=3, policy=None, recipe="SGD"):
    training = Training(ZOO["mlp"], ALL[recipe], big=True)
    guard = training.attach(radius=radius, policy=policy or Watch())
    training.steps(steps)
    return guard.history


@given(softmax=st.floats(1e-3, 1e3), curvature=st.floats(1e-3, 1e3))
@examples(15)
def test_r_is_the_largest_in_units_of_the_targets(softmax, curvature):
    one, other = ratios(EXACT)["ratio"], ratios(CurvatureRadius())["ratio"]
    both = ratios(Tightest({EXACT: softmax, CurvatureRadius(): curvature}))
    expected = [max(a / softmax, b / curvature) for a, b in zip(one, other, strict=True)]
    assert both["ratio"] == pytest.approx(expected, rel=1e-12)
    names = [
        "SoftmaxRadius" if a / softmax >= b / curvature else "CurvatureRadius" for a, b in zip(one, other, strict=True)
    ]
    assert [method.split(":")[0] for method in both["method"]] == names


def test_each_radius_is_kept_to_its_own_target():
    targets = {EXACT: 0.05, CurvatureRadius(): 0.4}
    history = ratios(Tightest(targets), policy=Cap(1.0), steps=6)
    assert set(history["status"]) <= {Status.CAPPED, Status.INSIDE, Status.HELD}
    for radius, target in targets.items():
        training = Training(ZOO["mlp"], ALL["SGD"], big=True)
        guard = training.attach(radius=Tightest(targets))
        measured = []

        def applied(step, forwards, report, radius=radius, measured=measured):
            measured.append(radius.measure(Proposal(step.applied(), forwards), None)[0].ratio)
            return {}

        guard._columns.diagnostics = (applied,)
        training.steps(6)
        assert max(measured) <= target * (1 + 1e-3)


def test_exact_radii_share_one_derivative(monkeypatch):
    calls, derivative = [], Route.derivative

    def counting(self, *args):
        calls.append(1)
        return derivative(self, *args)

    monkeypatch.setattr(Route, "derivative", counting)
    ratios(Tightest({EXACT: 1.0, CurvatureRadius(): 1.0}))
    assert len(calls) == 3


def test_the_tiered_method_still_leaves_out_what_it_may():
    training = Training(ZOO["mlp"], ALL["SGD"])
    guard = training.attach(radius=Tightest({SoftmaxRadius(): 1e3, CurvatureRadius(): 1e-9}), policy=Watch())
    training.steps(8)
    ages = [
        part["track"]["age"] for part in [Saved.of(guard.state_dict(), guard.radius, guard.policy).radius["parts"][0]]
    ]
    assert ages[0] > 0


def test_what_one_radius_reads_off_the_step_is_not_lost_to_the_next(monkeypatch):
    """The free bound on r, the tripwire of the tiered method, needs g.p and e."""
    vitals, choose = [], Tiers.choose

    def watched(self, track, norms, target):
        vitals.append(norms)
        return choose(self, track, norms, target)

    monkeypatch.setattr(Tiers, "choose", watched)
    ratios(Tightest({SoftmaxRadius(): 1.0, EXACT: 1.0}), policy=Cap(1.0))
    assert all(one.directional_derivative is not None and one.half_l1_logit_grad is not None for one in vitals)
    assert vitals


def test_an_audit_measures_all_of_them_exactly():
    training = Training(ZOO["mlp"], ALL["SGD"], big=True)
    guard = training.attach(radius=Tightest({SoftmaxRadius(): 1.0, CurvatureRadius(): 0.75}))
    audit = guard.audit()
    training.steps(5)
    assert audit.count == 5
    assert audit.worst <= 1.05


def test_the_order_of_the_radii_is_part_of_the_state_and_survives_a_checkpoint():
    training = Training(ZOO["mlp"], ALL["SGD"])
    guard = training.attach(radius=Tightest({EXACT: 1.0, CurvatureRadius(): 0.75}))
    training.steps(2)
    assert len(Saved.of(guard.state_dict(), guard.radius, guard.policy).radius["parts"]) == 2


@pytest.mark.parametrize("target", [0.0, -1.0, math.inf, math.nan])
def test_targets_are_positive_numbers(target):
    with pytest.raises(ValueError, match="positive number"):
        Tightest({EXACT: target})


def test_something_else_than_radii_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        Tightest({})
    with pytest.raises(TypeError, match="no radius"):
        Tightest({SoftmaxRadius: 1.0})
