"""W&B, offline: what its own file holds, and that the loop's rows are what they were."""

from __future__ import annotations

import json
import math
import struct
import warnings

import pytest

from logs.reports import inside, report, run
from safestep import Status
from safestep.errors import SafestepWarning
from safestep.logs import WandB

wandb = pytest.importorskip("wandb")


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Start offline runs that keep to tmp_path, and return what their files hold. No process is left behind."""
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "own"))
    started = []

    def start(**options):
        settings = wandb.Settings(
            x_disable_stats=True, x_disable_meta=True, x_disable_machine_info=True, console="off", silent=True
        )
        started.append(wandb.init(mode="offline", dir=str(tmp_path), project="p", settings=settings, **options))
        return started[-1]

    def held(run):
        started.remove(run)
        run.finish()
        wandb.teardown()  # the file is complete when the service has ended
        (file,) = tmp_path.glob(f"wandb/offline-run-*/run-{run.id}.wandb")
        return records(file.read_bytes())

    start.held = held
    yield start
    for one in started:
        one.finish()
    wandb.teardown()


def records(data):
    """Return rows and metrics of a .wandb file: a leveldb log of protocol buffers, in blocks of 32 KiB."""
    from wandb.proto import wandb_internal_pb2

    rows, metrics, place, record = [], {}, 7, b""
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, size, kind = struct.unpack("<IHB", data[place : place + 7])
        record += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last piece
            one, record = wandb_internal_pb2.Record.FromString(record), b""
            if one.HasField("history"):
                items = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in one.history.item}
                rows.append({key: value for key, value in items.items() if key not in ("_runtime", "_timestamp")})
            elif one.HasField("metric"):
                metrics[one.metric.name or one.metric.glob_name] = one.metric.step_metric
    return rows, metrics


def column(rows, name):
    return [row[f"safestep/{name}"] for row in rows if f"safestep/{name}" in row]


def test_a_run_comes_back_on_its_own_step(runs):
    logged = runs()
    guard = run(log=WandB(logged))
    guard.detach()
    rows, metrics = runs.held(logged)
    assert column(rows, "step") == [0, 1, 2, 3, 4]
    for name in ("ratio", "scale", "step_length", "effective_lr"):
        assert column(rows, name) == pytest.approx(guard.history[name], rel=1e-15, nan_ok=True)
    assert column(rows, "status") == guard.history["status"]
    assert column(rows, "message") == guard.history["message"]
    assert column(rows, "late") == [math.inf] * 2
    drawn = {name: over for name, over in metrics.items() if name.startswith("safestep/")}
    assert drawn.pop("safestep/step") == ""
    assert {"safestep/ratio", "safestep/status", "safestep/effective_lr"} <= drawn.keys() or "safestep/*" in drawn
    assert set(drawn.values()) == {"safestep/step"}


def looped(runs, guarded, log, count=6, **options):
    """Run a loop that logs in its own way, with or without a guard's reports before its own line."""
    run = runs()
    sink = WandB(run, **options) if guarded else lambda report: None
    for step in range(count):
        sink(inside(step))
        log(run, step)
    return runs.held(run)[0]


LOOPS = {
    "each step": lambda run, step: run.log({"loss": step}),
    "each step, numbered": lambda run, step: run.log({"loss": step}, step=step),
    "every third, numbered": lambda run, step: step % 3 == 0 and run.log({"loss": step}, step=step),
    "numbered from far": lambda run, step: run.log({"loss": step}, step=step + 1000),
}


@pytest.mark.parametrize("loop", LOOPS)
def test_the_rows_of_the_loop_are_what_they_were(runs, loop):
    """W&B drops what goes backwards: a guard that took rows of its own first would cost the loop all of its own."""

    def own(rows):
        return [(row["_step"], row["loss"]) for row in rows if "loss" in row]

    plain = looped(runs, False, LOOPS[loop])
    rows = looped(runs, True, LOOPS[loop])
    assert own(rows) == own(plain)
    assert len(own(rows)) > 1
    assert column(rows, "step") == list(range(6))  # and none of the guard's is lost


def test_a_loop_that_never_logs_gets_every_report(runs):
    assert column(looped(runs, True, lambda run, step: None), "step") == list(range(6))


def test_a_loop_that_counts_epochs_keeps_its_rows_where_the_guard_takes_none(runs):
    def epochs(run, step):
        if step % 3 == 2:
            run.log({"loss": step}, step=step // 3)

    rows = looped(runs, True, epochs, own_rows=False)
    assert [(row["_step"], row["loss"]) for row in rows if "loss" in row] == [(0, 2), (1, 5)]
    assert column(rows, "step")[-1] == 5


def test_the_step_may_go_backwards(runs):
    """A run that goes on from an older checkpoint counts steps again."""
    logged = runs()
    sink = WandB(logged)
    for step in (0, 1, 2, 1, 2, 3):
        sink(inside(step))
    assert column(runs.held(logged)[0], "step") == [0, 1, 2, 1, 2, 3]


def test_the_run_is_the_one_there_is_when_a_report_comes(runs):
    sink = WandB(prefix="student")
    first = runs()
    sink(inside(0))
    first.finish()
    second = runs()
    sink(inside(1, status=Status.PINNED))
    rows, metrics = runs.held(second)
    assert [(row["student/step"], row["student/status"]) for row in rows] == [(1, "pinned")]
    assert "student/step" in metrics.values()


def test_without_a_run_the_log_stops_and_says_what_to_do():
    assert wandb.run is None
    with pytest.warns(SafestepWarning, match=r"stops at step 0.*call wandb\.init\(\)"):
        guard = run(log=WandB())
    assert len(guard.history) == 5


def test_a_run_that_is_switched_off_takes_reports_in_silence():
    off = wandb.init(mode="disabled")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(log=WandB(off)).detach()
    off.finish()


def test_a_report_after_the_end_of_the_run_ends_no_training(runs, monkeypatch):
    logged = runs()
    sink = WandB(logged)
    sink(report(0))
    logged.finish()
    # of a run that is over it waits for 30 s
    monkeypatch.setattr(type(logged), "step", property(lambda _: pytest.fail("asked for `run.step`")))
    with pytest.warns(SafestepWarning, match="stops at step 0"):
        assert len(run(log=sink).history) == 5
