"""The free bound |g.p| / (pi e) <= r: no forward, any reduction, weights, smoothing, loss scale or micro-batches."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from safestep import SoftmaxRadius, Watch, attach
from safestep.radius.tiers import Track
from safestep.recording.proposal import Proposal
from zoo import examples

OPTIMIZERS = {
    "sgd": lambda q, lr: torch.optim.SGD(q, lr=lr),
    "momentum": lambda q, lr: torch.optim.SGD(q, lr=lr, momentum=0.9, weight_decay=0.1),
    "adam": lambda q, lr: torch.optim.AdamW(q, lr=lr),
}


def bound_and_ratio(model, losses, *, optimizer="sgd", lr=0.1, steps=2, head="softmax"):
    """Train in float64; return the free bound and the exact r of the last step, and e."""
    found = []

    def look(step, forwards, report):
        SoftmaxRadius(head=head).read_norms(Proposal(step, forwards, always=False), None)
        found.append((Track().bound(step.vitals), report.ratio, step.vitals.half_l1_logit_grad))
        return {}

    radius = SoftmaxRadius(method="exact", head=head)
    one = OPTIMIZERS[optimizer](model.parameters(), lr)
    guard = attach(model, one, radius=radius, policy=Watch(), diagnostics=[look])
    for _ in range(steps):
        one.zero_grad()
        for loss in losses:
            loss(model).backward()
        one.step()
    guard.detach()
    return found[-1]


@examples(120)
@given(
    seed=st.integers(0, 10**6),
    classes=st.integers(2, 6),
    rows=st.integers(1, 9),
    parts=st.integers(1, 3),
    reduction=st.sampled_from(["mean", "sum"]),
    weighted=st.booleans(),
    ignored=st.booleans(),
    smoothing=st.sampled_from([0.0, 0.1, 0.9]),
    scale=st.sampled_from([1.0, 1e-6, 2.0**16]),
    confident=st.sampled_from([1.0, 30.0]),
    optimizer=st.sampled_from(sorted(OPTIMIZERS)),
    lr=st.sampled_from([1e-4, 0.1, 10.0]),
)
def test_the_bound_is_one(
    seed, classes, rows, parts, reduction, weighted, ignored, smoothing, scale, confident, optimizer, lr
):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, classes)).double()
    with torch.no_grad():
        model[-1].weight.mul_(confident)
    weight = torch.rand(classes, dtype=torch.float64) + 0.1 if weighted else None
    x, y = torch.randn(parts, rows, 4, dtype=torch.float64), torch.randint(classes, (parts, rows))
    if ignored and rows > 1:
        y[:, 0] = -100

    def loss_of(part):
        return lambda model: (
            scale
            * F.cross_entropy(model(x[part]), y[part], weight=weight, reduction=reduction, label_smoothing=smoothing)
        )

    losses = [loss_of(part) for part in range(parts)]
    # the optimizer sees the scaled gradient too, so that g and e are both scaled
    bound, ratio, effort = bound_and_ratio(model, losses, optimizer=optimizer, lr=lr)
    assume(effort > 0)  # not where every row is so confident that P - y rounds to zero
    # G = w (P - y) is rounded like w, while a confident row's is many digits smaller
    weights = 1.1 * scale * parts * (rows if reduction == "sum" else 1)
    rounding = 4 * classes * torch.finfo(torch.float64).eps * weights / effort
    assert bound <= ratio * (1 + 1e-9 + rounding)


def test_for_mean_cross_entropy_e_is_the_mean_doubt():
    torch.manual_seed(0)
    model, x, y = nn.Linear(4, 3).double(), torch.randn(7, 4, dtype=torch.float64), torch.randint(3, (7,))
    doubt = (1 - model(x).softmax(-1)[torch.arange(7), y]).mean().item()
    _, _, effort = bound_and_ratio(model, [lambda m: F.cross_entropy(m(x), y)], steps=1)
    assert effort == pytest.approx(doubt, rel=1e-12)


def test_where_one_sample_of_two_classes_moves_the_bound_is_r():
    """G = e (1, -1), so that g.p = G.a is e times the spread: nothing is lost."""
    torch.manual_seed(0)
    model, x = nn.Linear(4, 2).double(), torch.randn(1, 4, dtype=torch.float64)
    bound, ratio, _ = bound_and_ratio(model, [lambda m: F.cross_entropy(m(x), torch.tensor([1]))])
    assert bound == pytest.approx(ratio, rel=1e-9)


def test_independent_sigmoids_have_no_rows_that_sum_to_zero():
    """There e is twice as much, and a single logit meets the bound."""
    torch.manual_seed(0)
    for classes in (1, 3):
        model, x = nn.Linear(4, classes).double(), torch.randn(classes, 4, dtype=torch.float64)
        y = torch.randint(2, (classes, classes)).double()
        losses = [lambda m, x=x, y=y: F.binary_cross_entropy_with_logits(m(x), y)]
        bound, ratio, _ = bound_and_ratio(model, losses, head="sigmoid")
        assert 0 < bound <= ratio * (1 + 1e-9)
        assert classes > 1 or bound == pytest.approx(ratio, rel=1e-9)


def test_clipped_gradients_only_lower_it():
    torch.manual_seed(0)
    model, x, y = nn.Linear(4, 3).double(), torch.randn(7, 4, dtype=torch.float64), torch.randint(3, (7,))
    found = []
    one = torch.optim.SGD(model.parameters(), lr=1.0)

    def look(step, forwards, report):
        norms = step.read(directional_derivative=True, half_l1_logit_grad=forwards.half_l1_logit_grad())
        found.append((Track().bound(norms), report.ratio))
        return {}

    attach(model, one, radius=SoftmaxRadius(method="exact"), policy=Watch(), diagnostics=[look])
    F.cross_entropy(model(x), y).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
    one.step()
    assert 0 < found[0][0] <= found[0][1]


def test_without_slope_or_effort_there_is_no_bound():
    from safestep.recording.step import Vitals

    assert Track().bound(Vitals(1.0)) == 0.0
    assert Track().bound(Vitals(1.0, directional_derivative=1.0)) == 0.0
    assert Track().bound(Vitals(1.0, directional_derivative=1.0, half_l1_logit_grad=0.0)) == 0.0
