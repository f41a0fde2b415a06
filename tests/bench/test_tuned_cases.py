"""What whole runs train on: true data that can be learned, held-out data apart, lengths that stretches divide."""

from __future__ import annotations

import pytest
import torch

from safestep.bench.plan import QUICK_TURNS
from safestep.bench.tuned_cases import TUNED, tuned_cases
from safestep.bench.whole_run import Turns

QUICK = tuned_cases(quick=True)


@pytest.mark.parametrize("name", TUNED)
def test_a_batch_and_what_is_held_out_fit_the_model(name):
    case = QUICK[name]
    for inputs, labels in (case.draw(), case.held_out()):
        logits = case.build()(inputs)
        assert logits.shape[:-1] == labels.shape
        assert labels.max() < logits.shape[-1]
    assert case.draw()[1].numel() == case.rows
    assert not torch.equal(case.draw()[0], case.draw()[0])


@pytest.mark.parametrize(("quick", "turns"), [(False, Turns()), (True, QUICK_TURNS)])
def test_stretches_and_their_thirds_cover_a_run(quick, turns):
    assert turns.stretches % 3 == 0
    for case in tuned_cases(quick=quick).values():
        assert case.steps % turns.stretches == 0


def test_the_tasks_are_those_of_the_targets():
    full = tuned_cases()
    assert full["mlp"].about.startswith("MLP 784-1024-1024-10, batch 256, digits, 300 steps at ")
    assert [full[name].rows for name in ("gpt-1024", "gpt-8192")] == [1024, 8192]
    assert full["mlp"].at(10.0).rate == 10.0 * full["mlp"].rate
    assert full["mlp"].at(10.0).about.endswith(" × 10")


@pytest.mark.parametrize("name", ["mlp", "resnet"])
def test_drawn_digits_show_what_their_labels_say(name):
    case = tuned_cases()[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = [case.draw() for _ in range(2048 // case.rows)]
        inputs, labels = case.held_out()
    known, answers = torch.cat([inputs for inputs, _ in drawn]), torch.cat([labels for _, labels in drawn])
    known, inputs = (images.flatten(1)[:, : 784 if name == "mlp" else 1024] for images in (known, inputs))
    known, inputs = (pixels - pixels.mean(1, keepdim=True) for pixels in (known, inputs))
    # The most alike of all drawn images, up to its colour, tells other digits far better than one in ten.
    alike = ((inputs @ known.T) / known.norm(dim=1)).abs().argmax(1)
    assert (answers[alike] == labels).float().mean() > 0.4
