"""The coordinates of the last step: no pattern of the weights shows in them, and they tell the slope of all."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from safestep.recording.last_step import LastStep
from safestep.recording.step import Step


@pytest.mark.parametrize("dense", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels-last"])
@pytest.mark.parametrize(
    ("layer", "last"), [(nn.Conv2d(64, 512, 3, bias=False), (3, 3)), (nn.Linear(9, 30_000, bias=False), (9,))]
)
def test_the_coordinates_have_no_pattern(layer, last, dense):
    """One of nine is kept of weights with nine taps or columns: each has its share, in any layout."""
    weight = layer.weight.detach().copy_(torch.arange(9.0).view(last).expand_as(layer.weight))
    if weight.ndim == 4:
        weight = weight.contiguous(memory_format=dense)
    step = Step(0)
    step.remember([weight.requires_grad_()])
    kept = LastStep.of(step)
    assert kept.stride == 9
    counts = torch.bincount(kept.starts[weight].long(), minlength=9)
    assert counts.max() < 1.2 * counts.min()


def test_some_coordinates_tell_the_slope_of_all():
    """Of a quarter of a million, within what chance leaves of one in eight."""
    torch.manual_seed(0)
    model = nn.Linear(512, 512)
    step = Step(0)
    step.remember(model.parameters())
    with torch.no_grad():
        for q in model.parameters():
            q.grad = torch.randn_like(q)
            q.sub_(1e-2 * (q.grad + torch.randn_like(q)))
    last = LastStep.of(step)
    assert sum(start.numel() for start in last.starts.values()) <= 1 << 15
    products = torch.cat([(q.grad * (q.detach() - step.start[q])).flatten() for q in model.parameters()])
    error = float(products.std()) * math.sqrt(len(products) * last.stride)
    assert abs(float(last.slope(model.parameters())) - float(products.sum())) < 4 * error
    assert 4 * error < 0.1 * abs(float(products.sum()))
