"""Clippings: numbers by hand, small gradients bit for bit, and AdaGC as its optimizer has it."""

from __future__ import annotations

import math

import pytest
import torch
from pytorch_optimizer import AdaGC
from torch import nn

from safestep.lab.rivals.clipping import CLIPPINGS, adagc, agc, zclip


def a_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(2, 3, 2), nn.Flatten(), nn.Linear(9, 4), nn.ReLU(), nn.Linear(4, 2))


def with_gradients(model: nn.Module, length: float) -> list[torch.Tensor]:
    """Give a model gradients with a norm of ``length`` all together."""
    drawn = [torch.randn_like(p) for p in model.parameters()]
    norm = math.sqrt(sum(float(g.square().sum()) for g in drawn))
    for p, g in zip(model.parameters(), drawn, strict=True):
        p.grad = g * (length / norm)
    return [p.grad.clone() for p in model.parameters()]


def norm_of(model: nn.Module) -> float:
    return math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters()))


@pytest.mark.parametrize("name", CLIPPINGS)
def test_a_tiny_gradient_passes_bit_for_bit(name):
    model = a_model()
    run = CLIPPINGS[name](model)
    before = with_gradients(model, 1e-6)
    run()
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), before, strict=True))


def test_clip_bounds_the_norm_of_all():
    model = a_model()
    with_gradients(model, 50.0)
    CLIPPINGS["clip"](model)()
    assert norm_of(model) == pytest.approx(1.0, rel=1e-5)


def test_agc_bounds_each_unit_but_those_of_the_last_layer():
    model = a_model()
    run = agc(model)
    before = with_gradients(model, 50.0)
    run()
    for p in [*model[0].parameters(), *model[2].parameters()]:
        unit = tuple(range(1, p.ndim)) if p.ndim != 3 else 1
        weights, gradients = (t.norm(dim=unit if p.ndim > 1 else None) for t in (p, p.grad))
        # the bound is reached: all of these were far too long
        torch.testing.assert_close(gradients, 0.01 * weights.clamp(min=1e-3))
    for p, g in zip(list(model.parameters())[4:], before[4:], strict=True):
        assert torch.equal(p.grad, g)


def test_zclip_by_hand():
    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    model = nn.Module()
    model.register_parameter("weight", weight)
    run = zclip(model)
    direction = torch.tensor([0.6, 0.8])

    def clipped(norm: float) -> float:
        weight.grad = norm * direction
        run()
        return float(weight.grad.norm())

    for step in range(25):  # mean 2, variance 24 / 25
        assert clipped(2.0 + (-1) ** step * (step < 24)) == pytest.approx(2.0 + (-1) ** step * (step < 24))
    deviation = math.sqrt(24 / 25)
    below = 2.0 + 2.4 * deviation
    assert clipped(below) == pytest.approx(below)
    mean = 0.97 * 2.0 + 0.03 * below
    variance = 0.97 * 24 / 25 + 0.03 * (below - mean) ** 2
    # ten deviations above the mean: clipped to 2.5² / 10 of them
    reached = clipped(mean + 10 * math.sqrt(variance))
    assert reached == pytest.approx(mean + 0.625 * math.sqrt(variance), rel=1e-5)
    new = 0.97 * mean + 0.03 * reached
    # what was clipped goes into the averages, not what came
    spread = math.sqrt(0.97 * variance + 0.03 * (reached - new) ** 2)
    assert clipped(new + 5 * spread) == pytest.approx(new + 1.25 * spread, rel=1e-5)


def test_adagc_before_adam_is_the_optimizer_adagc():
    ours, theirs = a_model(), a_model()
    run, adam = adagc(ours), torch.optim.Adam(ours.parameters(), lr=1e-3)
    optimizer = AdaGC(theirs.parameters(), lr=1e-3, weight_decay=0.0)
    torch.manual_seed(1)
    clipped = 0
    for step in range(130):
        before = with_gradients(ours, 10.0 if step % 7 == 0 else 0.5)
        for p, g in zip(theirs.parameters(), before, strict=True):
            p.grad = g.clone()
        run()
        clipped += any(not torch.equal(p.grad, g) for p, g in zip(ours.parameters(), before, strict=True))
        adam.step()
        optimizer.step()
    assert clipped > 40
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)


def test_adagc_bounds_a_spike_by_the_past_of_its_tensor():
    model = a_model()
    run = adagc(model)
    for _ in range(150):
        with_gradients(model, 0.5)
        run()
    lengths = [p.grad.norm() for p in model.parameters()]
    before = with_gradients(model, 100.0)
    run()
    for p, g, length in zip(model.parameters(), before, lengths, strict=True):
        assert p.grad.norm() < 3 * length < g.norm()
