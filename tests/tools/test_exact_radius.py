"""The exact radius of steps that were taken: by hand over all samples, sigmoids, masked classes, what moved nothing."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

import safestep
from safestep import Cap, Watch
from safestep.tools.diagnostics import ExactRadius
from safestep.zeros import nearest_zero


def one_step(policy=None, *, lr=2.0, loss=None, mask=None, diagnostic=None, seed=0, **options):
    """A step of a linear model in float64; the record, and z and a = J (s p) of its samples."""
    torch.manual_seed(seed)
    model, x = nn.Linear(3, 4).double(), torch.randn(12, 3, dtype=torch.float64)
    head = model if mask is None else nn.Sequential(model, mask)
    sgd = torch.optim.SGD(model.parameters(), lr=lr)
    guard = safestep.attach(head, sgd, policy=policy or Watch(), diagnostics=[diagnostic or ExactRadius()], **options)
    z = head(x)
    before = model(x).detach()
    (loss or (lambda z: cross_entropy(z, torch.arange(12) % 3)))(z).backward()
    sgd.step()
    return guard.last, z.detach(), model(x).detach() - before


@pytest.mark.parametrize("policy", [Watch(), Cap(0.3)], ids=["watch", "cap"])
def test_the_columns_are_those_of_all_samples_by_hand(policy):
    radius = safestep.SoftmaxRadius(method="exact")
    report, z, a = one_step(policy, radius=radius, lr=20.0, seed=1)
    nearest = float(nearest_zero(z, a).radius.min())
    assert report.extras["exact_ratio"] == pytest.approx(1 / nearest, rel=1e-9)
    assert report.extras["exact_radius"] == pytest.approx(report.applied_length * nearest, rel=1e-6)
    assert report.extras["exact_slack"] == pytest.approx(report.applied_ratio * nearest, rel=1e-6)
    assert report.extras["exact_slack"] >= 1.0


def test_under_the_default_limit_it_is_that_of_the_step_that_was_taken():
    report, z, a = one_step(Cap(), lr=20.0, radius=safestep.default_limit())
    assert 0.0 < report.scale < 1.0
    assert report.extras["exact_ratio"] == pytest.approx(1 / float(nearest_zero(z, a).radius.min()), rel=1e-9)


def test_sigmoids_have_a_closed_form():
    report, z, a = one_step(loss=lambda z: binary_cross_entropy_with_logits(z, (z > 0.3).double()))
    expected = float((a.abs() / torch.hypot(z, torch.full_like(z, math.pi))).max())
    assert report.extras["exact_ratio"] == pytest.approx(expected, rel=1e-9)


class Masked(nn.Module):
    def forward(self, z):
        return z.masked_fill(torch.arange(4) == 3, -math.inf)


def test_a_masked_class_has_no_part_in_it():
    report, z, a = one_step(mask=Masked())
    expected = float(nearest_zero(z[:, :3], a[:, :3]).radius.min())
    assert report.extras["exact_ratio"] == pytest.approx(1 / expected, rel=1e-9)


def test_too_few_samples_settle_nothing():
    report, *_ = one_step(diagnostic=ExactRadius(most=1), seed=1)
    assert math.isnan(report.extras["exact_ratio"])
    with pytest.raises(ValueError, match="most=0"):
        ExactRadius(0)
