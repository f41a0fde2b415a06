"""Averaged: an optimizer whose weights are averaged on the way (Schedule-Free), so that no end has to be planned."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from safestep._torch.warn_once import warn
from safestep.errors import AveragingError

_MOMENTUM = (
    "{name} has momentum of its own ({key}) beside that of the averaging, and the two together are unstable at rates "
    "that each of them bears: make it without, with {cure}"
)
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
        AveragingError: if an argument is out of range; from `step`, if the model holds the average.

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
        if not optimizers or not all(isinstance(one, Optimizer) for one in optimizers):
            saw = ", ".join(type(one).__name__ for one in optimizers) or "nothing"
            raise AveragingError(f"expected one or more torch.optim.Optimizer, saw {saw}")
        if not 0.0 < beta < 1.0:
            raise AveragingError(f"beta={beta}: expected 0 < beta < 1; 0.9 is usual")
        if not 0.0 <= power < math.inf:
            raise AveragingError(f"power={power}: expected a number from 0 up; 0 is the plain mean, 2 is usual")
        self.optimizers, self.beta, self.power = optimizers, beta, power
        for one in optimizers:
            _begin(one)

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
        before = {p: p.clone() for group in self.param_groups for p in group["params"] if p.grad is not None}
        for one in self.optimizers:
            one.step()
        for one in self.optimizers:
            for group in one.param_groups:
                self._average(group, one.state, before)
        return loss

    def _average(self, group: dict[str, Any], states: dict[Tensor, Any], before: dict[Tensor, Tensor]) -> None:
        """Move z on by the step that was taken from ``before``, and the weights towards it."""
        group["averaged_steps"] += 1
        weight = float(group["averaged_steps"]) ** self.power
        group["averaged_weight"] += weight
        c = weight / group["averaged_weight"]
        for p in group["params"]:
            if (y := before.get(p)) is None:
                continue
            step, state = p - y, states[p]
            if not state and not step.any():  # skipped before it ever moved: what is put there now would be taken
                continue  # for the optimizer's own
            z = state.setdefault("z", y)
            p.add_(z - y, alpha=c)  # z - y is beta (z - x)
            z.add_(step, alpha=1.0 / (1.0 - self.beta * (1.0 - c)))

    @torch.no_grad()
    def eval(self) -> None:
        """Put the average x into the model; nothing where it is there already."""
        for p, state in self.state.items():
            if "z" in state and "y" not in state:
                state["y"] = p.clone()
                p.lerp_(state["z"], 1.0 - 1.0 / self.beta)  # y = beta x + (1 - beta) z

    @torch.no_grad()
    def train(self) -> None:
        """Put the weights y that are trained back into the model, bit for bit."""
        for p, state in self.state.items():
            if "y" in state:
                p.copy_(state.pop("y"))

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
        _begin(self.optimizer)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the optimizer, z in it; of several a dict with a list of theirs."""
        states = [one.state_dict() for one in self.optimizers]
        return states[0] if len(states) == 1 else {"optimizers": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state, saved in whichever mode; the model's own weights are loaded beside it.

        Raises:
            AveragingError: if it is of an optimizer that was not averaged, or of another number of optimizers.
        """
        states = state_dict.get("optimizers", [state_dict])
        if len(states) != len(self.optimizers):
            raise AveragingError(f"expected the state of {len(self.optimizers)} optimizers, saw {len(states)}")
        if any("averaged_steps" not in group for state in states for group in state["param_groups"]):
            raise AveragingError("expected the state of an Averaged optimizer, saw one without averaged_steps")
        for one, state in zip(self.optimizers, states, strict=True):
            one.load_state_dict(state)

    def __getstate__(self) -> dict[str, Any]:
        """Return what is copied and pickled: Optimizer would leave out all that is added here."""
        return dict(self.__dict__)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what was copied: Optimizer would wrap `step` in hooks that the inner ones have."""
        self.__dict__.update(state)

    def __repr__(self) -> str:
        """Return what is averaged, and how."""
        return f"Averaged({', '.join(map(repr, self.optimizers))}, beta={self.beta}, power={self.power})"


def _begin(optimizer: Optimizer) -> None:
    """Begin to count where every checkpoint of an optimizer keeps numbers; warn of momentum."""
    for group in optimizer.param_groups:
        group.setdefault("averaged_steps", 0)
        group.setdefault("averaged_weight", 0.0)
        betas = group.get("betas", (0.0,))
        if group.get("momentum"):
            warn(_MOMENTUM.format(name=type(optimizer).__name__, key="momentum", cure="momentum=0"))
        elif float(betas[0]):
            cure = f"betas={(0.0, *betas[1:])}"
            warn(_MOMENTUM.format(name=type(optimizer).__name__, key="betas[0]", cure=cure))
