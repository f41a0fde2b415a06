"""The picture of the zeros: they are where they are, and the two radii around the origin."""

from __future__ import annotations

import math

import pytest
import torch

from safestep.plots import partition_zeros
from safestep.plots.panel import panel, single_figure

Z, A = torch.tensor([3.0, 0.0]), torch.tensor([2.0, 0.0])


def test_zeros_and_radii_are_where_they_are(legend):
    ax = partition_zeros(Z, A, reach=3.0)
    dots = next(line for line in ax.lines if line.get_label() == "zeros")
    expected = [complex(-3.0, turns * math.pi) / 2.0 for turns in (1, 3, -1, -3)]
    assert torch.allclose(torch.tensor(dots.get_xydata()), torch.view_as_real(torch.tensor(expected).cdouble()))
    assert [patch.radius for patch in ax.patches] == pytest.approx([math.pi / 2, abs(expected[0])])
    assert legend(ax) == ["bound π/spread = 1.57", "exact ρ* = 2.17", "zeros", "the step"]
    assert ax.get_xlim()[1] >= 3.0 * abs(expected[0])


def test_what_has_no_exact_radius_is_not_drawn():
    with pytest.raises(ArithmeticError, match="alike"):
        partition_zeros(Z, torch.ones(2))
    with pytest.raises(ValueError, match="reach=1"):
        partition_zeros(Z, A, reach=1.0)


def test_many_zeros_are_readable(readable):
    torch.manual_seed(0)
    readable(partition_zeros(torch.randn(50), torch.randn(50), ax=panel(single_figure())).figure)
