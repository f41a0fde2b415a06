"""Proximal policy optimisation (PPO) of the pole on the cart: what it gathers, what it minimises, update by update."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from safestep.guard.attach import attach
from safestep.lab.cart_pole import FORCES, CartPoles
from safestep.policy import Cap
from safestep.radius import KLRadius

Limit = Literal["none", "early stopping", "KL limit", "half the way"]
"""What is done about the KL divergence from the policy that gathered: nothing; stop the epochs once it is seen to be
too large, before the next step, as stable-baselines3 does; shorten each step by `KLRadius` under ``Cap(1.0)``, or
``Cap(0.5)``."""
LIMITS = get_args(Limit)
_TARGETS: dict[str, float] = {"KL limit": 1.0, "half the way": 0.5}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a policy is trained.

    Attributes:
        rate: Adam's, for the policy.
        limit: what is done about the KL divergence.
        max_kl: the threshold of any limit, in nats.
        updates: batches that are gathered.
        carts: carts that gather, side by side.
        steps: steps of each for one batch.
        epochs: passes over a batch.
        minibatch: samples of an optimizer step.
        clip: PPO's, on the ratio of probabilities.
    """

    rate: float = 3e-3
    limit: Limit = "none"
    max_kl: float = 0.015
    updates: int = 25
    carts: int = 32
    steps: int = 64
    epochs: int = 4
    minibatch: int = 512
    clip: float = 0.2


@dataclass(frozen=True, slots=True)
class Batch:
    """What a policy has gathered, one row a step of a cart.

    Attributes:
        states: shape ``(rows, 4)``.
        actions: indices, shape ``(rows,)``.
        logits: of the policy that gathered, shape ``(rows, actions)``.
        advantages: shape ``(rows,)``, normalised.
        returns: what the value function is to tell, shape ``(rows,)``.
        length: mean length of the episodes that ended, in steps; nan if none did.
    """

    states: Tensor
    actions: Tensor
    logits: Tensor
    advantages: Tensor
    returns: Tensor
    length: float


_DISCOUNT, _TRACE = 0.99, 0.95
_VALUE_RATE = 3e-3


def network(outputs: int) -> nn.Module:
    """Return a perceptron of one hidden layer for the four numbers of a state."""
    return nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, outputs))


def kl(old: Tensor, new: Tensor) -> Tensor:
    """Return the mean ``KL(old || new)`` of predictions, in nats, from their logits."""
    old, new = old.log_softmax(-1), new.log_softmax(-1)
    return (old.exp() * (old - new)).sum(-1).mean()


def log_ratio(logits: Tensor, old: Tensor, actions: Tensor) -> Tensor:
    """Return the log of how much likelier each action has become, shape ``(rows,)``."""
    change = logits.log_softmax(-1) - old.log_softmax(-1)
    return change.gather(-1, actions.unsqueeze(-1)).squeeze(-1)


def clipped_loss(change: Tensor, advantages: Tensor, clip: float = 0.2) -> Tensor:
    """Return PPO's loss: ``-mean min(w A, clamp(w, 1 - clip, 1 + clip) A)``, ``w`` the exponential of `log_ratio`."""
    ratio = change.exp()
    return -torch.minimum(ratio * advantages, ratio.clamp(1.0 - clip, 1.0 + clip) * advantages).mean()


@torch.no_grad()
def gather(policy: nn.Module, values: nn.Module, carts: CartPoles, steps: int, generator: torch.Generator) -> Batch:
    """Let a policy act, and judge what it did by generalised advantages (discount 0.99, trace 0.95)."""
    states, actions, logits, rewards, overs, lengths = [], [], [], [], [], []
    for _ in range(steps):
        states.append(carts.state)
        logits.append(policy(carts.state))
        actions.append(torch.multinomial(logits[-1].softmax(-1), 1, generator=generator).squeeze(-1))
        age = carts.age + 1
        reached, fell, over = carts.step(actions[-1])
        # an episode that only ended for its length goes on in the value of where it ended
        beyond = torch.where(over & ~fell, _DISCOUNT * values(reached).squeeze(-1), 0.0)
        rewards.append(1.0 + beyond)
        overs.append(over)
        lengths.append(age[over])
    judged = [*(values(state).squeeze(-1) for state in states), values(carts.state).squeeze(-1)]
    advantage, advantages = torch.zeros(len(carts.age)), []
    for index in reversed(range(steps)):
        on = _DISCOUNT * (~overs[index])
        advantage = rewards[index] + on * judged[index + 1] - judged[index] + on * _TRACE * advantage
        advantages.append(advantage)
    found = torch.stack(advantages[::-1]).flatten()
    ended = torch.cat(lengths).double()
    return Batch(
        torch.cat(states),
        torch.cat(actions),
        torch.cat(logits),
        (found - found.mean()) / (found.std() + 1e-8),
        found + torch.cat(judged[:-1]),
        float(ended.mean()) if len(ended) else float("nan"),
    )


def train(plan: Plan, seed: int) -> Iterator[dict[str, Any]]:
    """Train a policy; yield a row for each update.

    Yields:
        ``length``, the mean length of the episodes that ended while the policy gathered, nan if none did; ``kl``, the
        mean KL divergence from that policy over the whole batch, after the last step; ``step_kl``, that over the
        minibatch of each step right after it, and the ``statuses`` of the steps.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    policy, values = network(len(FORCES)), network(1)
    optimizer = torch.optim.Adam(policy.parameters(), lr=plan.rate)
    value_optimizer = torch.optim.Adam(values.parameters(), lr=_VALUE_RATE)
    carts = CartPoles(plan.carts, generator)
    with (
        nullcontext()
        if plan.limit not in _TARGETS
        else attach(
            policy,
            optimizer,
            radius=KLRadius(plan.max_kl, reference=lambda _: batch.logits[rows]),
            policy=Cap(_TARGETS[plan.limit]),
            logits=lambda z: z,  # such a loss does not tell that nothing multiplies them
        ) as guard
    ):
        for _ in range(plan.updates):
            batch = gather(policy, values, carts, plan.steps, generator)
            step_kl, statuses, stopped = [], [], False
            for rows in _minibatches(plan, len(batch.actions), generator):  # the reference reads them
                value_optimizer.zero_grad()
                nn.functional.mse_loss(values(batch.states[rows]).squeeze(-1), batch.returns[rows]).backward()
                value_optimizer.step()
                logits, old = policy(batch.states[rows]), batch.logits[rows]
                change = log_ratio(logits, old, batch.actions[rows])
                # the usual estimate from the actions taken, and the usual place of the check
                stopped = stopped or (
                    plan.limit == "early stopping" and bool((change.exp() - 1.0 - change).mean() > plan.max_kl)
                )
                if stopped:
                    continue
                optimizer.zero_grad()
                clipped_loss(change, batch.advantages[rows], plan.clip).backward()
                optimizer.step()
                with torch.no_grad():
                    step_kl.append(float(kl(old, policy(batch.states[rows]))))
                statuses.append(str(guard.last.status) if guard and guard.last else "plain")
            with torch.no_grad():
                apart = float(kl(batch.logits, policy(batch.states)))
            yield {"length": batch.length, "kl": apart, "step_kl": step_kl, "statuses": statuses}


def _minibatches(plan: Plan, count: int, generator: torch.Generator) -> Iterator[Tensor]:
    for _ in range(plan.epochs):
        yield from torch.randperm(count, generator=generator).split(plan.minibatch)
