"""Counts steps in a row that were undone or held; warns, or raises if the optimizer's state is not finite."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.optim import Optimizer

from safestep._torch.unwrap import bare
from safestep._torch.warn_once import Once
from safestep.distributed.consensus import ALONE, Peers
from safestep.errors import PoisonedOptimizerError
from safestep.recording.nonfinite import describe_poison
from safestep.records.reading import Status

NOTHING_PROPOSED = (Status.STILL, Status.SKIPPED)
"""Nothing moved: there is nothing to diagnose, and nothing that could go on for ever."""
_PATIENCE = 3
"""Undone steps in a row after which a poisoned optimizer is an error."""
_HELD = 20
"""Held steps in a row after which it is said that nothing moves."""

_UNDONE_IN_A_ROW = (
    "steps in a row were undone though the optimizer's state is finite: look for nan in the data, the loss or the "
    "parameters"
)
_ELSEWHERE = (
    "the state of the optimizer of another rank is not finite, see its output. Load a checkpoint of the optimizer on "
    "all ranks, or clear its state"
)
_HELD_IN_A_ROW = (
    "steps in a row were held, as each goes uphill on its own batch: is the loss maximised, the weight decay stronger "
    "than the gradient, or the loss another one than the radius is given? Under KLRadius(reference=...) the limit is "
    "used up until a new batch brings a new reference"
)


class Standstill:
    """Counts them, step by step.

    Args:
        model: gives the parameters their names.
        say: warns, once about each thing.
        raises: whether a poisoned optimizer is an error; under a policy that only watches it is said.

    Attributes:
        undone: steps in a row that were undone.
        held: steps in a row that were held.
    """

    def __init__(self, model: nn.Module, say: Once, *, raises: bool = True) -> None:
        self.undone = self.held = 0
        self._model, self._say, self._raises = model, say, raises

    def count(self, status: Status, stepped: Sequence[Optimizer], peers: Peers = ALONE) -> None:
        """Count a step of these optimizers.

        Raises:
            PoisonedOptimizerError: if a run could only stand still: their state is not finite, and this was the third
                undone step in a row.
        """
        if status in NOTHING_PROPOSED:
            return
        try:
            self._count(status, stepped, peers)
        except Exception as error:
            if self._raises:
                raise
            self._say("standstill", str(error))

    def _count(self, status: Status, stepped: Sequence[Optimizer], peers: Peers) -> None:
        self.held = self.held + 1 if status is Status.HELD else 0
        self.undone = self.undone + 1 if status is Status.UNDONE else 0
        if self.held == _HELD:
            self._say("held", f"{_HELD} {_HELD_IN_A_ROW}")
        if not self.undone:
            return
        names: dict[Tensor, str] = {parameter: name for name, parameter in bare(self._model).named_parameters()}
        poison = describe_poison(stepped, names)
        if peers.some(bool(poison)):  # on several ranks each may hold a piece of the state
            poison = poison or _ELSEWHERE
            if self.undone >= _PATIENCE:
                raise PoisonedOptimizerError(f"{self.undone} steps in a row were undone: {poison}")
            self._say("poisoned", poison)
        elif self.undone == _PATIENCE:
            self._say("standing still", f"{_PATIENCE} {_UNDONE_IN_A_ROW}")
