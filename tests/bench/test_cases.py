"""The models and batches of the benchmark are what their descriptions say."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from safestep.bench.cases import AXES, NAMES, ON_CPU, cases, sizes
from safestep.bench.networks import GPT, ResNet18

QUICK = cases(quick=True)


def parameters(build):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build().parameters())


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_fits_its_model(name):
    case = QUICK[name]
    inputs, labels = case.draw()
    logits = case.build()(inputs)
    assert logits.shape[:-1] == labels.shape
    assert labels.numel() == case.rows
    assert labels.max() < logits.shape[-1]


def test_labels_and_inputs_are_drawn_anew():
    for case in QUICK.values():
        (inputs, labels), (others, other_labels) = case.draw(), case.draw()
        assert not torch.equal(inputs, others)
        assert not torch.equal(labels, other_labels)


def test_the_tasks_are_those_of_the_targets():
    full = cases()
    assert parameters(full["mlp"].build) == 784 * 1024 + 1024 + 1024 * 1024 + 1024 + 1024 * 10 + 10
    assert full["gpt"].size == {"parameters": 5_289_472, "batch": 8, "length": 128, "classes": 4096}
    assert parameters(full["gpt2-small"].build) == 124_439_808  # as published
    assert parameters(lambda: ResNet18(64)) == 11_173_962  # the usual ResNet-18 for images of 32 by 32
    assert (full["wide-head"].rows, full["wide-head"].size["classes"]) == (4096, 131_072)
    assert "gpt2-small" not in ON_CPU


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("quick", [True, False])
def test_along_an_axis_one_thing_grows(axis, quick):
    found = sizes(axis, quick=quick)
    assert len(found) >= 2
    for case in found:
        assert parameters(case.build) == case.size["parameters"]
    for small, large in pairwise(found):
        assert small.size[axis] < large.size[axis]
        same = set(AXES) - {axis, "parameters"}
        assert all(small.size[key] == large.size[key] for key in same)


def test_a_gpt_does_not_look_ahead():
    model, ids = GPT(16, 2, 2, 6, 11).eval(), torch.arange(6)[None]
    changed = ids.clone()
    changed[0, 4] = 10
    before, after = model(ids), model(changed)
    assert torch.equal(before[0, :4], after[0, :4])
    assert not torch.equal(before[0, 4:], after[0, 4:])


def test_a_tied_head_is_one_matrix():
    model = GPT(16, 1, 1, 4, 9, tied=True)
    assert model.head.weight is model.tokens.weight
