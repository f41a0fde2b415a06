"""Run directories that were damaged by hand: a page that says what is missing, or one message; nothing is lost."""

from __future__ import annotations

import json
import random
import re
import shutil

import pytest
from typer.testing import CliRunner

from experiments.damage import damage
from safestep.cli import app as cli
from safestep.experiments import find
from safestep.experiments.report import figures
from safestep.experiments.report.gaps import gaps
from safestep.experiments.runner.rundir import RunDirectory, read_records, require_results
from safestep.experiments.runner.session import Session

RUNS = {
    "digits-sgd": ["epochs=2", "width=4", "lrs=0.5", "batch_size=700"],
    "noise-floor": ["rates=0.1,0.2", "batches=1,4", "noises=gaussian", "runs=50", "most_steps=40", "unstable_steps=20"],
    "noisy-descent": ["runs=50", "steps=10", "long_steps=20"],
    "drift-throttle": ["runs=B", "laws=secant", "drift_steps=20", "warmup_steps=5", "samples=40"],
    "limits": ["steps=2", "tasks=digits-mlp", "optimizers=sgd", "statistics=curvature", "rates=1,3", "tuning_seeds=5"],
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Real runs of several experiments, two seeds each."""
    folder = tmp_path_factory.mktemp("whole")
    for name, settings in RUNS.items():
        experiment = find(name)
        with RunDirectory(folder / name) as directory:
            list(Session(directory, experiment, experiment.settings.parse(settings), [0, 1]).run(1))
    return folder


@pytest.fixture
def undrawn(monkeypatch):
    """Make every figure, and put none on disk: that takes most of the time and has its own tests."""
    monkeypatch.setattr(figures, "save", lambda figure, path: (figures._words(figure), path)[1])


def report(directory):
    """Report a damaged run: it must end in a page, or in one message of ours, with the records as they were."""
    kept = {file.name: file.read_bytes() for file in directory.glob("*.json*")}
    told = CliRunner().invoke(cli.app, ["report", str(directory)])
    assert {file.name: file.read_bytes() for file in directory.glob("*.json*")} == kept
    assert told.exception is None or isinstance(told.exception, SystemExit), repr(told.exception)
    page = directory / "report.html"
    if told.exit_code == 0:
        return " ".join(re.sub("<[^>]+>", " ", page.read_text(encoding="utf-8")).split())
    assert told.exit_code == 2
    assert told.stderr.startswith("safestep: ")
    assert told.stderr.count("\n") == 1
    return told.stderr


def damaged(whole, tmp_path, name):
    return shutil.copytree(whole / name, tmp_path / name)


@pytest.mark.parametrize("name", RUNS)
def test_a_whole_run_has_no_gaps(whole, tmp_path, name, undrawn):
    path = damaged(whole, tmp_path, name)
    assert read_records(path)[1] == []
    assert gaps(require_results(path), path, drawn=True) == []
    report(path)


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("seed", range(6))
def test_no_damage_ends_in_a_traceback(whole, tmp_path, name, seed, undrawn):
    path = damaged(whole, tmp_path, name)
    damage(path, random.Random(f"{name} {seed}"))
    report(path)


def edit(path, change):
    results = json.loads((path / "results.json").read_text(encoding="utf-8"))
    change(results)
    (path / "results.json").write_text(json.dumps(results), encoding="utf-8")


def lines_of(path):
    return (path / "records.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)


@pytest.mark.parametrize("value", ["high", [1.0], {}, 10**400])
def test_another_value_where_a_number_belongs_is_told_in_one_message(whole, tmp_path, value, undrawn):
    path = damaged(whole, tmp_path, "digits-sgd")
    edit(path, lambda results: results["rows"][1].update(final_acc=value))
    assert "the figures cannot be made of " in report(path)


def test_a_line_that_cannot_be_drawn_is_told_and_kept(whole, tmp_path, undrawn):
    path = damaged(whole, tmp_path, "digits-sgd")
    lines = lines_of(path)
    lines[2] = json.dumps({**json.loads(lines[2]), "train_loss": "low"}) + "\n"
    (path / "records.jsonl").write_text("".join(lines), encoding="utf-8")
    assert re.search(r"the figures cannot be made of .*could not convert string to float: 'low'", report(path))
    experiment = find("digits-sgd")
    with RunDirectory(path) as directory:  # a run that goes on here drops nothing of a finished run
        settings = experiment.settings.parse(RUNS["digits-sgd"])
        list(Session(directory, experiment, settings, [0, 1, 2]).run(1))
    assert sum('"low"' in line for line in lines_of(path)) == 1


@pytest.mark.parametrize("name", RUNS)
def test_half_of_the_records_missing_is_told(whole, tmp_path, name, undrawn):
    path = damaged(whole, tmp_path, name)
    (path / "records.jsonl").write_text("".join(lines_of(path)[::2]), encoding="utf-8")
    told = report(path)
    assert "This page is incomplete" in told
    assert re.search(r"Records are lost: \d+ of \d+", told)


def test_rows_that_should_be_there_are_told(whole, tmp_path, undrawn):
    path = damaged(whole, tmp_path, "digits-sgd")
    gone = []

    def change(results):
        gone.extend(row["label"] for row in results["rows"][:2])
        results["rows"] = results["rows"][2:]
        results["summary"] = results["summary"][1:]

    edit(path, change)
    records = [line for line in lines_of(path) if json.loads(line)["label"] not in gone]
    (path / "records.jsonl").write_text("".join(records), encoding="utf-8")
    assert f"Rows are missing: {gone[0]}, seed 0; {gone[0]}, seed 1" in report(path)


def test_an_experiment_that_nobody_knows_is_told(whole, tmp_path, undrawn):
    path = damaged(whole, tmp_path, "digits-sgd")
    edit(path, lambda results: results.update(experiment="digits-sdg"))
    assert "This safestep knows no experiment digits-sdg" in report(path)


def test_what_no_check_foresees_is_one_message(whole, tmp_path, undrawn):
    path = damaged(whole, tmp_path, "noise-floor")
    edit(path, lambda results: results["settings"].pop("samples"))
    assert "the figures cannot be made of " in report(path)
    assert require_results(path)["rows"]
