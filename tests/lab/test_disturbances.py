"""Disturbances begin after a quarter of the run, last as long as they say, and leave no trace otherwise."""

from __future__ import annotations

import pytest
import torch

from safestep.lab.disturbances import DISTURBANCES, Disturbance


def test_every_disturbance_that_the_protection_is_asked_for_is_there():
    spikes = {(d.rate_factor, d.steps) for d in DISTURBANCES.values() if d.rate_factor != 1}
    assert spikes == {(factor, steps) for factor in (10.0, 100.0, 1e4) for steps in (1, 50)}
    assert DISTURBANCES["shuffled-labels"].shuffled
    assert DISTURBANCES["inputs-x100"].input_factor == 100.0
    assert DISTURBANCES["batch-8"].batch_size == 8
    assert DISTURBANCES["none"] == Disturbance()
    words = [disturbance.words for disturbance in DISTURBANCES.values()]
    assert len(set(words)) == len(words)


@pytest.mark.parametrize("name", DISTURBANCES)
def test_it_is_there_for_its_steps_and_no_others(name):
    disturbance = DISTURBANCES[name]
    wrong = [step for step in range(264) if disturbance.at(step, of=264) != Disturbance()]
    assert wrong == list(range(66, 66 + disturbance.steps))


def test_dealt_labels_are_the_same_labels_in_another_order():
    labels = torch.arange(60).view(6, 10)
    dealt = DISTURBANCES["shuffled-labels"].labels(labels, torch.Generator().manual_seed(0))
    assert dealt.shape == labels.shape
    assert not torch.equal(dealt, labels)
    assert torch.equal(dealt.flatten().sort().values, labels.flatten())


def test_labels_that_are_left_alone_cost_no_draw():
    generator, labels = torch.Generator().manual_seed(0), torch.arange(6)
    before = generator.get_state()
    assert DISTURBANCES["none"].labels(labels, generator) is labels
    assert torch.equal(generator.get_state(), before)
