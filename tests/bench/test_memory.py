"""The memory meter against allocations of known size."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from safestep.bench.memory import PeakMeter

CPU = torch.device("cpu")
MB = 1_000_000


def block(megabytes):
    return torch.empty(megabytes * MB, dtype=torch.uint8)


def test_peaks_are_exact_to_the_byte():
    with PeakMeter(CPU) as meter:
        kept = block(3)
        with meter.window("up and down"):
            first = block(5)
            del first
            second = block(4)
        with meter.window("less"):
            del second
            third = torch.empty(7, dtype=torch.float64)
        with meter.window("nothing"):
            pass
    assert meter.peaks == {"up and down": 8 * MB, "less": 7 * MB, "nothing": 3 * MB + 56}
    assert kept.numel() + third.numel() == 3 * MB + 7


def test_what_was_there_before_counts_neither_held_nor_freed():
    old = [block(20), block(20)]
    with PeakMeter(CPU) as meter, meter.window("all"):
        del old[0]
        new = block(1)
        old.clear()
        new = [new, block(1)]
    assert meter.peaks == {"all": 2 * MB}
    assert len(new) == 2


def test_meters_in_a_row_know_nothing_of_each_other():
    left = None
    for _ in range(3):
        with PeakMeter(CPU) as meter, meter.window("all"):
            left = block(6)
        assert meter.peaks["all"] == 6 * MB
    assert left is not None


def test_temporaries_inside_an_operator_count():
    with PeakMeter(CPU) as meter:
        x = torch.randn(1000, 250)
        with meter.window("cumulative"):
            torch.logsumexp(x, dim=1)  # exp(x - max) is never seen by Python
    assert meter.peaks["cumulative"] >= 2 * x.numel() * 4


def test_a_training_step_holds_what_it_must():
    with PeakMeter(CPU) as meter:
        model = nn.Linear(400, 500, bias=False)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with meter.window("steps"):
            for _ in range(2):
                optimizer.zero_grad()
                model(torch.ones(8, 400)).square().sum().backward()
                optimizer.step()
    weights = 4 * 400 * 500
    inputs, outputs = 4 * 8 * 400, 4 * 8 * 500
    # Weights and gradients; beside them the inputs, the outputs, their squares, and gradients of both at the most.
    assert 2 * weights + inputs < meter.peaks["steps"] <= 2 * weights + inputs + 5 * outputs


def test_an_error_inside_goes_through():
    def fails():
        with PeakMeter(CPU):
            block(1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    with PeakMeter(CPU) as meter, meter.window("after"):
        kept = block(1)
    assert meter.peaks == {"after": kept.numel()}
