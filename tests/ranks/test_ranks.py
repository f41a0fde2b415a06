"""Several ranks: every check of checks/ with two and with four processes, in one world for each."""

from __future__ import annotations

import ast
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKS = Path(__file__).parent / "checks"
NAMES = [
    f"{file.stem}.{node.name.removeprefix('check_')}"
    for file in sorted(CHECKS.glob("*.py"))
    for node in ast.parse(file.read_text(encoding="utf-8")).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith("check_")
]
LONG = os.environ.get("SAFESTEP_RANKS") == "long"
FEW = (
    "same_as_one.capped_momentum",
    "units.a_rank_that_holds_nothing",
    "wrapped.copies_of_shards",
    "wrapped.shards_of",
)
"""What four processes check in the quick form; `make ranks` has them check everything."""
LATER = {
    "cost.an_audit_on_several_ranks",
    "resume.a_state_that_rank_0_saved",
    "same_as_one.capped_adam",
    "same_as_one.pinned_adam",
    "same_as_one.the_tightest_of_two",
    "units.every_kind_of_unit",
    "untouched.watching",
    "wrapped.a_data_parallel_model_that_looks_for_unused_parameters",
}
"""What only `make ranks` checks."""
MOST = tuple(name for name in NAMES if name not in LATER)
WORLDS: dict[int, tuple[str, ...]] = {2: () if LONG else MOST, 4: () if LONG else FEW}


@pytest.fixture(scope="session")
def outcomes(tmp_path_factory):
    """Return a function from a number of ranks to what their checks found; each world runs once, whoever asks first."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    folder = tmp_path_factory.getbasetemp().parent if run else tmp_path_factory.mktemp("ranks")

    def of(ranks):
        out = folder / f"ranks-{ranks}-{run}.json"
        with out.with_suffix(".lock").open("w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not out.exists():
                command = [sys.executable, str(CHECKS), str(out), str(ranks), *WORLDS[ranks]]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                assert out.exists(), done.stdout + done.stderr
        return json.loads(out.read_text(encoding="utf-8"))

    return of


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("name", "ranks"), [(name, n) for n, only in WORLDS.items() for name in NAMES if not only or name.startswith(only)]
)
def test_on_several_ranks(name, ranks, outcomes):
    found = outcomes(ranks)
    assert name in found, f"the world ended before {name}: {[text for text in found.values() if text]}"
    assert found[name] == "", found[name]
