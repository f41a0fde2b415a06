"""The learning rates of all parameter groups, and their proportions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.optim import Optimizer

from safestep.errors import MeasurementError


@dataclass(frozen=True, slots=True)
class Rates:
    """The present rates of all groups, and what they are where the leading one is something else.

    Attributes:
        present: the rate of every group now, of all optimizers in order.
        lead: the present rate of the leading group, the first whose rate is not 0; 0 where all are.
        shares: the rate of every group as a multiple of the leading one.
    """

    present: tuple[float, ...]
    lead: float
    shares: tuple[float, ...]

    @classmethod
    def of(cls, optimizers: Sequence[Optimizer]) -> Rates:
        """Read the rates off the groups. Where all are 0, those that a schedule began with tell the proportions.

        Raises:
            MeasurementError: if a group has no learning rate.
        """
        groups = [(type(one).__name__, group) for one in optimizers for group in one.param_groups]
        for name, group in groups:
            if not isinstance(group.get("lr"), (int, float, Tensor)):
                raise MeasurementError(
                    f"a parameter group of {name} has the learning rate {group.get('lr')!r}: expected a number. An "
                    "optimizer that sets its rate itself has none to suggest"
                )
        present = tuple(float(group["lr"]) for _, group in groups)
        initial = tuple(float(group.get("initial_lr", 0.0)) for _, group in groups)
        base = next((rates for rates in (present, initial) if any(rates)), (1.0,) * len(groups))
        lead = next(rate for rate in base if rate)
        return cls(present, lead if any(present) else 0.0, tuple(rate / lead for rate in base))

    def at(self, lr: float) -> tuple[float, ...]:
        """Return the rate of every group where the leading one is ``lr``; a group whose share is 0 stays at 0.

        Example:
            >>> Rates(present=(0.1, 0.2, 0.0), lead=0.1, shares=(1.0, 2.0, 0.0)).at(3.0)
            (3.0, 6.0, 0.0)
        """
        # Not through the shares where nothing changes: 0.1 * (0.3 / 0.1) is not 0.3.
        return self.present if lr == self.lead else tuple(share * lr if share else 0.0 for share in self.shares)
