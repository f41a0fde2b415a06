"""A guard for every run of an ensemble: r of each row along its own step, and each row's own scale."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from safestep.descent.objective import DescentError
from safestep.formulas.throttle import order_0, order_1, order_2, quantised
from safestep.policy import Cap, Pin, Policy, Throttle, Watch


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

    Raises:
        DescentError: for a policy other than Cap, Pin, Throttle and Watch: another one decides for one step at a
            time, and there may be thousands.
    """

    def __init__(self, policy: Policy, runs: int) -> None:
        if type(policy) not in {Cap, Pin, Throttle, Watch}:
            raise DescentError(f"policy = {policy!r}: expected Cap, Pin, Throttle or Watch, which go row by row")
        self._policy = policy
        start = policy.start if isinstance(policy, Throttle) else 1.0
        self._alpha = torch.full((runs,), start, dtype=torch.float64)
        self._velocity = torch.zeros_like(self._alpha)
        self.scales = torch.ones_like(self._alpha)
        self.ratios = torch.zeros_like(self._alpha)
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
        down = torch.where(usable & ~uphill, bent, 0.0)
        if isinstance(self._policy, Watch):
            self.scales = torch.ones_like(down)
        else:
            # no length is short enough uphill; only a cap without an end lets such a step stand
            endless = isinstance(self._policy, Cap) and math.isinf(self._policy.target_at(step))
            scales = torch.where(uphill, 1.0 if endless else 0.0, self._scales(down, p, step, usable & ~uphill))
            self.scales = torch.where(usable, scales, 0.0)
        self.shortened += int((self.scales < 1).sum())
        self.held += int((uphill & (self.scales == 0)).sum())
        s = self.scales.to(p.dtype)[:, None]
        # a row inside keeps every bit, and a row that stays, too: 0 * inf is nan
        return torch.where(s == 1, after, torch.where(s == 0, before, before + s * p))

    def _scales(self, ratio: Tensor, p: Tensor, step: int, learns: Tensor) -> Tensor:
        policy = self._policy
        if isinstance(policy, (Cap, Pin)):
            target = policy.target_at(step)
            scale = torch.as_tensor(target, dtype=torch.float64) / ratio
            return scale.clamp(max=1.0) if isinstance(policy, Cap) else torch.where(scale.isfinite(), scale, 1.0)
        return self._throttle(policy, 2 * ratio, p, learns) if isinstance(policy, Throttle) else torch.ones_like(ratio)

    def _throttle(self, policy: Throttle, margin: Tensor, p: Tensor, learns: Tensor) -> Tensor:
        bounds = {"low": policy.low, "high": policy.high}
        highest = order_0(margin, policy.chi, **bounds)
        alpha, velocity = highest, self._velocity
        if policy.order == 1:
            alpha = order_1(self._alpha, margin, policy.chi, policy.gain, **bounds)
        elif policy.order == 2:
            alpha, velocity = order_2(
                self._alpha, self._velocity, margin, policy.chi, policy.gain, policy.damping, **bounds
            )
        if policy.quantum is not None:
            alpha, _ = quantised(alpha, p.double().norm(dim=-1), policy.quantum, highest)
        self._alpha = torch.where(learns, alpha, self._alpha)
        self._velocity = torch.where(learns, velocity, self._velocity)
        return alpha
