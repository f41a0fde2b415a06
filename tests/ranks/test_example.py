"""examples/several_processes.py under torchrun, as its first lines say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from processes import run
from safestep.logs import read

EXAMPLE = Path(__file__).parents[2] / "examples" / "several_processes.py"


def torchrun(processes: int, *options: str) -> str:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
    return run(*launcher, processes, EXAMPLE, *options)


def share(out: str, parallel: str, processes: int) -> float:
    found = re.search(rf"{parallel}, {processes} processes: ([\d.]+)% of the training digits right", out)
    assert found, out
    return float(found[1])


@pytest.mark.slow
def test_two_processes_stop_and_four_go_on(tmp_path):
    """Twenty steps in two pieces, and twenty more from the same checkpoint in four, in one log."""
    files = ["--records", str(tmp_path / "steps.jsonl"), "--checkpoint", str(tmp_path / "checkpoint")]
    assert share(torchrun(2, "--parallel", "sharded", "--steps", "20", *files), "sharded", 2) > 60  # a tenth by chance
    assert share(torchrun(4, "--parallel", "sharded", "--steps", "40", *files), "sharded", 4) > 60
    history = read(tmp_path / "steps.jsonl")
    assert history["step"] == list(range(40))
    assert "capped" in set(map(str, history["status"]))
