"""What attach(log=...) takes, and what happens to training and to the other logs when one fails."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

import safestep
from logs.reports import run
from safestep.errors import AttachError, SafestepWarning
from safestep.logs import Csv, Every, JsonLines, Sink, read
from zoo.cases import ZOO
from zoo.optimizers import ALL
from zoo.training import Training


class Recorder(Sink):
    """A sink of a user's, with everything a sink may have."""

    def __init__(self, fails_at: int | None = None, fails_to: str = "") -> None:
        self.calls: list[str] = []
        self.fails_at, self.fails_to = fails_at, fails_to

    def open(self) -> None:
        self._note("open")

    def __call__(self, report: safestep.StepReport) -> None:
        if report.step == self.fails_at:
            raise OSError("no space left")
        self._note(str(report.step))

    def close(self) -> None:
        self._note("close")

    def _note(self, what: str) -> None:
        self.calls.append(what)
        if what == self.fails_to:
            raise OSError(f"cannot {what}")


def test_several_logs_at_once(tmp_path):
    sink = Recorder()
    run(steps=2, log=[tmp_path / "a.jsonl", str(tmp_path / "b.csv"), Csv(tmp_path / "c.txt"), sink]).detach()
    assert (tmp_path / "a.jsonl").read_text().startswith('{"')
    assert [(tmp_path / name).read_text()[:4] for name in ("b.csv", "c.txt")] == ["step"] * 2
    assert sink.calls == ["open", "0", "1", "close"]


def test_a_suffix_of_ones_own_is_json_lines(tmp_path):
    run(steps=1, log=tmp_path / "steps.log").detach()
    assert (tmp_path / "steps.log").read_text().startswith('{"')


def test_none_and_an_empty_list_log_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(steps=1, log=None).detach()
    run(steps=1, log=[]).detach()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("log", [3, [3], JsonLines, {"a": 1}, [None], b"steps.jsonl"], ids=str)
def test_what_is_no_log_is_refused_before_anything_is_opened(log, tmp_path):
    with pytest.raises(AttachError, match=r"log=.*expected a path"):
        run(log=[tmp_path / "first.jsonl", *log] if isinstance(log, list) else log)
    assert not list(tmp_path.iterdir())


def test_a_log_that_cannot_be_opened_closes_the_others(tmp_path):
    sink = Recorder()
    (tmp_path / "notes").touch()
    with pytest.raises(OSError, match="notes"):
        run(log=[sink, tmp_path / "notes" / "steps.csv"])
    assert sink.calls == ["open", "close"]


def test_a_missing_folder_is_made(tmp_path):
    logs = [tmp_path / "runs" / "first" / "steps.csv", tmp_path / "others" / "steps.jsonl"]
    run(steps=1, log=logs).detach()
    assert all(log.read_text() for log in logs)


@pytest.mark.parametrize("name", ["x.txt", "x.JSON", "x.tsv"])
def test_a_suffix_of_another_format_is_refused_with_those_that_are_known(name, tmp_path):
    with pytest.raises(AttachError, match=r"x\.\w+'\: expected .*\.csv .*\.jsonl .*log=safestep\.JsonLines\('.*x\."):
        run(log=tmp_path / name)
    assert not list(tmp_path.iterdir())
    run(steps=1, log=safestep.JsonLines(tmp_path / name)).detach()
    assert (tmp_path / name).read_text().startswith('{"')


def test_one_that_fails_is_said_once_dropped_and_closed_while_the_others_go_on(tmp_path):
    sink, path = Recorder(fails_at=1), tmp_path / "steps.jsonl"
    with pytest.warns(SafestepWarning, match="stops at step 1.*no space left") as caught:
        guard = run(log=[sink, path])
    guard.detach()
    assert len(caught) == 1
    assert sink.calls == ["open", "0", "close"]
    assert read(path)["step"] == guard.history["step"] == [0, 1, 2, 3, 4]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("sink", [JsonLines, Csv])
def test_a_full_disk_ends_no_run(sink):
    with pytest.warns(SafestepWarning, match="stops at step 0.*No space left"):
        guard = run(log=sink("/dev/full"))
    assert len(guard.history) == 5


def test_a_log_that_fails_to_close_is_said():
    guard = run(steps=1, log=[Recorder(fails_to="close"), Every(2, Recorder(fails_to="close"))])
    with pytest.warns(SafestepWarning, match="failed when it was closed.*cannot close") as caught:
        guard.detach()
    assert len(caught) == 2


def test_training_is_the_same_with_every_log(tmp_path):
    plain, logged = run(), run(log=[tmp_path / "a.jsonl", tmp_path / "b.csv"])
    assert repr(list(plain.history)) == repr(list(logged.history))


def test_a_guard_that_goes_closes_its_logs(tmp_path, collected):
    sinks = Recorder(), JsonLines(tmp_path / "steps.jsonl")
    run(steps=1, log=sinks)
    collected()
    assert sinks[0].calls[-1] == "close"
    assert sinks[1]._file is None


def test_one_sink_for_two_guards(tmp_path):
    sink = JsonLines(tmp_path / "both.jsonl")
    first = run(steps=1, log=sink)
    with pytest.warns(SafestepWarning, match="or of another guard, up to step 0"):
        second = run(steps=1, log=sink)
    first.detach()
    second.detach()
    assert len(read(sink.path, superseded=True)) == 2


def test_a_pipe_is_no_file_to_look_into(tmp_path):
    """Neither its end nor its header can be read; a reader of it gets every line."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    run(steps=2, log=pipe).detach()
    assert os.read(reader, 1 << 16).count(b"\n") == 2
    os.close(reader)


def test_what_a_probe_returns_is_a_number_in_every_log(tmp_path):
    paths = [tmp_path / "steps.jsonl", tmp_path / "steps.csv"]
    probe = lambda step, seen, report: {"t": torch.tensor(0.5), "n": np.float32(0.25), "flag": True}  # noqa: E731
    training = Training(ZOO["mlp"], ALL["SGD"])
    watched = training.attach(diagnostics=[probe], log=paths)
    training.step()
    for history in (watched.history, *map(read, paths)):
        assert history[-1].extras == {"t": 0.5, "n": 0.25, "flag": True}
    watched.detach()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 and later, of processes with threads
def test_a_process_that_was_forked_off_closes_no_log():
    """TensorBoard's closing would wait for ever there, for a thread that was not forked with it."""
    sink = Recorder()
    guard = run(steps=1, log=sink)
    child = os.fork()
    if child == 0:
        guard.detach()
        os._exit("close" in sink.calls)
    assert os.waitpid(child, 0)[1] == 0
    guard.detach()
    assert sink.calls[-1] == "close"


def test_a_sink_is_derived_and_a_typo_in_one_is_an_error():
    class Almost:
        def __call__(self, report):
            pass

        def close(self):
            pass

    class Misspelt(Sink):
        def __cal__(self, report):
            pass

    with pytest.raises(AttachError, match=r"has close.*derive it from safestep\.logs\.Sink"):
        run(log=Almost())
    with pytest.raises(TypeError, match="abstract"):
        Misspelt()
