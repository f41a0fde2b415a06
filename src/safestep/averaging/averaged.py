"""Averaged: an optimizer whose weights are averaged on the way (Schedule-Free), so that no end has to be planned."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from safestep._torch.warn_once import Once
from safestep.averaging.inner import check_optimizers, check_states, momentum_of
from safestep.errors import AveragingError
from safestep.recording.optimizer_hooks import learns_state

_MODE = (
    "step() while the model holds the averaged weights: call train() of the Averaged optimizer before training goes "
    "on, as model.train()"
)


class Averaged(Optimizer):
    r"""Schedule-Free around any optimizer: trains at y, evaluates at the average x, and needs no end of the run.

    Where the optimizer moves the weights y by q, a fast sequence z goes farther, x averages z, and y stays between:

    Equation:
        ``z' = z + q / (1 - beta (1 - c))``, ``x' = (1 - c) x + c z'``, ``y' = beta x' + (1 - beta) z'``,
        with ``c = k^power / (1^power + ... + k^power)`` in step k. Together ``y' = y + q + beta c (z - x)``: the
        optimizer's own step, and a pull. ``c`` is 1 in the first step, where x = y = z.

    A guard limits q, the part of the step that this batch decides, where its gradient was taken: ``attach(model,
    averaged)``. The rate is the optimizer's own, in units of y. For that of Schedule-Free, which is in units of z,
    multiply it by ``1 - beta (1 - c)``, a tenth in the long run.

    Args:
        optimizers: one, or several that step together; without momentum, as ``AdamW(..., betas=(0.0, 0.999))``.
        beta: how near to the average the model is trained, between 0 and 1.
        power: how much later steps count in the average, at least 0; 0 is the plain mean.

    Raises:
        AveragingError: if an argument is out of range, or an optimizer averages already, or steps by a closure only, or
            shares parameters with another; from `step`, if the model holds the average.

    Example:
        >>> import torch
        >>> weight = torch.nn.Parameter(torch.tensor([3.0]))
        >>> averaged = Averaged(torch.optim.SGD([weight], lr=0.1), power=0)
        >>> for _ in range(2):
        ...     weight.grad = weight.detach().clone()  # of half the square
        ...     averaged.step()
        >>> weight.item()  # 3 - 0.1 * 3 = 2.7 = x = z, then 2.7 - 0.1 * 2.7
        2.43...
        >>> averaged.eval()
        >>> weight.item()  # x = (2.7 + z) / 2 with z = 2.7 - 0.27 / (1 - 0.9 / 2)
        2.454...
        >>> averaged.train()

    Note:
        Evaluate, save and ship between ``eval()`` and ``train()``: in between nothing can be stepped, and after it
        the weights are bit for bit those before. z is kept in the optimizer's state, as large as the weights; a step
        copies them once more. Statistics of BatchNorm are those of y: run some batches at x before it is judged.

    Reference:
        A. Defazio et al., The Road Less Scheduled (arXiv 2405.15682), whose weights are ``power=0`` after warm-up.
    """

    def __init__(self, *optimizers: Optimizer, beta: float = 0.9, power: float = 2.0) -> None:
        check_optimizers(optimizers, Averaged)
        if not 0.0 < beta < 1.0:
            raise AveragingError(f"beta={beta}: expected 0 < beta < 1; 0.9 is usual")
        if not 0.0 <= power < math.inf:
            raise AveragingError(f"power={power}: expected a number from 0 up; 0 is the plain mean, 2 is usual")
        self.optimizers, self.beta, self.power, self._say = optimizers, beta, power, Once()
        self._begin()

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer that is averaged, where it is one."""
        if len(self.optimizers) > 1:
            raise AttributeError("several optimizers are averaged together: see .optimizers")
        return self.optimizers[0]

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The groups of all optimizers; a schedule of rates may write to them."""
        return [group for one in self.optimizers for group in one.param_groups]

    @property
    def state(self) -> dict[Tensor, Any]:  # type: ignore[override]
        """The state of every parameter: the optimizer's own, and ``z``."""
        return {p: state for one in self.optimizers for p, state in one.state.items()}

    @property
    def defaults(self) -> dict[str, Any]:  # type: ignore[override]
        """Those of the first optimizer."""
        return self.optimizers[0].defaults

    def _begin(self) -> None:
        """Put what is counted, and by what the average is known, where every checkpoint of an optimizer has numbers."""
        for group in self.param_groups:
            group.setdefault("averaged_steps", 0)
            group.setdefault("averaged_weight", 0.0)
            group.setdefault("averaged_shown", False)
            group["averaged_beta"], group["averaged_power"] = self.beta, self.power
        self._look_for_momentum()

    def _look_for_momentum(self) -> None:
        for one in self.optimizers:
            for key, text in momentum_of(one):
                self._say(key, text)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Let the optimizers step, and average what they, and a guard of them, made of the weights.

        Args:
            closure: computes the loss and its gradients; called once, at y.

        Returns:
            What the closure returned.
        """
        if self._shows_average:
            raise AveragingError(_MODE)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._look_for_momentum()  # a schedule may have brought some
        before = {p: p.clone() for group in self.param_groups for p in group["params"] if p.grad is not None}
        for one in self.optimizers:
            one.step()
        learnt = learns_state()  # no step of training, but what is kept has to be there
        for one in self.optimizers:
            for group in one.param_groups:
                if not learnt:
                    self._average(group, one.state, before)
                for p in group["params"] if learnt else ():
                    one.state[p].update(z=p.clone(), late=0.0)
        return loss

    def _average(self, group: dict[str, Any], states: dict[Tensor, Any], before: dict[Tensor, Tensor]) -> None:
        """Move z on by the step that was taken from ``before``, and the weights towards it."""
        group["averaged_steps"] += 1
        weight = float(group["averaged_steps"]) ** self.power
        group["averaged_weight"] += weight
        for p in group["params"]:
            if (y := before.get(p)) is None:
                continue
            step, state = p - y, states[p]
            if not state and not step.any():  # skipped before it ever moved: what is put there now would be taken
                continue  # for the optimizer's own
            if "z" not in state:  # steps before a parameter first moved are not of its average
                state.update(z=y, late=group["averaged_weight"] - weight)
            z, c = state["z"], weight / (group["averaged_weight"] - state["late"])
            p.add_(z - y, alpha=c)  # z - y is beta (z - x)
            z.add_(step, alpha=1.0 / (1.0 - self.beta * (1.0 - c)))

    @torch.no_grad()
    def eval(self) -> None:
        """Put the average x into the model; nothing where it is there already."""
        for p, state in self.state.items():
            if "z" in state and "y" not in state:
                state["y"] = p.clone()
                p.lerp_(state["z"], 1.0 - 1.0 / self.beta)  # y = beta x + (1 - beta) z
        self._mark()

    @torch.no_grad()
    def train(self) -> None:
        """Put the weights y that are trained back into the model, bit for bit."""
        for p, state in self.state.items():
            if "y" in state:
                p.copy_(state.pop("y"))
        self._mark()

    def _mark(self) -> None:
        for group in self.param_groups:
            group["averaged_shown"] = self._shows_average

    @property
    def _shows_average(self) -> bool:
        return any("y" in state for state in self.state.values())

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        for one in self.optimizers:
            one.zero_grad(set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters to the optimizer; their average begins where they are."""
        self.optimizer.add_param_group(param_group)
        self._begin()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the optimizer, z in it; of several a dict with a list of theirs."""
        states = [one.state_dict() for one in self.optimizers]
        return states[0] if len(states) == 1 else {"optimizers": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state, beta and power in it, saved in whichever mode; load the model's weights of then, too.

        Raises:
            AveragingError: if it is of an optimizer that was not averaged, or of another number of them, or lost y.
        """
        states = state_dict.get("optimizers", [state_dict])
        check_states(states, len(self.optimizers))
        for one, state in zip(self.optimizers, states, strict=True):
            one.load_state_dict(state)
        saved = self.param_groups[0]
        self.beta, self.power = saved["averaged_beta"], saved["averaged_power"]

    def __getstate__(self) -> dict[str, Any]:
        """Return what is copied and pickled: Optimizer would leave out all that is added here.

        Without the ``step`` that a schedule of rates puts here: it is bound to this one, and a copy would step it.
        """
        return {name: value for name, value in self.__dict__.items() if name != "step"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what was copied: Optimizer would wrap `step` in hooks that the inner ones have."""
        self.__dict__.update(state)

    def __repr__(self) -> str:
        """Return what is averaged, and how."""
        return f"Averaged({', '.join(map(repr, self.optimizers))}, beta={self.beta}, power={self.power})"
