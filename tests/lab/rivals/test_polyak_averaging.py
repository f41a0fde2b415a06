"""ScheduleFree+ and Schedule-Free Polyak: by their equations, by hand, and where they are Schedule-Free's package."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from schedulefree import AdamWScheduleFreeReference
from torch import nn

from safestep.lab.rivals.polyak_averaging import ScheduleFreePlus, ScheduleFreePolyak

CURVATURES = torch.tensor([1.0, 4.0, 0.3], dtype=torch.float64)
START = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)


def descend(weight, optimizer, steps):
    """Descend on half the sum of curvature times weight squared, plus a half; yield where the model is."""
    for _ in range(steps):
        weight.grad = CURVATURES * weight.detach()
        value = 0.5 + float((CURVATURES * weight.detach() ** 2).sum()) / 2
        optimizer.step(lambda value=value: value)
        yield weight.detach().clone()


def test_at_a_given_rate_and_without_inner_momentum_it_is_schedule_free(monkeypatch, capsys):
    ours, theirs = nn.Parameter(START.clone()), nn.Parameter(START.clone())
    monkeypatch.setattr(ScheduleFreePlus, "_rate", lambda *_: 0.02)
    plus = ScheduleFreePlus([ours], betas=(0.0, 0.999), weight_decay=0.1 / 0.02)
    reference = AdamWScheduleFreeReference([theirs], lr=0.02, weight_decay=0.1)
    reference.train()
    for one, other in zip(descend(ours, plus, 50), descend(theirs, reference, 50), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    plus.eval()
    reference.eval()
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    capsys.readouterr()  # theirs prints that it switches


@pytest.mark.parametrize("warm_up", [0, 5])
def test_it_is_what_its_equations_say(warm_up):
    """Equations of the paper, one after the other, on lists of floats."""
    betas, norm_beta, annealing, decay = (0.9, 0.95), 0.8, 12, 0.5
    weight = nn.Parameter(START.clone())
    plus = ScheduleFreePlus(
        [weight], warm_up=warm_up, annealing=annealing, norm_beta=norm_beta, weight_decay=decay, last_beta=0.97
    )
    x = y = z = START.tolist()
    m, v, e, total, largest = [0.0] * 3, [0.0] * 3, 0.0, 0.0, 0.0
    for t, seen in enumerate(descend(weight, plus, 20), start=1):
        g = [c * w for c, w in zip(CURVATURES.tolist(), y, strict=True)]
        f = 0.5 + sum(c * w * w for c, w in zip(CURVATURES.tolist(), y, strict=True)) / 2
        beta = 1 - math.exp(
            math.log(0.1) * (1 - min((t - 1) / annealing, 1)) + math.log(0.03) * min((t - 1) / annealing, 1)
        )
        e = norm_beta * e + (1 - norm_beta) * sum(map(abs, g)) * math.sqrt(math.pi / 2)
        inner = beta * sum(a * (b - c) for a, b, c in zip(g, z, x, strict=True))
        alpha = (min(1, t / warm_up) if warm_up else 1) * max(0, f + inner) / (e / (1 - norm_beta**t))
        largest = max(largest, alpha)
        m = [betas[0] * a + (1 - betas[0]) * b for a, b in zip(m, g, strict=True)]
        v = [betas[1] * a + (1 - betas[1]) * b * b for a, b in zip(v, g, strict=True)]
        z = [a - alpha**2 * decay * b for a, b in zip(z, y, strict=True)]
        z = [
            a - alpha * (b / (1 - betas[0] ** t)) / (math.sqrt(c / (1 - betas[1] ** t)) + 1e-8)
            for a, b, c in zip(z, m, v, strict=True)
        ]
        total += largest**2 if t > warm_up else 0.0
        c = largest**2 / total if t > warm_up else 1.0
        x = [(1 - c) * a + c * b for a, b in zip(x, z, strict=True)]
        y = [beta * a + (1 - beta) * b for a, b in zip(x, z, strict=True)]
        torch.testing.assert_close(seen, torch.tensor(y, dtype=torch.float64), rtol=1e-9, atol=1e-12)


@given(start=st.floats(0.1, 10), curvature=st.floats(0.01, 100))
def test_the_first_step_on_a_parabola_goes_half_way(start, curvature):
    # f / |f'| = w / 2, and Adam's first step has length 1: Polyak's step on c w² / 2
    for kind, share in ((ScheduleFreePolyak, 1.0), (ScheduleFreePlus, math.sqrt(2 / math.pi))):
        weight = nn.Parameter(torch.tensor([start], dtype=torch.float64))
        weight.grad = curvature * weight.detach()
        kind([weight]).step(lambda: curvature * start**2 / 2)
        assert weight.item() == pytest.approx(start * (1 - share / 2), rel=1e-5)


def test_without_averaging_the_second_step_of_polyak_is_by_hand():
    weight = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    polyak = ScheduleFreePolyak([weight], beta=0.0)
    for at in (2.0, 1.0):
        weight.grad = torch.tensor([at], dtype=torch.float64)
        polyak.step(lambda at=at: at**2 / 2)
    # v is the mean of 4 and 1, weighted as Adam does; the step γ g / D is f / (g² / D) g / D = w / 2 whatever D
    assert weight.item() == pytest.approx(0.5)
    polyak.eval()
    assert weight.item() == pytest.approx((1.0 + 0.5) / 2)
    polyak.train()
    assert weight.item() == pytest.approx(0.5)


@pytest.mark.parametrize("kind", [ScheduleFreePlus, ScheduleFreePolyak])
@pytest.mark.parametrize(("gradient", "value"), [(0.0, 1.0), (1.0, -1.0)])
def test_no_step_without_a_gradient_or_below_the_least_loss(kind, gradient, value):
    weight = nn.Parameter(torch.tensor([2.0]))
    weight.grad = torch.full((1,), gradient)
    kind([weight]).step(lambda: value)
    assert weight.item() == 2.0
