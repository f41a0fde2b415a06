"""The limits of logarithmic axes: positive and finite, whatever is to be seen."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from safestep.plots.frame import log_frame

numbers = st.floats(allow_nan=True, allow_infinity=True)


@given(st.lists(numbers, max_size=4), st.floats(min_value=0, exclude_min=True), st.lists(numbers, max_size=2))
def test_limits_are_positive_finite_and_one_to_twelve_decades_apart(values, ceiling, keep):
    low, high = log_frame(values, ceiling=ceiling, keep=keep)
    assert 0 < low < high < math.inf
    assert 1 - 1e-9 <= math.log10(high / low) <= 12 + 1e-9
