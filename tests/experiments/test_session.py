"""Sessions on a run directory: what a killed run left is continued, and nothing that was finished is ever lost."""

from __future__ import annotations

import json

import pytest

from experiments.counting import Counting, CountingSettings
from safestep.errors import RunDirectoryError
from safestep.experiments.runner import session as session_module
from safestep.experiments.runner.rundir import RunDirectory, read_records, read_results
from safestep.experiments.runner.session import Session

SETTINGS = CountingSettings()


def call(path, experiment=None, settings=SETTINGS, seeds=(7,)) -> Session:
    """Carry out a whole session in this process."""
    with RunDirectory(path) as directory:
        session = Session(directory, experiment or Counting(), settings, seeds)
        for _ in session.run(jobs=1):
            pass
        return session


def outcome(path):
    """What must not depend on how often a run was interrupted."""
    results = read_results(path)
    return {key: results[key] for key in ("experiment", "settings", "seeds", "rows", "summary")}, read_records(path)


def interrupted(path, stop, seeds=(7,), error: type[BaseException] = KeyboardInterrupt):
    with pytest.raises(error):
        call(path, Counting(stop=stop, error=error), seeds=seeds)


def test_a_new_directory_holds_rows_records_and_what_bore_on_them(tmp_path):
    session = call(tmp_path, seeds=(7, 8))
    results = read_results(tmp_path)
    assert session.note == ""
    assert results["experiment"] == "counting"
    assert results["settings"] == {"length": 3, "labels": ["one", "two"], "rate": 0.5, "loud": False}
    assert results["seeds"] == [7, 8]
    assert [(row["label"], row["seed"], row["sum"], row["odd"]) for row in results["rows"]] == [
        ("one", 7, 3.5, "inf"),
        ("one", 8, 4.0, "inf"),
        ("two", 7, 3.5, "inf"),
        ("two", 8, 4.0, "inf"),
    ]
    assert results["summary"] == [{"label": "one", "seeds": 2}, {"label": "two", "seeds": 2}]
    assert results["started"] <= results["finished"]
    records, cut = read_records(tmp_path)
    assert (len(records), cut) == (12, [])
    assert records[0] == {"kind": "count", "label": "one", "seed": 7, "count": 0, "odd": "nan"}


def test_the_environment_tells_versions_and_no_machine(tmp_path):
    import platform

    import torch

    environment = call(tmp_path).results["environment"]
    assert environment["torch"] == str(torch.__version__)
    assert environment["python"] == platform.python_version()
    assert environment.keys() == {"python", "torch", "numpy", "scikit-learn", "platform"}
    text = (tmp_path / "results.json").read_text()
    assert platform.node() not in text
    assert str(tmp_path) not in text


@pytest.mark.parametrize("stop", [("one", 7, 0), ("one", 8, 2), ("two", 7, 1), ("two", 8, 2)])
@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_interrupted_run_continues_to_the_same_outcome(tmp_path, stop, error):
    call(tmp_path / "whole", seeds=(7, 8))
    interrupted(tmp_path / "cut", stop, (7, 8), error)
    left = read_results(tmp_path / "cut")
    assert left["finished"] is None
    session = call(tmp_path / "cut", seeds=(7, 8))
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")
    assert session.results["rows"][: len(left["rows"])] == left["rows"]
    assert f"continuing with {4 - len(left['rows'])} of 4 runs" in session.note


def test_what_a_killed_run_left_is_said(tmp_path):
    interrupted(tmp_path, ("two", 7, 2))
    with (tmp_path / "records.jsonl").open("a") as file:
        file.write('{"kind": "count", "la')
    assert call(tmp_path).note == (
        "a killed run left 5 whole lines and 1 cut short; 2 lines of unfinished runs are dropped; "
        "continuing with 1 of 2 runs"
    )
    assert outcome(tmp_path) == (outcome(tmp_path)[0], (read_records(tmp_path)[0], []))
    assert len(read_records(tmp_path)[0]) == 6


