"""drift-throttle: what was to be met, over a few seeds; and the experiment kept, resumed, drawn and told."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from safestep.experiments import find
from safestep.experiments.report.figures import draw
from safestep.experiments.report.page import write_page
from safestep.experiments.runner.experiment import key_of
from safestep.experiments.runner.rundir import RunDirectory, read_records, read_results
from safestep.experiments.runner.session import Session
from safestep.experiments.runner.settings import SettingError
from safestep.lab.affine_teacher import PUBLISHED, AffineTeacher
from safestep.tools.diagnostics import FIELDS

EXPERIMENT = find("drift-throttle")
SEEDS = (0, 1, 2)
SMALL = EXPERIMENT.settings(calm_epochs=1, samples=200)
COLUMNS = {
    "run", "law", "seed", "diverged", "first_loss", "peak_loss", "final_loss", "alpha_first", "alpha_settled",
    "steps_to_1e-4", "steps_above_limit",
}  # fmt: skip


def carry_out(path, settings=SMALL, seeds=(7,)):
    with RunDirectory(path) as directory:
        session = Session(directory, EXPERIMENT, settings, seeds)
        missing = [run.key for run in session.missing]
        for _ in session.run(jobs=1):
            pass
    return missing


def executed(settings, seeds):
    """Return the row and the losses of every run."""
    found = []
    for run in EXPERIMENT.runs(settings, seeds):
        steps, losses = EXPERIMENT.execute(settings, run), []
        while True:
            try:
                losses += next(steps)["loss"]
            except StopIteration as end:
                found.append((end.value, losses))
                break
    return found


@pytest.fixture(scope="module")
def published():
    settings = EXPERIMENT.settings(runs=("B", "C"), sharpness=False, fields=("loss", "alpha"))
    found = executed(settings, SEEDS)
    return {law: [one for one in found if one[0]["law"] == law] for law in ("none", "secant", "curvature")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "drift-throttle"
    carry_out(directory)
    draw(directory)
    write_page(directory)
    return directory


def drifted(row):
    return AffineTeacher(seed=row["seed"]).drifted(row["gain"])


def test_without_a_throttle_it_diverges_as_theory_says(published):
    for row, losses in published["none"]:
        factor = (1 - 0.5 * drifted(row).lambda_max) ** 2
        assert row["diverged"]
        assert not math.isfinite(losses[-1])
        grown = [after / before for before, after in pairwise(losses[1:]) if math.isfinite(after)]
        assert len(grown) > 10
        assert grown == pytest.approx([factor] * len(grown), rel=0.01)
        assert (row["growth_low"], row["growth_high"]) == (min(grown), max(grown))


def test_the_secant_law_lets_one_step_through_and_then_holds(published):
    for row, losses in published["secant"]:
        teacher = drifted(row)
        assert not row["diverged"]
        assert row["alpha_first"] == 1.0
        assert row["alpha_second"] == pytest.approx(1.5 / (0.5 * teacher.lambda_max), rel=0.03)
        assert row["alpha_settled"] == pytest.approx(2 / (0.5 * (teacher.lambda_max + teacher.lambda_min)), rel=0.01)
        assert 30 < losses[1] / losses[0] < 70
        assert max(losses) == losses[1]
    assert 21 <= statistics.median(row["steps_to_1e-4"] for row, _ in published["secant"]) <= 27


def floor_of(teacher):
    """Return the loss that the rounding of float32 alone makes, to first order.

    A prediction adds up ``d`` products of which each, and each sum, is rounded to half a unit in the last place.
    """
    largest = max(sum(map(abs, row)) for row in PUBLISHED)  # of the terms of a prediction at the solution
    error = teacher.inputs * torch.finfo(torch.float32).eps * largest
    return teacher.outputs * error**2 / 2


def test_the_default_law_never_rises_whatever_the_gain(published):
    others = EXPERIMENT.settings(
        runs=("C",), laws=("curvature",), gains=(2.0, 8.0, 16.0, 64.0), sharpness=False, fields=("loss", "alpha")
    )
    found = [*published["curvature"], *executed(others, SEEDS)]
    assert len(found) == 5 * len(SEEDS)
    for row, losses in found:
        assert not row["diverged"]
        assert row["peak_over_first"] == 1.0
        assert row["highest_rise"] < floor_of(AffineTeacher()) < 1e-11
        assert losses[-1] < 1e-9
    steps = statistics.median(row["steps_to_1e-4"] for row, _ in published["curvature"])
    assert 20 <= steps <= 36


def test_both_laws_begin_where_the_warm_up_ended(published):
    firsts = [{row["seed"]: losses[0] for row, losses in runs} for runs in published.values()]
    assert firsts[0] == firsts[1] == firsts[2]
    assert len(set(firsts[0].values())) == len(SEEDS)


@pytest.mark.slow
def test_the_calm_run_and_the_warm_up_are_as_published():
    settings = EXPERIMENT.settings(runs=("A", "warmup"), calm_epochs=50, sharpness=False, fields=("loss", "alpha"))
    (calm, losses), (warm, warming) = executed(settings, (42,))
    assert len(losses) == 50 * 32
    assert losses[-1] < 1e-6
    assert calm["steps_above_limit"] == warm["steps_above_limit"] == calm["steps_scaled"] == 0
    assert len(warming) == 20
    assert 0.01 < warming[-1] < 0.15  # slow modes remain
    assert warming == sorted(warming, reverse=True)


def test_every_run_has_its_row_with_the_columns_asked_for(whole):
    results, (records, cut) = read_results(whole), read_records(whole)
    assert cut == []
    found = [(row["run"], row["law"]) for row in results["rows"]]
    assert found == [("A", "none"), ("warmup", "none"), ("B", "none"), ("C", "secant"), ("C", "curvature")]
    for row in results["rows"]:
        assert row.keys() >= COLUMNS
        kept = [record for record in records if key_of(record) == key_of(row)]
        assert sum(len(record["loss"]) for record in kept) == row["steps"]
        assert all(record.keys() >= set(FIELDS) for record in kept)


def test_settings_choose_what_is_kept():
    bare = EXPERIMENT.settings(sharpness=False)
    assert "hessian_lambda_max" not in bare.columns
    assert "curvature_proxy" in bare.columns
    assert EXPERIMENT.settings(fields=("loss", "alpha")).columns == ["loss", "alpha"]
    assert EXPERIMENT.settings().columns == list(FIELDS)


@pytest.mark.parametrize(
    "changes",
    [
        {"runs": ("D",)},
        {"laws": ("none",)},
        {"gains": (0.0,)},
        {"gains": (4.0, 4.0)},
        {"chi": 0.0},
        {"order": 3},
        {"beta": 2.0},
        {"rate": 0.0},
        {"drift_steps": 0},
        {"loss": "l1"},
        {"fields": ("loss",)},
        {"fields": ("all", "loss", "alpha")},
    ],
)
def test_settings_that_cannot_be_used_are_refused(changes):
    with pytest.raises(SettingError, match=f"{next(iter(changes))}="):
        replace(EXPERIMENT.settings(), **changes)


def test_what_is_there_is_not_run_again(whole):
    assert carry_out(whole) == []


def test_a_killed_run_is_told_as_far_as_it_went_and_continued(whole, tmp_path):
    results = read_results(whole)
    lines = (whole / "records.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "records.jsonl").write_text("".join(lines[:3]) + lines[3][:200])
    (tmp_path / "results.json").write_text(json.dumps({**results, "rows": results["rows"][:3], "finished": None}))
    draw(tmp_path)
    assert "cut short" in write_page(tmp_path).read_text(encoding="utf-8")
    assert len(carry_out(tmp_path)) == 2
    assert read_results(tmp_path)["rows"] == results["rows"]


def test_the_page_is_whole_and_every_figure_has_words(whole):
    text = (whole / "report.html").read_text(encoding="utf-8")
    assert "This page is incomplete" not in text
    assert set(EXPERIMENT.words.captions) == set(EXPERIMENT.own_figures)
    for name in EXPERIMENT.own_figures:
        assert f'<figure id="{name}"' in text
    assert '<figure id="drift_losses">' in text
    assert '<figure id="drift_secant" class="wide">' in text  # several columns: scrolls on a phone


def test_a_record_holds_steps_in_a_row():
    """What moved nothing, at the end of float32, has no line: the steps of the others keep their places."""
    settings = EXPERIMENT.settings(runs=("A",), rate=0.5, calm_rate=0.8, calm_epochs=8, samples=200)
    (run,) = EXPERIMENT.runs(settings, [0])
    steps, records = EXPERIMENT.execute(settings, run), []
    while True:
        try:
            records.append(next(steps))
        except StopIteration as end:
            row = end.value
            break
    spans = [(record["first_step"], record["first_step"] + len(record["loss"])) for record in records]
    assert all(end <= first for (_, end), (first, _) in pairwise(spans))
    assert sum(end - first for first, end in spans) == row["steps"]
    assert not row["diverged"]


def test_the_row_tells_the_law_and_the_gain_apart():
    settings = EXPERIMENT.settings(gains=(2.0, 4.0), runs=("B", "C"))
    labels = [run.label for run in EXPERIMENT.runs(settings, [0])]
    assert labels == [
        "B γ=2", "B γ=4", "C γ=2 secant", "C γ=2 curvature", "C γ=4 secant", "C γ=4 curvature",
    ]  # fmt: skip
