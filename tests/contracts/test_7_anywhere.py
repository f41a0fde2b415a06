"""Contract 7 at every step: stopped after any of them and taken up by another object, a run is the run that was not."""

from __future__ import annotations

import pytest

from safestep import Cap, CurvatureRadius, Pin, SecantCurvature, SoftmaxRadius, Throttle, Tiers, Tightest
from zoo.asserts import assert_identical, assert_same_reports
from zoo.checkpoints import STEPS, Journey, loaded

QUICK = Tiers(every=5)
GUARDS = {
    "exact": {"radius": SoftmaxRadius(method="exact"), "policy": Cap(0.1)},
    "probe": {"radius": SoftmaxRadius(method="probe"), "policy": Cap(0.1)},
    "tiered": {"radius": SoftmaxRadius(tiers=QUICK), "policy": Cap(lambda step: 3.0 if step % 4 else 0.1)},
    "never": {"radius": SoftmaxRadius(tiers=QUICK, sync="never"), "policy": Cap(1.0)},
    "pin": {"policy": Pin(lambda step: 0.05 / (1 + step))},
    "order-0": {"policy": Throttle(chi=0.2)},
    "order-1": {"policy": Throttle(order=1)},
    "order-2": {"policy": Throttle(order=2)},
    "secant": {"radius": SecantCurvature(), "policy": Throttle(chi=1.9, order=1, start=1.0), "sgd": True},
    "tightest": {"radius": Tightest({SoftmaxRadius(tiers=QUICK): 0.2, CurvatureRadius(): 0.1}), "sgd": True},
}
SEEN = {
    "exact": {"tangents", "forward-mode"},
    "tiered": {"probe", "skip"},
    "never": {"probe", "skip"},
    "tightest": {"SoftmaxRadius: probe", "CurvatureRadius: forward-mode"},
}
"""Ways of measuring that the runs below must have gone, or they would show nothing."""


@pytest.fixture(params=GUARDS, scope="module")
def name(request):
    return request.param


@pytest.fixture(scope="module")
def whole(name):
    """The run that was not stopped, and what it saved after every step."""
    journey = Journey(**GUARDS[name])
    return journey, [journey.saved(), *(journey.steps(1).saved() for _ in range(STEPS))]


def test_the_runs_show_something(name, whole):
    reports = whole[0].reports
    assert {report.method.split("/")[0] for report in reports} >= SEEN.get(name, set())
    assert len(reports) == STEPS - 1  # the scaler skipped one
    assert len({report.scale for report in reports}) > 2


def test_saving_disturbs_nothing(name, whole):
    silent = Journey(**GUARDS[name]).steps(STEPS)
    assert_identical(silent.everything(), whole[0].everything())
    assert_same_reports(silent.reports, whole[0].reports)


def test_stopped_after_any_step(name, whole):
    """Two steps later all is the same, what the guard remembers included, and so is whatever follows."""
    journey, saved = whole
    for stop in range(STEPS):
        resumed, rest = Journey(seed=99, **GUARDS[name]).load(saved[stop]), min(2, STEPS - stop)
        first = resumed.guard.state_dict()["step"]
        resumed.steps(rest)
        assert_identical(resumed.everything(), loaded(saved[stop + rest]), f"stopped after {stop}")
        assert_same_reports(resumed.reports, journey.reports[first : first + len(resumed.reports)])


def test_the_same_objects_go_back_and_forth(name, whole):
    """A run that diverged is taken up from an earlier checkpoint: nothing of what is undone shows."""
    journey, saved = whole
    again = Journey(seed=99, **GUARDS[name]).load(saved[2]).steps(5).load(saved[9]).steps(2)
    again.optimizer.zero_grad()
    again.model(again.batch()[0]).sum().backward()  # what was under way counts for nothing
    reports = len(again.reports)
    again.load(saved[4]).steps(STEPS - 4)
    assert_identical(again.everything(), loaded(saved[STEPS]))
    assert_same_reports(again.reports[reports:], journey.reports[4:])


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")  # that is how it says: in a single process
def test_through_a_distributed_checkpoint(name, whole, tmp_path):
    """As `docs/resume.md` has it. Torch takes a step of its own to learn what an optimizer keeps: it is not counted."""
    (journey, saved), stop = whole, 7
    Journey(**GUARDS[name]).load(saved[stop]).save_distributed(tmp_path)
    resumed = Journey(seed=99, **GUARDS[name]).load_distributed(tmp_path)
    first = resumed.guard.state_dict()["step"]
    assert resumed.reports == []
    resumed.steps(STEPS - stop)
    assert_identical(resumed.everything(), loaded(saved[STEPS]))
    assert_same_reports(resumed.reports, journey.reports[first:])
