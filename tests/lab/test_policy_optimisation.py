"""PPO: its loss and its advantages by their definitions, and what each limit does to a run."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from safestep.lab.cart_pole import FORCES, CartPoles
from safestep.lab.policy_optimisation import Plan, clipped_loss, gather, kl, log_ratio, network, train


def test_the_gradient_ends_where_the_clip_begins():
    old = torch.zeros(4, 3)
    logits = torch.tensor([[0.5, 0.0, 0.0], [0.5, 0.0, 0.0], [-0.5, 0.0, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    change = log_ratio(logits, old, torch.zeros(4, dtype=torch.long))
    clipped_loss(change, torch.tensor([1.0, -1.0, 1.0, 1.0]), 0.2).backward()
    # likelier by more than 1.2 and good: no gradient; bad, or less likely and good: the way back is open
    assert (logits.grad.abs().sum(-1) > 0).tolist() == [False, True, True, True]


class Recorded(CartPoles):
    """Keeps what every step returned."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.taken = []

    def step(self, action):
        self.taken.append(super().step(action))
        return self.taken[-1]


def test_advantages_are_sums_of_discounted_errors():
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    policy, values, carts = network(len(FORCES)), network(1), Recorded(3, generator)
    carts.age += torch.tensor([0, 195, 0])  # the second comes to its full length on the way
    carts.state[1] = 0.0
    batch = gather(policy, values, carts, 60, generator)
    value = values(batch.states).view(60, 3).tolist()
    reached, fell, over = (torch.stack(column).tolist() for column in zip(*carts.taken, strict=True))
    assert any(o and not f for row, falls in zip(over, fell, strict=True) for o, f in zip(row, falls, strict=True))
    expected = [[0.0] * 3 for _ in range(61)]
    for t, cart in itertools.product(reversed(range(60)), range(3)):
        beyond = values(torch.tensor(reached[t][cart])).item()
        error = 1.0 + 0.99 * (0.0 if fell[t][cart] else beyond) - value[t][cart]
        expected[t][cart] = error + 0.99 * 0.95 * (0.0 if over[t][cart] else expected[t + 1][cart])
    told = batch.returns.view(60, 3) - torch.tensor(value)
    torch.testing.assert_close(told, torch.tensor(expected[:60]), rtol=1e-4, atol=1e-4)
    assert batch.advantages.mean().item() == pytest.approx(0.0, abs=1e-5)
    assert batch.advantages.std().item() == pytest.approx(1.0, abs=1e-3)


def updates(limit, factor, count=3):
    return list(itertools.islice(train(Plan(rate=3e-3 * factor, limit=limit), seed=0), count))


def test_far_below_the_threshold_the_limit_changes_nothing():
    """Contract 1, bit for bit."""
    plan = {"rate": 1e-4, "updates": 2}
    plain, limited = (list(train(Plan(limit=limit, **plan), seed=0)) for limit in ("none", "KL limit"))
    for one, other in zip(plain, limited, strict=True):
        assert one["step_kl"] == other["step_kl"]
        assert set(other["statuses"]) == {"inside"}


def test_a_hundred_times_the_rate_stays_at_the_threshold_only_under_the_limit():
    """One batch is some 2000 samples; its minibatches differ from it by a few percent."""
    kept = {limit: max(one["kl"] for one in updates(limit, 100.0)) for limit in ("none", "early stopping", "KL limit")}
    assert kept["KL limit"] < 0.03 < 0.1 < min(kept["none"], kept["early stopping"])


def test_what_comes_out_of_a_shortened_step_is_what_was_predicted():
    came = [
        apart / 0.015
        for update in updates("KL limit", 100.0)
        for apart, status in zip(update["step_kl"], update["statuses"], strict=True)
        if status == "capped"
    ]
    assert len(came) > 5
    # a spread of half a nat leaves 0.002 nats to the third order, see KLRadius
    assert all(0.7 < ratio < 1.4 for ratio in came)


def test_early_stopping_stops():
    first = updates("early stopping", 100.0, 1)[0]
    assert len(first["step_kl"]) < 16
    assert first["step_kl"][-1] > 0.015


def test_the_divergence_is_zero_of_itself():
    z = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    assert kl(z, z + 2.0).item() == pytest.approx(0.0, abs=1e-6)
    assert kl(torch.zeros(1, 2), torch.tensor([[math.log(3.0), 0.0]])).item() == pytest.approx(
        0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25), rel=1e-6
    )
