"""Two processes: rank 0 writes, the other opens no file; a sink may ask for every rank."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from torch import distributed

from safestep.logs import read


@pytest.mark.skipif(not (distributed.is_available() and distributed.is_gloo_available()), reason="torch without gloo")
def test_only_rank_0_writes(tmp_path):
    command = [sys.executable, str(Path(__file__).with_name("rank.py"))]
    both = [
        subprocess.Popen([*command, str(rank), "2", str(tmp_path)], stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    try:
        for process in both:
            _, errors = process.communicate(timeout=600)
            assert process.returncode == 0, errors
    finally:
        for process in both:
            process.kill()
    written = {path.name for path in tmp_path.iterdir()} - {"store"}
    assert written == {"of-0.jsonl", "of-0.csv", "of-0", "each-0.jsonl", "each-1.jsonl", "called-0", "called-1"}
    for name in ("of-0.jsonl", "of-0.csv", "each-0.jsonl", "each-1.jsonl"):
        assert read(tmp_path / name)["step"] == [0, 2, 4]
    assert (tmp_path / "called-0").read_text() == "[0, 2, 4] 5"
    assert (tmp_path / "called-1").read_text() == "[] 5"  # its own records are complete all the same
