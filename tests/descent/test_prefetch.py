"""Numbers drawn ahead: the same as drawn when needed, normal, and one step never overwrites another in use."""

from __future__ import annotations

import threading
import time
from itertools import islice

import pytest
import torch

from safestep.descent import PLANE, Gaussian, noise, simulate
from safestep.descent.noise import standard_normals


def drawn(shape, steps, seed=0):
    numbers = standard_normals(*shape, torch.Generator().manual_seed(seed))
    return torch.stack([numbers_of_step.clone() for numbers_of_step in islice(numbers, steps)])


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (2000, 2), (9000, 2), (300_000, 2)])
def test_a_thread_of_its_own_changes_no_number(shape, monkeypatch):
    beside = drawn(shape, 40 if shape[0] < 10_000 else 4)
    monkeypatch.setattr(noise, "_WORTH", float("inf"))
    assert torch.equal(beside, drawn(shape, len(beside)))


def test_what_was_handed_out_stays_while_the_next_is_drawn():
    numbers = standard_normals(20_000, 2, torch.Generator().manual_seed(1))
    for step in islice(numbers, 40):
        before = step.clone()
        (torch.randn(200, 200) @ torch.randn(200, 200)).sum()
        assert torch.equal(step, before)


def test_steps_runs_and_variables_are_independent_and_standard():
    found = drawn((5000, 2), 40).double()
    n = found.numel()
    assert found.mean().abs() < 4.5 / n**0.5
    assert (found.var() - 1).abs() < 4.5 * (2 / n) ** 0.5
    for one, other in ((found[1:], found[:-1]), (found[:, 1:], found[:, :-1]), (found[..., 0], found[..., 1])):
        assert (one * other).mean().abs() < 4.5 / one.numel() ** 0.5


def test_no_thread_is_left_behind():
    before = threading.active_count()
    for _ in range(5):
        simulate(PLANE, noise=Gaussian(), runs=10_000, steps=3)
    for _ in range(1200):  # up to a minute, for a busy machine
        if threading.active_count() <= before:
            break
        time.sleep(0.05)
    assert threading.active_count() <= before
