"""Runs on a Dask cluster: the same bytes as here, and every way it may fail is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import distributed
import pytest

from experiments.counting import Counting, CountingSettings
from safestep import SafestepError
from safestep.experiments import find
from safestep.experiments.runner import on_dask
from safestep.experiments.runner.errand import Errand
from safestep.experiments.runner.experiment import Run
from safestep.experiments.runner.on_dask import Engine
from safestep.experiments.runner.rundir import RunDirectory, read_results
from safestep.experiments.runner.session import Session

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning:distributed")]
NAME, CHANGES, SEEDS = "drift-throttle", ["runs=warmup,B", "warmup_steps=8", "drift_steps=10"], range(12)


@pytest.fixture(scope="module")
def cluster():
    with pytest.MonkeyPatch.context() as patch:
        # workers find the runs of this file by its name, whichever way pytest was started
        patch.syspath_prepend(Path(__file__).parents[2])
        with distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=True, dashboard_address=":0", memory_limit=0, silence_logs=50
        ) as cluster:
            yield cluster


@pytest.fixture
def address(cluster, monkeypatch):
    monkeypatch.setattr(on_dask, "_CONNECT_SECONDS", 300.0)  # it may share its cores with others
    monkeypatch.setattr(on_dask, "_WORKER_SECONDS", 600.0)
    return cluster.scheduler_address


@dataclass(frozen=True, kw_only=True)
class Errant(Counting):
    """What its run does is its label; it leaves marks in a directory."""

    path: Path = field(default=Path())

    def execute(self, settings, run):
        mark = self.path / run.label
        if run.label == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if run.label == "fails":
            raise ArithmeticError("fails")
        for count in range(settings.length):
            if run.label == "long":
                time.sleep(0.02)
                with mark.open("a") as file:
                    file.write("x")
            yield {"label": run.label, "seed": run.seed, "count": count}
        return {"label": run.label, "seed": run.seed}


def errands(path, *labels, length=3):
    return [Errand(Errant(path=path), CountingSettings(length=length), Run(label, 1)) for label in labels]


def carry_out(path: Path, engine: Engine | None, jobs: int | None = None) -> Session:
    experiment = find(NAME)
    with RunDirectory(path) as directory:
        session = Session(directory, experiment, experiment.settings.parse(CHANGES), SEEDS)
        for _ in session.run(jobs, engine):
            pass
    return session


def told(path: Path) -> tuple[list, list, bytes]:
    results = read_results(path)
    return results["rows"], results["summary"], (path / "records.jsonl").read_bytes()


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """The same runs in this process."""
    path = tmp_path_factory.mktemp("here")
    carry_out(path, None, 1)
    return told(path)


def test_no_number_depends_on_where_it_was_made(address, here, tmp_path):
    carry_out(tmp_path / "there", Engine("dask", address))
    assert told(tmp_path / "there") == here


def wait_for(condition, seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_a_killed_command_leaves_nothing_running_and_is_continued(cluster, address, here, tmp_path):
    path = tmp_path / "killed"
    command = [sys.executable, "-m", "safestep", "run", NAME, "--out", str(path), "--seeds", "0-11"]
    command += ["--engine", address.replace("tcp:", "dask:"), "--jobs", "1"]
    command += [word for change in CHANGES for word in ("--set", change)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout.readline() == f"{NAME}: {len(here[0])} runs on {command[-9]}, 1 at a time, in {path}\n"
        wait_for(lambda: (path / "results.json").exists() and read_results(path)["rows"])
        process.kill()
    kept = read_results(path)["rows"]
    assert 0 < len(kept) < len(here[0])
    wait_for(lambda: not cluster.scheduler.tasks)
    session = carry_out(path, Engine("dask", address))
    assert f"continuing with {len(here[0]) - len(kept)} of {len(here[0])} runs" in session.note
    assert told(path) == here


def test_an_interrupt_ends_what_is_under_way_at_its_next_record(cluster, address, tmp_path):
    outcomes = Engine("dask", address).outcomes(errands(tmp_path, "ends", "long", length=1000), None)
    next(outcomes)
    mark = tmp_path / "long"
    wait_for(mark.exists)
    outcomes.close()  # as an exception in the caller does
    wait_for(lambda: not cluster.scheduler.tasks)

    def at_rest():
        written = mark.stat().st_size
        time.sleep(0.3)  # fifteen records
        return mark.stat().st_size == written

    wait_for(at_rest)  # the worker takes note at the next record, whenever it comes to that
    assert mark.stat().st_size < 1000


def test_an_error_of_a_run_comes_through_alone(address, tmp_path):
    with pytest.raises(ArithmeticError, match="fails"):
        list(Engine("dask", address).outcomes(errands(tmp_path, "a", "fails", "b"), 2))


def test_no_scheduler_is_told(monkeypatch):
    monkeypatch.setattr(on_dask, "_CONNECT_SECONDS", 0.3)
    with pytest.raises(SafestepError, match=r"no Dask scheduler answers at tcp://127.0.0.1:9 \(.*without --engine"):
        list(Engine("dask", "tcp://127.0.0.1:9").outcomes([], None))
    with pytest.raises(SafestepError, match=r"no Dask scheduler answers at no/such/file.json"):
        list(Engine("dask", "no/such/file.json").outcomes([], None))


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1", "tcp://127.0.0.1:port", "tcp://127.0.0.1:99999", "tcp://:8786", "slurm://host:8786"]
)
def test_what_is_no_address_is_told_at_once(address):
    with pytest.raises(SafestepError, match=rf"no Dask scheduler answers at {address} \("):
        list(Engine("dask", address).outcomes([], None))


@pytest.mark.parametrize("held", [b"", b"\xff", b"[]", b'{"id": 1}', b'{"address": "here"}'])
def test_a_damaged_scheduler_file_is_told_at_once(held, tmp_path):
    (tmp_path / "scheduler.json").write_bytes(held)
    with pytest.raises(SafestepError, match=r"no Dask scheduler answers at .*scheduler.json \("):
        list(Engine("dask", str(tmp_path / "scheduler.json")).outcomes([], None))


def test_a_cluster_without_workers_and_a_lost_one_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(on_dask, "_WORKER_SECONDS", 0.2)
    with distributed.LocalCluster(n_workers=0, processes=True, dashboard_address=":0", silence_logs=50) as empty:
        file = tmp_path / "scheduler.json"
        file.write_text(f'{{"address": "{empty.scheduler_address}"}}')
        with pytest.raises(SafestepError, match=r"has no worker since 0.2 s: start some .*the same command continues"):
            list(Engine("dask", str(file)).outcomes(errands(tmp_path, "a"), None))


def test_jobs_are_how_many_are_handed_in_at_a_time(address, tmp_path, monkeypatch):
    submit, submitted = on_dask._submit, []
    monkeypatch.setattr(on_dask, "_submit", lambda client, errand: submitted.append(errand) or submit(client, errand))
    counts = [len(submitted) for _ in Engine("dask", address).outcomes(errands(tmp_path, *"abcdef"), 2)]
    assert counts == [3, 4, 5, 6, 6, 6]  # two of them, and one more for each that has come home
    submitted.clear()
    next(Engine("dask", address).outcomes(errands(tmp_path, *"abcdef"), None))
    assert len(submitted) == 6


def test_a_run_that_kills_its_workers_is_given_up(cluster, address, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster.scheduler, "allowed_failures", 0)
    with pytest.raises(
        SafestepError, match=r"carried out dies, seed 1 died one after another.*What was finished is kept"
    ):
        list(Engine("dask", address).outcomes(errands(tmp_path, "dies"), None))
