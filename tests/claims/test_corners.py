"""What torch does not document and safestep uses is in docs/private-corners.md, with its reason and its test."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from claims.corners import found
from claims.page import made, read, unexplained
from claims.reasons import CORNERS, ELSEWHERE

TESTS = Path(__file__).parents[1]


def test_every_name_has_a_reason():
    new = "; ".join(f"{name} in {', '.join(found()[name])}" for name in unexplained())
    assert not new, (
        f"{new}: torch does not document this. Use what is public; say what for in CORNERS of tests/claims/reasons.py, "
        "and why, and which test watches it (in ELSEWHERE, if it is not torch's); then "
        "`make tables`"
    )


def test_every_reason_stands_for_a_name_that_is_used():
    reasons = [name for corner in CORNERS for name in corner.names] + [*ELSEWHERE]
    assert len(reasons) == len(set(reasons))
    gone = set(reasons) - found().keys()
    assert not gone, f"no longer used: take {', '.join(gone)} out of tests/claims/reasons.py, then `make tables`"


def test_the_page_has_the_table():
    assert read() == made(), "run `make tables`"


@pytest.mark.parametrize("corner", CORNERS, ids=lambda corner: corner.names[0])
def test_the_test_that_watches_a_corner_is_there(corner):
    file, _, name = corner.test.partition("::")
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


SOURCE = '''
"""Says torch._C.of_a_docstring and changes nothing."""
import sys
import torch
import torch as t
from torch import nn
from torch._C import _functorch as inner
from torch.utils.data import _utils, DataLoader
class Own(nn.Module):
    def __init__(self):
        self._mine = 1
        self._inherited()
    def look(self, other):
        other._mine + other._version + self._parameters
        getattr(other, "_orig_mod", None), getattr(other, "_mine")
        t._foreach_add([], []), torch.nn.Module.forward.__code__, inner.level()
        "torch._dynamo.eval_frame" in sys.modules, sys._getframe(1), other.fsdp_params
        torch.Tensor.__add__, DataLoader.__init__, nn._reduction.get_enum
'''


def test_names_are_found_however_they_are_reached(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "one.py").write_text(SOURCE)
    assert list(found(tmp_path)) == [
        "._inherited",
        "._orig_mod",
        "._parameters",
        "._version",
        ".fsdp_params",
        "sys._getframe",
        "torch._C._functorch",
        "torch._C._functorch.level",
        "torch._dynamo.eval_frame",
        "torch._foreach_add",
        "torch.nn.Module.forward.__code__",
        "torch.nn._reduction.get_enum",
        "torch.utils.data._utils",
    ]
    assert all(files == ["deep/one.py"] for files in found(tmp_path).values())
