"""Numbers and values as they are written on a command line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safestep.experiments.runner.settings import SettingError
from safestep.simulation.values import numbers, rows, value

finite = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(finite, min_size=1))
def test_numbers_that_are_written_are_read(values):
    assert numbers(",".join(map(repr, values)), "start") == tuple(values)


@pytest.mark.parametrize("text", ["", "1,", "a", "1;2", "nan", "1,inf"])
def test_what_is_no_finite_number_is_told(text):
    with pytest.raises(SettingError, match=f"start={text}: expected finite numbers"):
        numbers(text, "start")


def test_rows_have_one_length():
    assert rows("3,1;1,2", "noise") == ((3.0, 1.0), (1.0, 2.0))
    with pytest.raises(SettingError, match="noise=1;1,2: expected rows of one length"):
        rows("1;1,2", "noise")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("3", 3), ("3.0", 3.0), ("1e-3", 1e-3), ("True", True), ("NONE", None), ("0.9,0.99", (0.9, 0.99)), ("max", "max")],
)
def test_a_value_has_the_type_that_is_written(text, expected):
    found = value(text)
    assert found == expected
    assert type(found) is type(expected)
