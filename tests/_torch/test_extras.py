"""What is missing is named with its extra; what is installed and broken inside says so itself."""

from __future__ import annotations

import sys

import pytest

from safestep._torch.extras import need
from safestep.errors import MissingExtraError


def test_what_is_missing_is_named_with_its_extra():
    with pytest.raises(MissingExtraError, match=r"needs no_such_package, .* its extra 'some'"):
        need("no_such_package.part", "some")


@pytest.mark.parametrize(
    "inside",
    [
        "import no_such_dependency",
        "raise ModuleNotFoundError('Could not import its heart')",
        "raise RuntimeError('no')",
    ],
)
def test_what_is_broken_inside_says_so_itself(inside, tmp_path, monkeypatch):
    (tmp_path / "broken_inside.py").write_text(inside)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises((ModuleNotFoundError, RuntimeError), match=r"no_such_dependency|its heart|^no$") as told:
        need("broken_inside", "some")
    assert not isinstance(told.value, MissingExtraError)
    sys.modules.pop("broken_inside", None)
