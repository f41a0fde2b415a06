"""Which forwards of many are kept: spread evenly, wherever the step ends."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from safestep.recording.subsample import rank


@given(st.integers(1, 64), st.integers(0, 600))
def test_the_kept_have_three_distances_and_none_is_twice_the_mean(most, more):
    length = most + more
    kept = sorted(sorted(range(length), key=rank)[:most])
    gaps = [after - before for before, after in zip(kept, [*kept[1:], length], strict=True)]
    assert len(set(gaps[:-1])) <= 3
    assert max(gaps) <= 2 * length / most


def test_elements_one_by_one_and_all_at_once_give_the_same():
    kept: list[int] = []
    for index in range(500):
        kept.append(index)
        if len(kept) > 7:
            kept.remove(max(kept, key=rank))
    assert kept == sorted(sorted(range(500), key=rank)[:7])
