"""Seeds as they are written and read."""

from __future__ import annotations

import pytest

from safestep.experiments.runner.seed_ranges import read_seeds, written_seeds
from safestep.experiments.runner.settings import SettingError


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("7", [7]), ("1, 2,1", [1, 2]), ("0-3", [0, 1, 2, 3]), ("5, 0 - 2 ,9", [5, 0, 1, 2, 9]), ("4-4", [4])],
)
def test_numbers_and_ranges(text, seeds):
    assert read_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "x", "1,", "-1", "3-1", "1-", "1-2-3", "0-100000", "4294967296", "0.5"])
def test_anything_else_is_refused(text):
    with pytest.raises(SettingError, match="expected whole numbers from 0 to 4294967295 or ranges such as 0-199"):
        read_seeds(text)


@pytest.mark.parametrize("seeds", [[7], [0, 1, 2], list(range(200)), [9, 0, 1, 2, 3, 4, 8, 7], []])
def test_what_is_written_is_read_back(seeds):
    assert (read_seeds(written_seeds(seeds)) if seeds else []) == seeds


def test_four_in_a_row_are_a_range():
    assert written_seeds([0, 1, 2]) == "0,1,2"
    assert written_seeds([0, 1, 2, 3]) == "0-3"