def test_a_complete_directory_is_left_as_it_is(tmp_path):
    call(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    session = call(tmp_path, Counting(stop=("one", 7, 0)))  # would be interrupted, did it run
    assert session.note == "all 2 runs are there already"
    assert session.missing == []
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_run_killed_before_its_last_word_is_finished_by_the_next_call(tmp_path):
    call(tmp_path)
    results = read_results(tmp_path)
    (tmp_path / "results.json").write_text(json.dumps({**results, "finished": None}))
    assert call(tmp_path).missing == []
    assert read_results(tmp_path)["finished"] is not None


def test_more_seeds_are_more_missing_runs_and_fewer_are_none(tmp_path):
    call(tmp_path, seeds=(7,))
    more = call(tmp_path, seeds=(3, 7, 5))
    assert [run.key for run in more.missing] == [("one", 3), ("one", 5), ("two", 3), ("two", 5)]
    assert more.results["seeds"] == [7, 3, 5]
    assert [row["seed"] for row in more.results["rows"]] == [7, 3, 5] * 2
    fewer = call(tmp_path, seeds=(5,))
    assert fewer.missing == []
    assert fewer.results["seeds"] == [7, 3, 5]


def test_an_unfinished_seed_not_asked_for_keeps_the_directory_unfinished(tmp_path):
    interrupted(tmp_path, ("two", 8, 0), (7, 8))
    assert call(tmp_path, seeds=(9,)).results["finished"] is None
    assert call(tmp_path, seeds=(8,)).results["finished"] is not None


def test_other_settings_are_refused_by_name_and_nothing_is_changed(tmp_path):
    call(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other = CountingSettings(length=4, labels=("one", "two", "three"))
    with pytest.raises(RunDirectoryError) as error:
        call(tmp_path, settings=other)
    message = str(error.value)
    assert (
        "holds counting with other settings: length=3, labels=one,two there, length=4, labels=one,two,three" in message
    )
    assert "--set length=3 --set labels=one,two, or choose another directory with --out" in message
    assert "rate" not in message
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("other", [{"settings": CountingSettings(length=4)}, {"experiment": Counting(name="summing")}])
def test_where_no_run_was_ever_finished_another_starts_anew(tmp_path, other):
    interrupted(tmp_path, ("one", 7, 2), error=MemoryError)
    session = call(tmp_path, **other, seeds=(8,))
    assert session.note == "no run of another setting that was begun here was ever finished: starting anew"
    call(tmp_path / "whole", **other, seeds=(8,))
    assert outcome(tmp_path) == outcome(tmp_path / "whole")


def test_another_experiment_is_refused_by_name(tmp_path):
    call(tmp_path)
    with pytest.raises(RunDirectoryError, match=r"holds counting, not summing: .*safestep run counting.*--out"):
        call(tmp_path, Counting(name="summing"))


def test_a_directory_continued_elsewhere_says_so(tmp_path, monkeypatch):
    interrupted(tmp_path, ("two", 7, 0))
    here = session_module.environment()
    monkeypatch.setattr(session_module, "environment", lambda: {**here, "torch": "99.0"})
    results = call(tmp_path).results
    assert results["environment"] == here
    assert [later["environment"]["torch"] for later in results["continued"]] == ["99.0"]


def test_rows_of_runs_that_are_no_longer_planned_stay(tmp_path):
    call(tmp_path)
    results = read_results(tmp_path)
    results["rows"].insert(0, {"label": "zero", "seed": 1, "sum": 0.0})
    (tmp_path / "results.json").write_text(json.dumps(results))
    rows = call(tmp_path, seeds=(8,)).results["rows"]
    assert [(row["label"], row["seed"]) for row in rows] == [
        ("one", 7),
        ("one", 8),
        ("two", 7),
        ("two", 8),
        ("zero", 1),
    ]


def test_a_full_disk_half_way_costs_no_row(tmp_path):
    from experiments.test_rundir import files_end_at

    long = CountingSettings(length=40)
    with files_end_at(4500), pytest.raises(RunDirectoryError, match="what was finished so far is kept; make room"):
        call(tmp_path, settings=long)
    assert [row["label"] for row in read_results(tmp_path)["rows"]] == ["one"]
    session = call(tmp_path, settings=long)
    assert "continuing with 1 of 2 runs" in session.note
    call(tmp_path / "whole", settings=long)
    assert outcome(tmp_path) == outcome(tmp_path / "whole")
