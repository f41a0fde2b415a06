"""Seeds reach every generator; one thread inside the block, as many as before after it."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from safestep._torch.threads import one_thread
from safestep.lab.seeding import LARGEST_SEED, seed_everything


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_all_three_generators_repeat():
    seed_everything(7)
    first = draws()
    seed_everything(7)
    assert draws() == first
    seed_everything(8)
    assert all(a != b for a, b in zip(draws(), first, strict=True))


def test_the_largest_seed_is_taken():
    seed_everything(LARGEST_SEED)


@pytest.mark.parametrize("seed", [-1, LARGEST_SEED + 1, 1.0, True, "7"])
def test_what_is_no_seed_is_refused(seed):
    with pytest.raises(ValueError, match="expected a whole number from 0"):
        seed_everything(seed)


def computing(error: type[Exception]) -> None:
    with one_thread():
        assert torch.get_num_threads() == 1
        raise error


def test_one_thread_and_back_even_after_an_error():
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyError):
            computing(KeyError)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
