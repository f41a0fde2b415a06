"""TensorBoard, read back by TensorBoard's own reader."""

from __future__ import annotations

import math
import sys
import time

import pytest

from logs.reports import inside, report, run
from safestep import Status
from safestep.errors import MissingExtraError
from safestep.logs import TensorBoard, WandB

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def read(directory):
    events = accumulator.EventAccumulator(str(directory), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    scalars = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    texts = {
        tag: [(e.step, e.tensor_proto.string_val[0].decode()) for e in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
    }
    return scalars, texts


def write(directory, *reports, **options):
    sink = TensorBoard(directory, **options)
    sink.open()
    for one in reports:
        sink(one)
    sink.close()


def near(values):
    return pytest.approx(values, rel=2**-23, nan_ok=True)  # an event holds float32


def test_a_run_comes_back_as_scalars_and_texts(tmp_path):
    guard = run(log=TensorBoard(tmp_path))
    guard.detach()
    scalars, texts = read(tmp_path)
    for name in ("ratio", "applied_ratio", "scale", "step_length", "effective_lr"):
        steps, values = zip(*scalars[f"safestep/{name}"], strict=True)
        assert steps == (0, 1, 2, 3, 4)
        assert values == near(guard.history[name])
    assert math.isnan(dict(scalars["safestep/ratio"])[2])
    assert dict(scalars["safestep/scale"])[2] == 0.0
    assert scalars["safestep/late"] == [(3, math.inf), (4, math.inf)]
    ((step, text),) = texts["safestep/lost/text_summary"]
    assert step == 2
    assert text == str(guard.history[2])
    assert "undone" in text


def test_columns_of_several_groups_and_none_where_there_is_nothing(tmp_path):
    extras = {"flag": True, "word": "no number", "ratio": 9.0}
    write(tmp_path, report(0, target=math.nan, radius=math.inf, exact=False, extras=extras), prefix="teacher")
    scalars, texts = read(tmp_path)
    last = {tag.removeprefix("teacher/"): values[-1][1] for tag, values in scalars.items()}
    assert (last["lr"], last["lr/1"], last["effective_lr/1"]) == near((0.1, 0.2, 0.05))
    assert (last["flag"], last["exact"], last["radius"], last["ratio"]) == (1.0, 0.0, math.inf, 4.0)
    assert {"target", "word", "status"}.isdisjoint(last)
    assert not texts


def test_what_a_life_that_was_given_up_wrote_is_hidden(tmp_path):
    write(tmp_path, *(inside(step, ratio=0.25) for step in range(6)))
    write(tmp_path, *(inside(step, ratio=0.5) for step in range(3, 5)))
    assert read(tmp_path)[0]["safestep/ratio"] == [(0, 0.25), (1, 0.25), (2, 0.25), (3, 0.5), (4, 0.5)]


@pytest.mark.parametrize("step", [0, 5])
def test_what_others_wrote_to_the_directory_is_never_hidden(tmp_path, step):
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as mine:
        for sample in (0, 1000, 2000):
            mine.add_scalar("loss", 1.0, sample)
    write(tmp_path, inside(step))
    scalars, _ = read(tmp_path)
    assert [at for at, _ in scalars["loss"]] == [0, 1000, 2000]
    assert [at for at, _ in scalars["safestep/ratio"]] == [step]


def test_two_guards_share_a_directory_and_hide_nothing_of_each_other(tmp_path):
    sinks = [TensorBoard(tmp_path, prefix=prefix) for prefix in ("teacher", "a/b")]
    for step in range(3):
        for sink in sinks:
            sink(inside(step))
    for sink in sinks:
        sink.close()
    scalars, _ = read(tmp_path)
    assert [[at for at, _ in scalars[f"{prefix}/ratio"]] for prefix in ("teacher", "a/b")] == [[0, 1, 2]] * 2


def test_a_writer_of_the_loop_is_shared_and_stays_open(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        guard = run(steps=2, log=TensorBoard(writer))
        guard.detach()
        writer.add_scalar("loss", 1.0, 2)
    scalars, _ = read(tmp_path)
    assert len(scalars["safestep/ratio"]) == 2
    assert len(scalars["loss"]) == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_a_step_that_is_lost_is_on_disk_at_once(tmp_path):
    sink = TensorBoard(tmp_path)
    for step in range(2):
        sink(inside(step))
        time.sleep(0.1)  # the writer's thread writes out its first events by itself, and then none for two minutes
    sink(report(2, status=Status.UNDONE, ratio=math.nan, scale=0.0))
    assert read(tmp_path)[1]["safestep/lost/text_summary"][0][0] == 2
    sink.close()


def test_a_directory_that_cannot_be_made_is_told_by_attach(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        run(log=TensorBoard(tmp_path / "file" / "run"))


@pytest.mark.parametrize(("sink", "module"), [(lambda: TensorBoard("runs"), "tensorboard"), (WandB, "wandb")])
def test_where_it_is_not_installed_the_extra_is_named(sink, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=f"needs {module}.*with its extra '{module}'"):
        sink()
