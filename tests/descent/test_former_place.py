"""The name that tutorials and notes of others still have."""

from __future__ import annotations

import pytest

from safestep import descent


def test_the_former_place_has_the_same_names_and_says_where_they_are():
    with pytest.warns(DeprecationWarning, match=r"safestep\.descent now"):
        from safestep.lab.descent import simulate
    assert simulate is descent.simulate
    from safestep.lab import descent as former

    with pytest.raises(AttributeError, match="no attribute 'simulated'"):
        former.simulated  # noqa: B018
