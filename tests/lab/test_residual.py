"""The residual network: a block that adds nothing is the way through, and sides are halved twice."""

from __future__ import annotations

import torch

from safestep.lab.residual import Residual, resnet


def test_a_block_whose_branch_is_switched_off_is_the_way_straight_through():
    block, images = Residual(3, 3).eval(), torch.randn(2, 3, 8, 8)
    torch.nn.init.zeros_(block.bent[-1].weight)  # the last BatchNorm makes zeros of the branch
    assert torch.equal(block(images), images.relu())


def test_a_block_that_changes_width_or_side_goes_through_a_convolution():
    assert Residual(3, 3).through(torch.ones(1)).item() == 1.0
    assert Residual(3, 5, 2)(torch.randn(2, 3, 8, 8)).shape == (2, 5, 4, 4)
    assert len(Residual(3, 3, 2).through) == len(Residual(3, 5).through) == 2


def test_the_network_sees_two_by_two_before_the_average():
    model = resnet(width=2)
    assert model[:-3](torch.randn(4, 64)).shape == (4, 8, 2, 2)
