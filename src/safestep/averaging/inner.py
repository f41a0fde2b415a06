"""What an optimizer, and a saved state of one, has to be to be averaged."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch.optim import Optimizer

from safestep.errors import AveragingError

_MOMENTUM = (
    "{name} has momentum of its own ({key}) beside that of the averaging, and the two together are unstable at rates "
    "that each of them bears: make it without, with {cure}; a OneCycleLR with cycle_momentum=False"
)
_LOST = (
    "saved while the model held the average, but the weights y that are trained are not in it (distributed "
    "checkpointing reads only what the new optimizer has): save after train(), or call eval() before the state to "
    "read into is made"
)


def check_optimizers(optimizers: Sequence[object], averaging: type) -> None:
    """Raise AveragingError for what cannot be averaged: it would fail late, or give weights that are no average.

    Args:
        optimizers: to be averaged together.
        averaging: the class of those that are averaged already.
    """
    saw = ", ".join(type(one).__name__ for one in optimizers) or "nothing"
    torch_optimizers = [one for one in optimizers if isinstance(one, Optimizer)]
    if not optimizers or len(torch_optimizers) < len(optimizers):
        raise AveragingError(f"expected one or more torch.optim.Optimizer, saw {saw}")
    for one in torch_optimizers:
        name = type(one).__name__
        if isinstance(one, averaging) or "ScheduleFree" in name:
            raise AveragingError(f"expected a plain optimizer, saw {name}, which averages already: take it as it is")
        needs = inspect.signature(one.step).parameters.get("closure")
        if needs is not None and needs.default is inspect.Parameter.empty:
            raise AveragingError(
                f"{name}.step needs a closure, which it may call many times on the way: expected one whose step goes "
                "by the gradients that are there, such as AdamW(..., betas=(0.0, 0.999))"
            )
    parameters = [p for one in torch_optimizers for group in one.param_groups for p in group["params"]]
    if len(parameters) > len({id(p) for p in parameters}):
        raise AveragingError(
            f"expected every parameter in one optimizer, saw {len(parameters)} in {saw}, of which "
            f"{len({id(p) for p in parameters})} are different: each would be averaged more than once"
        )


def check_states(states: Sequence[Mapping[str, Any]], expected: int) -> None:
    """Raise AveragingError for states that averages cannot go on from.

    Args:
        states: as `Optimizer.state_dict` gives them.
        expected: how many optimizers are averaged.
    """
    if len(states) != expected:
        raise AveragingError(f"expected the state of {expected} optimizers, saw {len(states)}")
    groups = [group for state in states for group in state["param_groups"]]
    if any("averaged_steps" not in group for group in groups):
        raise AveragingError("expected the state of an Averaged optimizer, saw one without averaged_steps")
    shown = any(group["averaged_shown"] for group in groups)
    if shown and not any("y" in of for state in states for of in state["state"].values()):
        raise AveragingError(_LOST)


def momentum_of(optimizer: Optimizer) -> Iterator[tuple[str, str]]:
    """Yield each momentum that an optimizer has of its own, and what is to be said of it."""
    name = type(optimizer).__name__
    for group in optimizer.param_groups:
        betas = group.get("betas", (0.0,))
        if group.get("momentum"):
            yield name + "momentum", _MOMENTUM.format(name=name, key="momentum", cure="momentum=0")
        elif float(betas[0]):
            cure = f"betas={(0.0, *betas[1:])}"
            yield name + "betas", _MOMENTUM.format(name=name, key="betas[0]", cure=cure)
