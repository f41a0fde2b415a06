"""The parameters that some optimizers train: which may move, their gradients, and whether they were written to."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from safestep._torch.unwrap import bare
from safestep.distributed.fsdp import held_back
from safestep.recording.nonfinite import parameters_of
from safestep.records.report import number


class Trained:
    """The parameters of a model that one or several optimizers move, as their groups list them now.

    Args:
        model: the model, wrappers included.
        optimizers: held weakly; one that is gone trains nothing any more.

    Attributes:
        began: `version` when the running step of an optimizer began; None while none runs.
    """

    def __init__(self, model: nn.Module, optimizers: Sequence[Optimizer]) -> None:
        self.model = model
        self._optimizers = [weakref.ref(optimizer) for optimizer in optimizers]
        self.began: int | None = None

    @property
    def optimizers(self) -> list[Optimizer]:
        """The optimizers that are still there."""
        return [optimizer for reference in self._optimizers if (optimizer := reference()) is not None]

    @property
    def several(self) -> bool:
        """Whether there was more than one optimizer."""
        return len(self._optimizers) > 1

    def parameters(self) -> list[Tensor]:
        """Return all of them."""
        return [parameter for optimizer in self.optimizers for parameter in parameters_of(optimizer)]

    def moving(self) -> list[Tensor]:
        """Return those that may move."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def gradients(self) -> list[Tensor]:
        """Return the gradients that are stored in them."""
        return [gradient for parameter in self.parameters() if (gradient := parameter.grad) is not None]

    def left_by_backward(self) -> list[Tensor]:
        """Return their gradients, and those in sharded units that have not synchronised yet."""
        return self.gradients() + held_back(bare(self.model))

    def version(self) -> int:
        """Return a number that any write to one of them raises."""
        return sum(parameter._version for parameter in self.parameters())

    def midway(self) -> bool:
        """Return whether a step is running and has moved already: a closure then does not look at theta_0."""
        return self.began is not None and self.version() != self.began

    def rates(self) -> dict[str, float]:
        """Return the learning rate of every group, nan for one that has none, by a name that it keeps."""
        return {name: number(group.get("lr")) for _, name, group in self._groups()}

    def stepping(self, optimizer: Optimizer) -> set[str]:
        """Return the names of an optimizer's groups that have a gradient; of all if its step has left none."""
        own = {name: group["params"] for one, name, group in self._groups() if one is optimizer}
        return {name for name, parameters in own.items() if any(p.grad is not None for p in parameters)} or set(own)

    def _groups(self) -> Iterator[tuple[Optimizer, str, dict[str, Any]]]:
        for slot, reference in enumerate(self._optimizers):
            if (optimizer := reference()) is not None:
                for index, group in enumerate(optimizer.param_groups):
                    yield optimizer, f"{slot}/{index}", group
