"""Runs are the same one at a time and many at a time, and a killed process leaves nothing that writes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from safestep.errors import SafestepError
from safestep.experiments import find
from safestep.experiments.runner.engine import execute, jobs_for
from safestep.experiments.runner.experiment import Run, key_of
from safestep.experiments.runner.rundir import RunDirectory, read_records, read_results
from safestep.experiments.runner.session import Session


def carry_out(path: Path, name: str, changes: list[str], seeds: list[int], jobs: int) -> Session:
    experiment = find(name)
    with RunDirectory(path) as directory:
        session = Session(directory, experiment, experiment.settings.parse(changes), seeds)
        for _ in session.run(jobs):
            pass
    return session


def told(path: Path) -> tuple[list, list, bytes]:
    results = read_results(path)
    return results["rows"], results["summary"], (path / "records.jsonl").read_bytes()


@pytest.mark.slow
def test_no_number_depends_on_how_many_run_at_a_time(tmp_path):
    changes = ["epochs=1", "lrs=0.5"]
    for jobs in (1, 2):
        carry_out(tmp_path / str(jobs), "digits-sgd", changes, [7, 8], jobs)
    assert told(tmp_path / "1") == told(tmp_path / "2")


@pytest.mark.parametrize(
    ("runs", "seconds", "jobs", "expected"),
    [
        (1, 1000.0, -1, 1),  # never more than there are runs
        (3, 0.0, 2, 2),  # as told, whether it pays or not
        (3, 0.0, 8, 3),
        (1000, 0.0, -1, 4),  # one per core
        (0, 0.0, 4, 1),
        (7, 0.5, None, 1),  # 3.5 s in all: sooner done than four processes are there
        (7, 100.0, None, 4),
        (1, 1000.0, None, 1),
    ],
)
def test_jobs_are_bounded_by_the_runs_and_by_the_cores_and_have_to_pay(runs, seconds, jobs, expected, monkeypatch):
    import joblib

    monkeypatch.setattr(joblib, "cpu_count", lambda: 4)
    assert jobs_for(runs, seconds, jobs) == expected


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_of_a_run_comes_through_alone(jobs, tmp_path):
    class Failing:
        def execute(self, settings, run):
            yield {"label": run.label, "seed": run.seed}
            raise ArithmeticError(run.label)

    # Warnings are errors here: joblib's, that the other runs were cancelled, would come instead.
    with pytest.raises(ArithmeticError):
        list(execute(Failing(), None, [Run(label, 1) for label in "abcdef"], tmp_path, jobs))


def test_a_process_that_dies_is_explained(tmp_path):
    class Dying:  # a local class travels to the other process by value
        def execute(self, settings, run):
            os.kill(os.getpid(), signal.SIGKILL)
            yield {}

    with pytest.raises(SafestepError, match=r"a process that carried out runs died.*fewer --jobs"):
        list(execute(Dying(), None, [Run("a", 1), Run("b", 1)], tmp_path, jobs=2))


def ps(*options: str) -> list[str]:
    return subprocess.run(["ps", *options], capture_output=True, text=True, check=False).stdout.splitlines()


def alive(pids: list[int]) -> list[int]:
    lines = ps("-o", "pid=,stat=", "-p", ",".join(map(str, pids)))
    return [int(line.split()[0]) for line in lines if not line.split()[1].startswith("Z")]


def wait_for(condition, seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def stopped_in_mid_run(process: subprocess.Popen, path: Path) -> bool:
    """Stop a run, so that no more rows are kept, and say if it has records of an unfinished one; else let it go on."""
    process.send_signal(signal.SIGSTOP)
    done = {key_of(row) for row in read_results(path)["rows"]}
    if any(key_of(record) not in done for record in read_records(path)[0]):
        return True
    process.send_signal(signal.SIGCONT)
    return False


@pytest.mark.slow
def test_a_killed_run_continues_to_the_rows_of_one_that_was_not(tmp_path):
    changes = ["epochs=60", "lrs=0.05,0.5", "width=16", "batch_size=700"]
    path = tmp_path / "killed"
    command = [sys.executable, "-m", "safestep", "run", "digits-sgd", "--out", str(path), "--jobs", "2"]
    command += [word for change in changes for word in ("--set", change)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: (path / "results.json").exists() and read_results(path)["rows"])
        wait_for(lambda: stopped_in_mid_run(process, path))
        children = [int(line) for line in ps("-o", "pid=", "--ppid", str(process.pid))]
        process.kill()
    kept = read_results(path)["rows"]
    assert 0 < len(kept) < 5
    session = carry_out(path, "digits-sgd", changes, [7], jobs=1)  # while orphans may still be at work
    assert "a killed run left" in session.note
    assert f"continuing with {5 - len(kept)} of 5 runs" in session.note
    carry_out(tmp_path / "whole", "digits-sgd", changes, [7], jobs=1)
    assert told(path) == told(tmp_path / "whole")
    assert [row for row in session.results["rows"] if row in kept] == kept
    wait_for(lambda: not alive(children))
    assert json.loads((path / "records.jsonl").read_text().splitlines()[-1])["label"] == "pin"
