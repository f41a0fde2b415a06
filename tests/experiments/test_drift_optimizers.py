"""drift-optimizers: its matrix, a small one carried out and told; what a run comes to; pass and miss from rows."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from safestep.experiments import find
from safestep.experiments.drift.drift_optimizers_cases import BATCHES, OPTIMIZERS, RATES, STUDENTS, rate_of
from safestep.experiments.drift.drift_optimizers_run import (
    HOPELESS,
    PILOTS,
    DescentStep,
    DriftCase,
    descend,
    outcome_of,
    target_loss,
)
from safestep.experiments.report.figures import draw
from safestep.experiments.report.page import write_page
from safestep.experiments.runner.experiment import key_of
from safestep.experiments.runner.rundir import RunDirectory, read_records, read_results
from safestep.experiments.runner.session import Session
from safestep.experiments.runner.settings import SettingError

EXPERIMENT = find("drift-optimizers")
SETTINGS = EXPERIMENT.settings(
    warm_up=5, steps=30, students=("linear",), optimizers=("sgd", "momentum"), batches=("full",)
)
CASE = DriftCase("linear", "sgd", "full", 0.2, "curvature", 1.5, 4.0, 5, 30)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "drift-optimizers"
    with RunDirectory(path) as directory:
        for _ in Session(directory, EXPERIMENT, SETTINGS, [7]).run(jobs=1):
            pass
    draw(path)
    write_page(path)
    return path


def test_the_matrix_is_every_student_optimizer_batch_rate_and_law():
    runs = EXPERIMENT.runs(EXPERIMENT.settings(), [0, 1])
    assert len({run.key for run in runs}) == len(runs) == 3 * 3 * 2 * 2 * 3 * 2 + 3 * 2 * 2 * 2
    assert {run.options["law"] for run in runs} == {"none", "curvature", "secant", "both"}
    assert {run.options["student"] for run in runs if run.options["law"] == "both"} == {"classifier"}


@pytest.mark.parametrize("student", STUDENTS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("batch", BATCHES)
def test_the_harsh_rate_is_the_larger(student, optimizer, batch):
    quiet, harsh = (rate_of(student, optimizer, batch, rate) for rate in RATES)
    assert 0.0 < quiet < harsh


@pytest.mark.parametrize(
    "changes",
    [
        {"laws": ("curvature", "guess")},
        {"students": ()},
        {"rates": ("quiet", "quiet")},
        {"chi": 2.0},
        {"gain": 0.0},
        {"warm_up": 0},
        {"steps": 0},
    ],
)
def test_settings_that_cannot_be_used_are_refused(changes):
    with pytest.raises(SettingError, match=f"{next(iter(changes))}="):
        replace(EXPERIMENT.settings(), **changes)


# -- one run -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("student", STUDENTS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_being_watched_changes_no_loss(student, optimizer):
    case = replace(CASE, student=student, optimizer=optimizer, batch="32", lr=0.01, steps=5)
    alone, watched = ([line.loss for line in descend(replace(case, law=law), 3)] for law in (None, "none"))
    assert alone == watched


@pytest.mark.parametrize("student", STUDENTS)
def test_the_model_of_the_radius_is_that_of_the_loss(student):
    """A wrong name of the loss shows as a factor: r of the first step against the loss itself along the step."""
    # at a rate of 0.1 what float32 parameters round off the step does not show
    lesson = STUDENTS[student](0)
    case = replace(CASE, student=student, lr=0.1, law="none", warm_up=1, steps=1)
    first, second = (line for line in descend(case, 0))
    gradients = torch.autograd.grad(lesson.loss(lesson.model(lesson.inputs), lesson.labels), lesson.model.parameters())
    slope = -0.1 * sum(float(g.square().sum()) for g in gradients)
    p = {name: -0.1 * g for (name, _), g in zip(lesson.model.named_parameters(), gradients, strict=True)}
    start = {name: q.detach() for name, q in lesson.model.named_parameters()}
    outputs, tangent = torch.func.jvp(
        lambda at: torch.func.functional_call(lesson.model, at, (lesson.inputs,)), (start,), (p,)
    )
    _, bend = torch.func.jvp(
        lambda z: torch.func.jvp(lambda at: lesson.loss(at, lesson.labels), (z,), (tangent,))[1],
        (outputs.detach(),),
        (tangent,),
    )
    assert first.ratio == pytest.approx(float(bend) / (-2 * slope), rel=1e-3)
    assert first.status == second.status == "watched"


def test_runs_of_a_seed_begin_alike_and_meet_the_same_batches():
    case = replace(CASE, batch="32", lr=0.01)
    lines = {law: [line.loss for line in descend(replace(case, law=law), 3)] for law in ("none", "curvature", "secant")}
    assert lines["none"][0] == lines["curvature"][0] == lines["secant"][0]
    assert lines["none"] == lines["curvature"]  # nothing to do at this rate, so nothing was done


def test_the_law_of_both_keeps_within_each():
    case = replace(CASE, student="classifier", batch="32", lr=100.0, warm_up=1, steps=1)
    curvature, both = (next(descend(replace(case, law=law), 3)) for law in ("curvature", "both"))
    assert 0.0 < both.scale <= curvature.scale < 1.0


def test_the_drift_comes_after_the_warm_up_and_a_lost_run_ends_with_its_last_record():
    lines = list(descend(replace(CASE, law="none", steps=300), 0))
    losses = [line.loss for line in lines]
    assert losses[5] > 10 * losses[4]
    assert not math.isfinite(losses[-1])
    assert all(map(math.isfinite, losses[:-1]))
    assert lines[-1].status == "diverged"
    assert len(lines) < 305


def test_a_full_batch_step_under_the_throttle_never_climbs_on_a_quadratic():
    losses = [line.loss for line in descend(CASE, 0)][5:]
    assert all(after <= before for before, after in pairwise(losses))


def test_the_target_is_what_quiet_runs_of_other_seeds_have_come_to():
    target = target_loss("linear", "sgd", "full", 4.0, 5, 30)
    quiet = replace(CASE, lr=rate_of("linear", "sgd", "full", "quiet"), law=None)
    reached = sorted([line.loss for line in descend(quiet, seed)][5 + 12] for seed in PILOTS)
    assert target == reached[1]


def lines(*losses, **options):
    return [DescentStep(loss, **{"status": "inside", "ratio": 0.5} | options) for loss in losses]


@pytest.mark.parametrize(
    ("losses", "diverged"),
    [((4.0, 1.0), False), ((4.0, 4.0 * HOPELESS), True), ((4.0, math.inf), True), ((4.0, math.nan), True)],
)
def test_a_run_that_does_not_come_down_has_diverged(losses, diverged):
    found = outcome_of(lines(9.0, *losses), 1, 0.1)
    assert found["diverged"] is diverged
    assert found["steps_to_target"] == math.inf


def test_a_run_that_ends_where_it_began_has_diverged_however_high_it_was_in_between():
    assert outcome_of(lines(2.3, 9.0, 2.29), 1, 0.1)["diverged"] is True
    assert outcome_of(lines(2.3, 9.0, 1.1), 1, 0.1)["diverged"] is False


def test_a_run_that_diverges_in_the_warm_up_has_no_first_loss():
    found = outcome_of(lines(9.0, math.nan), 5, 0.1)
    assert found["diverged"] is True
    assert math.isnan(found["first_loss"])


def test_shares_are_of_the_steps_up_to_the_target():
    held = DescentStep(2.0, "held", math.inf, 0.0)
    found = outcome_of([*lines(9.0, 4.0), held, held, *lines(0.5, 0.4, 0.3)], 1, 1.0)
    assert found["steps_to_target"] == 3
    assert found["held_share"] == found["uphill_share"] == 2 / 4
    assert found["statuses"] == "inside 5, held 2"


# -- the rows ----------------------------------------------------------------------------------------------------------


def test_every_run_has_its_row_and_all_its_steps(whole):
    results, (records, cut) = read_results(whole), read_records(whole)
    assert cut == []
    assert {key_of(row) for row in results["rows"]} == {run.key for run in EXPERIMENT.runs(SETTINGS, [7])}
    for row in results["rows"]:
        kept = [record for record in records if key_of(record) == key_of(row)]
        assert [record["first_step"] for record in kept] == [0, 5]
        assert kept[1]["loss"][0] == row["first_loss"]
        assert kept[1]["loss"][-1] == row["final_loss"]


def test_the_page_is_whole_and_shows_the_picture(whole):
    text = (whole / "report.html").read_text(encoding="utf-8")
    assert "This page is incomplete" not in text
    assert '<figure id="slowdown">' in text
    assert set(EXPERIMENT.words.captions) == {"slowdown"}


def row(law, seed=0, **changes):
    return {
        "label": f"linear, momentum, full, {changes.get('rate', 'quiet')} 0.05: {law}",
        "student": "linear",
        "optimizer": "momentum",
        "batch": "full",
        "rate": "quiet",
        "lr": 0.05,
        "gain": 4.0,
        "law": law,
        "seed": seed,
        "first_loss": 4.0,
        "peak_loss": 4.0,
        "final_loss": 0.1,
        "target_loss": 1.0,
        "diverged": False,
        "steps_to_target": 100,
        "held_share": 0.05,
        "shortened_share": 0.5,
        "uphill_share": 0.05,
    } | changes


def test_medians_are_compared_and_not_single_seeds():
    rows = [row("none", seed, steps_to_target=steps) for seed, steps in enumerate((90, 100, 400))]
    rows += [row("curvature", seed, steps_to_target=steps) for seed, steps in enumerate((95, 105, 100))]
    free, ours = EXPERIMENT.summarise(rows)
    assert (free["slowdown"], ours["slowdown"]) == (1.0, 1.0)
    assert (ours["seeds"], ours["most_slowdown"]) == (3, 1.1)


def test_nothing_is_compared_with_runs_that_diverge():
    (_, ours) = EXPERIMENT.summarise([row("none", diverged=True), row("curvature")])
    assert ours["slowdown"] == "nan"
