"""Tasks: batches that repeat with their generator and draw from no other, losses and tests by hand."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from safestep.lab.digits import load_split
from safestep.lab.stdlib_text import load_text
from safestep.lab.tasks import digits_cnn, digits_mlp, digits_transformer, library_gpt, shuffled, text_gpt, text_lstm

TASKS = [digits_mlp, digits_transformer, digits_cnn, text_gpt, text_lstm]


def first(task, count, size, seed=3):
    return list(itertools.islice(task.batches(size, torch.Generator().manual_seed(seed)), count))


@pytest.mark.parametrize("make", TASKS)
def test_batches_repeat_and_draw_from_no_global_generator(make):
    task = make(7)
    before = torch.get_rng_state()
    batches = first(task, 3, 5)
    assert torch.equal(torch.get_rng_state(), before)
    for ours, again in zip(batches, first(task, 3, 5), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, again, strict=True))
    assert not torch.equal(batches[0][0], first(task, 1, 5, seed=4)[0][0])
    assert all(len(x) == len(y) == 5 for x, y in batches)


def test_a_pass_over_the_digits_meets_every_image_once():
    task, images = digits_mlp(7), load_split(7).train_x
    inputs = torch.cat([x for x, _ in first(task, 10, 1347 // 3)])
    for start in (0, 1347, 2694):
        met = inputs[start : start + 1347]
        assert torch.equal(met.sum(1).sort().values, images.sum(1).sort().values)


def test_an_epoch_is_the_batches_that_meet_everything_once():
    text = len(load_text()[0])
    assert [make(7).epoch for make in TASKS] == [11, 22, 22, *[-(-text // (64 * 16))] * 2]  # 1347 images


def test_batches_go_through_all_samples_before_any_comes_again():
    places = shuffled(10, 4, torch.Generator().manual_seed(1))
    chosen = torch.cat([next(places) for _ in range(5)])
    assert sorted(chosen[:10].tolist()) == sorted(chosen[10:].tolist()) == list(range(10))


@pytest.mark.parametrize("make", TASKS)
def test_loss_and_test_are_those_of_a_plain_loop(make):
    task = make(7)
    inputs, labels = first(task, 1, 6)[0]
    chosen = task.model(inputs).log_softmax(-1).gather(-1, labels[..., None])
    assert task.loss(inputs, labels).item() == pytest.approx(-chosen.mean().item(), rel=1e-5)
    held, answers = task.held_out
    with torch.no_grad():
        logits = task.model.eval()(held)
    task.model.train()
    loss, accuracy = task.test()
    assert accuracy == pytest.approx((logits.argmax(-1) == answers).double().mean().item(), rel=1e-6)
    assert loss == pytest.approx(-logits.log_softmax(-1).gather(-1, answers[..., None]).mean().item(), rel=1e-5)
    assert task.model.training


@pytest.mark.parametrize("make", TASKS)
def test_a_factor_of_one_changes_nothing_and_a_hundred_does(make):
    task = make(7)
    task.model.eval()  # BatchNorm takes a factor out in training
    inputs, labels = first(task, 1, 6)[0]
    assert torch.equal(task.logits(inputs, 1.0), task.model(inputs))
    assert (task.logits(inputs, 100.0) - task.logits(inputs)).abs().max() > 0.5
    assert task.loss(inputs, labels, 100.0) != task.loss(inputs, labels)


def test_what_is_held_out_of_the_text_is_whole_and_in_order():
    _, held_out = load_text()
    inputs, labels = text_gpt(7).held_out
    assert torch.equal(inputs.flatten(), held_out[: inputs.numel()])
    assert torch.equal(labels.flatten(), held_out[1 : inputs.numel() + 1])
    assert len(held_out) - inputs.numel() <= 64


def test_the_large_gpt_learns_the_whole_library():
    task = library_gpt(0)
    assert 4.5e6 < sum(p.numel() for p in task.model.parameters()) < 5.5e6
    inputs, labels = next(task.batches(2, torch.Generator().manual_seed(0)))
    assert inputs.shape == labels.shape == (2, 64)
    assert task.held_out[0].shape == (256, 64)
    assert math.isclose(task.loss(inputs, labels).item(), math.log(96), rel_tol=0.1)
