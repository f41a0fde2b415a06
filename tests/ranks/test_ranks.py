"""Several ranks: every check of checks/ with two and with four processes, in one world for each."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from processes import checks_in

CHECKS = Path(__file__).parent / "checks"
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
ALL = tuple(checks_in(CHECKS))
WORLDS = (
    {2: ALL, 4: ALL}
    if LONG
    else {2: tuple(name for name in ALL if name not in LATER), 4: tuple(checks_in(CHECKS, FEW))}
)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("name", "ranks"), [(name, ranks) for ranks, names in WORLDS.items() for name in names])
def test_on_several_ranks(name, ranks, outcomes):
    found = outcomes(f"ranks-{ranks}", CHECKS, processes=ranks, only=WORLDS[ranks])
    assert found[name] == "", found[name]
