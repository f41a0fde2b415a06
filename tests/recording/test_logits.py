"""Where logits are found, and what is said where they are not."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from types import SimpleNamespace

import pytest
import torch

from safestep.errors import LogitsNotFoundError
from safestep.heads.places import tensors_in
from safestep.recording.logits import find_logits

z = torch.randn(2, 3)


@pytest.mark.parametrize(
    "output",
    [
        z,
        SimpleNamespace(loss=torch.tensor(1.0), logits=z),
        {"hidden": torch.randn(2, 8), "logits": z},
        OrderedDict(loss=torch.tensor(1.0), logits=z),
        (z, torch.randn(2, 8)),
        [torch.tensor(1.0), z],
        (torch.tensor([1, 2]), z),
        namedtuple("Output", "loss logits")(torch.tensor(0.5), z),
    ],
    ids=lambda output: type(output).__name__,
)
def test_logits_are_the_very_tensor(output):
    assert find_logits(output) is z


@pytest.mark.parametrize(
    ("output", "seen"),
    [
        ({"scores": z}, "keys \\['scores'\\]"),
        (torch.tensor(1.0), "shape \\(\\)"),
        (torch.tensor([1, 2]), "int64"),
        ((torch.tensor(1.0),), "tuple of Tensor"),
        ("text", "a str"),
        (None, "a NoneType"),
    ],
)
def test_what_was_seen_and_what_to_do(output, seen):
    with pytest.raises(LogitsNotFoundError, match=f"{seen}.*logits=function"):
        find_logits(output)


def test_tensors_are_found_in_nested_outputs():
    inner = SimpleNamespace(a=z, text="no", nested=[torch.zeros(1)])
    found = list(tensors_in({"x": (z, [z]), "y": inner, "n": 3, "m": torch.nn.Linear(2, 2)}))
    assert len(found) == 4
