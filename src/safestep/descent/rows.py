"""A guard for every run of an ensemble: r of each row along its own step, and each row's own scale."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from safestep.policy import Policy
from safestep.radius.radius import State


class RowGuard:
    r"""What `safestep.attach` with a `HessianRadius` does to one run, done to every row at once.

    Equation:
        With the row's displacement ``p``, and gradient ``g`` and Hessian ``H`` of this step's loss,
        ``r = p.Hp / (-2 g.p)``; 0 where ``p.Hp <= 0``, inf where ``g.p > 0`` (the row is held). The policy makes a
        scale ``s`` of ``r``, and the row goes to ``x + s p``. A row whose ``p`` is not finite stays.

    Attributes:
        scales: of the last step, shape ``(runs,)``.
        ratios: ``r`` of its proposal.
        shortened: rows times steps with ``s < 1`` so far, held ones among them.
        held: rows times steps that stood still because they went uphill.
    """

    def __init__(self, policy: Policy, runs: int) -> None:
        self._policy = policy
        self._state: State = None
        self.scales = torch.ones(runs, dtype=torch.float64)
        self.ratios = torch.zeros_like(self.scales)
        self.shortened = self.held = 0

    def settle(self, before: Tensor, after: Tensor, slope: Tensor, bend: Tensor, step: int) -> Tensor:
        """Return where every row goes instead.

        Args:
            before: rows at the start of the step, shape ``(runs, d)``.
            after: rows where the optimizer put them.
            slope: ``g.p``, shape ``(runs,)``.
            bend: ``p.Hp``, shape ``(runs,)``.
            step: counted from 0.
        """
        p = after - before
        slope, bend = slope.double(), bend.double()
        usable = p.isfinite().all(-1) & slope.isfinite() & bend.isfinite()
        uphill = usable & ((slope > 0) | ((slope == 0) & (bend > 0)))
        bent = torch.where(bend > 0, bend / (-2 * slope), 0.0)
        self.ratios = torch.where(uphill, math.inf, torch.where(usable, bent, math.nan))
        self.scales = self._scaled(p, usable, step)
        self.shortened += int((self.scales < 1).sum())
        self.held += int((uphill & (self.scales == 0)).sum())
        s = self.scales.to(p.dtype)[:, None]
        # a row inside keeps every bit, and a row that stays, too: 0 * inf is nan
        return torch.where(s == 1, after, torch.where(s == 0, before, before + s * p))

    def _scaled(self, p: Tensor, usable: Tensor, step: int) -> Tensor:
        """Return the scale of every row; one that is not usable teaches the policy as little as a step uphill does."""
        ratios, lengths = torch.where(usable, self.ratios, math.inf), p.double().norm(dim=-1)
        scales, self._state = self._policy.scale(ratios, lengths, self._policy.target_at(step), self._state)
        return torch.where(usable, scales, 0.0) if self._policy.writes else torch.ones_like(ratios)
