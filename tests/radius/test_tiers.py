"""When r is measured, when a part of the rows will do, and when nothing is measured at all."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import nn

from safestep import Cap, Pin, SoftmaxRadius, Status, Tiers, Watch
from safestep.radius.tiers import Track
from safestep.recording.step import Vitals
from zoo.asserts import assert_identical, assert_same_reports
from zoo.loop import Loop as Plain
from zoo.loop import network


def Loop(model=None, *, guarded=True, radius=SoftmaxRadius(), **options):  # noqa: B008  # in place of the class
    """Return the plain loop under the radius that has tiers."""
    return Plain(model, guarded=guarded, **({"radius": radius} if guarded else {}), **options)


QUIET = Track(rates=(0.5, 1.0, 0.7), length=0.1, half_l1_logit_grad=1.0, age=3)
"""Three measurements, the largest r / ||p|| of which is 1: a step of length 0.1 is expected to have r = 0.1."""
STEP = Vitals(length=0.1, directional_derivative=0.1 * math.pi, half_l1_logit_grad=1.0)
"""Its free bound is 0.1."""


# -- the rule ---------------------------------------------------------------------------------------------------------


def test_a_quiet_step_is_skipped():
    assert Tiers().choose(QUIET, STEP, 1.0) == "skip"


TRIP_WIRES = {
    "bound": (QUIET, dataclasses.replace(STEP, directional_derivative=0.16 * math.pi)),
    "bound-downhill": (QUIET, dataclasses.replace(STEP, directional_derivative=-0.16 * math.pi)),
    "length": (dataclasses.replace(QUIET, length=0.03), STEP),
    "logit gradient": (
        dataclasses.replace(QUIET, half_l1_logit_grad=0.49),
        dataclasses.replace(STEP, directional_derivative=0.0),
    ),
    "age": (dataclasses.replace(QUIET, age=15), STEP),
    "margin": (dataclasses.replace(QUIET, rates=(1.7, 1.0, 0.7)), STEP),
    "oldest-rate-counts": (dataclasses.replace(QUIET, rates=(0.1, 0.1, 1.7)), STEP),
    "few-measurements": (dataclasses.replace(QUIET, rates=(1.0, 1.0)), STEP),
}


@pytest.mark.parametrize(("track", "vitals"), TRIP_WIRES.values(), ids=TRIP_WIRES)
def test_each_trip_wire_alone_ends_the_quiet(track, vitals):
    assert Tiers().choose(track, vitals, 1.0) == "sample"
    assert Tiers(rows=1).choose(track, vitals, 1.0) == "full"
    assert Tiers().choose(dataclasses.replace(track, samples=False), vitals, 1.0) == "full"
    assert Tiers().choose(dataclasses.replace(track, samples=True), vitals, 1.0) == "sample"


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"bound": 0.17}, "bound"),
        ({"length_jump": 4.0}, "length"),
        ({"logit_grad_jump": 2.1}, "logit gradient"),
        ({"every": 17}, "age"),
        ({"margin": 2.9}, "margin"),
        ({"inside": 0.6}, "margin"),
    ],
    ids=str,
)
def test_each_trip_wire_has_its_threshold(options, name):
    assert Tiers(**options).choose(*TRIP_WIRES[name], 1.0) == "skip"


@pytest.mark.parametrize(
    ("track", "vitals", "target"),
    [
        (Track(), STEP, 1.0),  # nothing known
        (QUIET, dataclasses.replace(STEP, length=0.5), 1.0),  # half the target
        (QUIET, STEP, 0.2),  # a smaller target
        (dataclasses.replace(QUIET, rates=(1.0, 1.0, math.inf)), STEP, 1.0),
        (QUIET, dataclasses.replace(STEP, length=math.nan), 1.0),
        (QUIET, dataclasses.replace(STEP, length=math.inf), 1.0),
    ],
)
def test_a_step_that_may_be_near_the_target_is_measured_whole(track, vitals, target):
    assert Tiers().choose(track, vitals, target) == "full"


def test_a_sample_is_taken_only_of_a_step_that_is_clearly_inside():
    """inside = 0.5 of the target, sampled = 0.5 of that."""
    for expected, tier in ((0.24, "sample"), (0.26, "full")):
        assert Tiers().choose(dataclasses.replace(QUIET, rates=(10 * expected,) * 3), STEP, 1.0) == tier
    assert Tiers(sampled=0.4).choose(dataclasses.replace(QUIET, rates=(2.4,) * 3), STEP, 1.0) == "full"


def test_the_free_bound_is_looked_at_only_where_the_margin_is_narrow():
    """3 R ||p|| against a quarter of inside = 0.5; and while too little is known to skip anything."""
    for expected, needed in ((0.04, False), (0.043, True)):
        track = dataclasses.replace(QUIET, rates=(10 * expected,) * 3)
        assert Tiers().needs_bound(track, 1.0) is needed
        assert Tiers().needs_bound(track, 0.5) is True  # a smaller target, a narrower margin
    assert Tiers().needs_bound(Track(), 1.0)
    assert Tiers().needs_bound(dataclasses.replace(QUIET, rates=(0.1, 0.1)), 1.0)
    assert Tiers(wired=0.0).needs_bound(dataclasses.replace(QUIET, rates=(0.0,) * 3), 1.0) is True


def test_what_cannot_be_had_trips_nothing():
    assert Tiers().choose(QUIET, Vitals(0.1), 1.0) == "skip"


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_thresholds_are_in_units_of_the_target(scale):
    """r, target and bound scaled together make the same choice: only the ratio to the target counts."""
    for track, vitals in [(QUIET, STEP), *TRIP_WIRES.values()]:
        scaled = dataclasses.replace(track, rates=tuple(rate * scale for rate in track.rates))
        stretched = dataclasses.replace(vitals, directional_derivative=vitals.directional_derivative * scale)
        assert Tiers().choose(scaled, stretched, scale) == Tiers().choose(track, vitals, 1.0)


def test_the_track_keeps_the_last_three_measurements():
    track = Track()
    for ratio in (1.0, 2.0, 3.0, 4.0):
        track = track.skipped().measured(ratio, Vitals(length=2.0, half_l1_logit_grad=0.3))
    assert track.rates == (1.0, 1.5, 2.0)
    assert (track.length, track.half_l1_logit_grad, track.age) == (2.0, 0.3, 0)
    assert track.expected(3.0) == 6.0
    assert track.skipped().skipped().age == 2
    assert math.isnan(Track().expected(1.0))
    assert Track.from_state(track.as_state()) == track


@pytest.mark.parametrize(
    "options",
    [
        {"margin": 0.9},
        {"inside": -0.1},
        {"inside": 1.1},
        {"bound": -1.0},
        {"length_jump": 0.5},
        {"logit_grad_jump": 0.5},
        {"floor": 1.5},
        {"sampled": 1.1},
        {"wired": -0.1},
        {"margin": math.nan},
        {"every": 0},
        {"every": 2.5},
        {"every": True},
        {"rows": 0},
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(options):
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=rf"Tiers\({name}={value!r}"):
        Tiers(**options)


def test_something_else_than_tiers_is_refused():
    with pytest.raises(TypeError, match="Tiers"):
        SoftmaxRadius(tiers=16)


# -- in training ------------------------------------------------------------------------------------------------------


def test_far_inside_most_steps_are_skipped_and_their_age_is_told():
    loop = Loop().steps(60)
    assert "skip" not in loop.ways[:3]  # three measurements before anything is predicted
    assert loop.ways.count("skip") > 40
    assert set(loop.ways) == {"probe", "sample", "skip"}
    for before, report in zip(loop.reports, loop.reports[1:], strict=False):
        assert report.age == (before.age + 1 if report.method == "skip/train" else 0)
        assert not report.exact
    assert max(report.age for report in loop.reports) == Tiers().every - 1
    assert {report.status for report in loop.reports} == {Status.INSIDE}


@pytest.mark.parametrize("every", [1, 2, 5])
def test_r_is_measured_again_in_time(every):
    loop = Loop(radius=SoftmaxRadius(tiers=Tiers(every=every))).steps(30)
    assert max(report.age for report in loop.reports) == every - 1


@pytest.mark.parametrize("factor", [1e2, 1e4, 1e6])
def test_a_spike_of_the_rate_is_measured_at_once_and_capped(factor):
    loop = Loop(lr=0.01)
    audit = loop.guard.audit()
    loop.steps(20)
    assert loop.ways[-1] == "skip"
    loop.step(lr=0.01 * factor)
    assert loop.guard.last.age == 0
    assert (loop.guard.last.status is Status.CAPPED) == (loop.guard.last.ratio > 1.0)
    assert factor < 1e4 or loop.guard.last.status is Status.CAPPED
    assert audit.count == 21
    assert audit.worst <= 1.05


def test_a_prediction_is_never_far_below_r_where_the_model_does_not_change():
    """A linear model and a small rate: r / ||p|| of the batches hardly differs from step to step."""
    loop = Loop(nn.Linear(4, 3))
    loop.guard.audit()
    loop.steps(60)
    skipped = [report for report in loop.reports if report.age]
    assert len(skipped) > 30
    assert all(report.extras["audited_ratio"] <= 2 * report.predicted_ratio for report in skipped)


@pytest.mark.parametrize("policy", [Cap(1.0), Watch(Cap(1.0)), Watch()], ids=str)
def test_resumed_in_the_middle_of_a_skip_it_is_the_run_that_was_not_stopped(policy):
    whole = Loop(policy=policy).steps(10)
    assert whole.ways[-1] == "skip"
    saved = {"model": whole.model.state_dict(), "guard": whole.guard.state_dict()}
    saved = {key: {k: v.clone() if hasattr(v, "clone") else v for k, v in part.items()} for key, part in saved.items()}
    reports = whole.steps(20).reports[10:]
    again = Loop(network(), policy=policy)
    again.model.load_state_dict(saved["model"])
    again.guard.load_state_dict(saved["guard"])
    again.index = 10
    again.steps(20)
    assert_identical(again.parameters(), whole.parameters())
    assert_same_reports(again.reports, reports)
    assert again.reports[0].age == reports[0].age > 0


def test_pin_needs_r_of_every_step():
    loop = Loop(policy=Pin(1e-4)).steps(20)
    assert set(loop.ways) == {"probe"}
    watched = Loop(policy=Watch(Pin(1e-4))).steps(20)
    assert set(watched.ways) == {"probe"}


@pytest.mark.parametrize("policy", [Watch(), Watch(Cap(1.0)), Cap(math.inf)], ids=str)
def test_policies_that_need_no_exact_value_skip(policy):
    assert Loop(policy=policy).steps(30).ways.count("skip") > 15


def test_an_infinite_cap_leaves_every_step_alone_however_long():
    plain, loop = Loop(lr=100.0, guarded=False).steps(10), Loop(lr=100.0, policy=Cap(math.inf)).steps(10)
    assert_identical(loop.parameters(), plain.parameters())


def test_a_target_that_drops_is_kept_at_once():
    loop = Loop(policy=Cap(lambda step: 1e-5 if step == 10 else 1.0))
    loop.steps(10)
    assert loop.ways[-1] == "skip"
    audit = loop.guard.audit()
    loop.step()
    assert loop.ways[-1] == "probe"
    assert loop.guard.last.status is Status.CAPPED
    assert audit.worst == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"radius": SoftmaxRadius(over=0.9)}, "a quantile of a part is none of the whole"),
        ({"rows": 7}, "two rows at least"),
        ({"radius": SoftmaxRadius(tiers=Tiers(rows=1))}, "nobody wants it"),
        ({"radius": SoftmaxRadius(mode="eval")}, "there are no recorded logits of an eval forward to compare with"),
        ({"layers": [nn.BatchNorm1d(8)]}, "statistics of a part are not those of the batch"),
        ({"layers": [nn.Dropout(0.5)]}, "masks of a part are not those of the batch"),
    ],
    ids=["quantile", "few-rows", "rows-1", "eval", "batch-norm", "dropout"],
)
def test_where_rows_cannot_stand_for_the_batch_they_never_do(options, why):
    model = network(*options.pop("layers", []))
    # age 1 at most, so that every other step is measured
    options = {"radius": SoftmaxRadius(tiers=Tiers(every=2))} | options
    loop = Loop(model, **options).steps(40)
    assert "sample" not in loop.ways, why
    assert set(loop.ways) == {"probe", "skip"}


def test_where_they_can_they_do():
    assert "sample" in Loop(radius=SoftmaxRadius(tiers=Tiers(every=2))).steps(40).ways
    frozen = network(nn.BatchNorm1d(8)).eval()  # statistics that do not follow the batch
    assert "sample" in Loop(frozen, radius=SoftmaxRadius(tiers=Tiers(every=2))).steps(40).ways


class TiesItsRows(nn.Module):
    """Raises for any other batch than the one it was made for."""

    def __init__(self, rows):
        super().__init__()
        self.body, self.rows = network(), rows

    def forward(self, x):
        if len(x) != self.rows:
            raise ValueError(f"expected {self.rows} rows")
        return self.body(x)


def test_a_model_that_refuses_a_part_is_probed_whole():
    loop = Loop(TiesItsRows(32), radius=SoftmaxRadius(tiers=Tiers(every=2))).steps(20)
    assert set(loop.ways) == {"probe", "skip"}


# -- decided on the device --------------------------------------------------------------------------------------------

NEVER = SoftmaxRadius(sync="never")


def test_far_inside_a_step_decided_on_the_device_is_left_alone_bit_for_bit():
    plain, loop = Loop(guarded=False), Loop(radius=NEVER)
    for _ in range(40):
        plain.step()
        loop.step()
        assert_identical(loop.parameters(), plain.parameters())
    assert loop.ways.count("skip") > 25
    assert [report.step for report in loop.reports] == list(range(40))
    assert {report.status for report in loop.reports} == {Status.INSIDE}


def test_a_spike_decided_on_the_device_is_shortened_and_the_next_step_measured():
    loop = Loop(lr=0.01, radius=NEVER).steps(10)
    assert loop.ways[-1] == "skip"
    start = loop.parameters()
    loop.step(lr=1e4)
    report = loop.guard.last
    assert report.method == "skip/train"
    assert report.status is Status.CAPPED
    assert report.scale * report.predicted_ratio == pytest.approx(1 / Tiers().margin)
    assert math.isnan(report.ratio)
    assert math.isnan(report.applied_ratio)
    assert "shortened early" in report.message
    moved = math.sqrt(sum((b - a).square().sum().item() for a, b in zip(start, loop.parameters(), strict=True)))
    assert moved == pytest.approx(report.applied_length, rel=1e-4)
    loop.step()
    assert loop.ways[-1] == "probe"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_step_that_is_not_finite_is_undone_on_the_device(bad):
    loop = Loop(radius=NEVER).steps(10)
    assert loop.ways[-1] == "skip"
    start = loop.parameters()
    loop.backward()
    next(loop.model.parameters()).grad[0, 0] = bad
    loop.optimizer.step()
    assert_identical(loop.parameters(), start)
    assert loop.guard.last.status is Status.UNDONE
    loop.step()
    assert loop.guard.last.status is Status.INSIDE


def test_the_state_of_a_pending_step_is_saved_with_it():
    """state_dict settles what the device has decided: resumed, the run is the one that was not stopped."""
    whole = Loop(radius=NEVER).steps(10)
    model, guard = {k: v.clone() for k, v in whole.model.state_dict().items()}, whole.guard.state_dict()
    reports = whole.steps(20).reports[10:]
    again = Loop(network(), radius=NEVER)
    again.model.load_state_dict(model)
    again.guard.load_state_dict(guard)
    again.index = 10
    again.steps(20)
    assert_identical(again.parameters(), whole.parameters())
    assert_same_reports(again.reports, reports)


@pytest.mark.parametrize("policy", [Cap(1.0), Watch(Cap(1.0))], ids=str)
def test_asked_after_every_step_or_at_the_end_the_reports_are_the_same(policy):
    asked, left = Loop(radius=NEVER, policy=policy), Loop(radius=NEVER, policy=policy)
    seen = []
    for index in range(30):
        for loop in (asked, left):
            loop.step(lr=5.0 if index == 20 else 1e-3)
        seen.append(asked.guard.last)
    assert_same_reports(left.reports, seen)
    assert_identical(left.parameters(), asked.parameters())


def test_watching_never_writes_though_nobody_reads():
    plain, loop = Loop(guarded=False), Loop(radius=NEVER, policy=Watch(Cap(1.0)))
    for index in range(30):
        plain.step(lr=50.0 if index == 20 else 1e-3)
        loop.step(lr=50.0 if index == 20 else 1e-3)
    assert_identical(loop.parameters(), plain.parameters())
    assert loop.reports[20].would_scale < 1.0
    assert {report.status for report in loop.reports} == {Status.WATCHED}


@pytest.mark.parametrize("options", [{"method": "exact"}, {"method": "probe"}, {"policy": Pin(1e-3)}], ids=str)
def test_where_every_step_is_measured_there_is_nothing_to_decide_unread(options):
    policy = options.get("policy", Cap(1.0))
    loop = Loop(radius=SoftmaxRadius(method=options.get("method", "tiered"), sync="never"), policy=policy).steps(10)
    assert "skip" not in loop.ways
    assert torch.isfinite(torch.cat([p.flatten() for p in loop.parameters()])).all()
