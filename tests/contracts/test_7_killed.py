"""Contract 7 for a process that is killed: a new one goes on from the last checkpoint, and the log is complete."""

from __future__ import annotations

import json
import signal

import torch

from processes import start
from zoo import killable
from zoo.asserts import assert_identical
from zoo.checkpoints import STEPS, loaded

KILLED_AT = 7
"""A step after the checkpoint of step 6."""


def test_a_killed_process_is_continued_by_another(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    journey = killable.train(whole)
    assert start(killable.__file__, cut, KILLED_AT).wait() == -signal.SIGKILL
    assert loaded((cut / "checkpoint.pt").read_bytes())["index"] == KILLED_AT // killable.EVERY * killable.EVERY
    killable.train(cut)  # this process is another one than that was

    assert_identical(loaded((cut / "checkpoint.pt").read_bytes()), journey.everything())
    wanted = (whole / "log.jsonl").read_text().splitlines()
    lines = (cut / "log.jsonl").read_text().splitlines()
    assert len(wanted) == STEPS - 1
    assert len(lines) > len(wanted)  # steps after the checkpoint were taken twice
    assert {json.loads(line)["step"]: line for line in lines} == {json.loads(line)["step"]: line for line in wanted}
    assert set(lines) == set(wanted)  # and said the same both times
    assert torch.get_num_threads() == 1  # or sums may have another order there than here
