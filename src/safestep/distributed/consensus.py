"""The other ranks: small sums, maxima and votes among the guards of several processes, bounded in time."""

from __future__ import annotations

import math
import sys
import weakref
from collections.abc import Sequence
from datetime import timedelta
from types import FrameType
from typing import TYPE_CHECKING, NoReturn
from zlib import crc32

import torch
from torch import Tensor

from safestep.errors import RanksError

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

_WIDTH = 16
"""Numbers in every reduction. All have the same size, so that ranks that are out of step find it out."""
_TAGS = 1021
_APART = 1e-3
"""Relative distance of the step lengths of two ranks, beyond rounding, from which their models are not the same."""


class Peers:
    """The guards of one training run, one on each rank; alone by default, where every answer is one's own.

    Every method must be called by all ranks, in the same order. Each reduction carries the number of the step and who
    asks, so that ranks that are not at the same place are told.

    Args:
        group: a process group of their own; None for a guard that is alone.
        device: where the group reduces.
        timeout: seconds that a rank waits for the others.
        lockstep: whether running the model needs all ranks (sharded parameters, synchronised BatchNorm), so that
            everything that leads to a forward has to be agreed on.
        missing: why they did not come together in the first place.

    Attributes:
        count: how many there are.
        index: which one this is, from 0.
        root: the number of the first among all processes.
        step: the number of the step they are at; the guard keeps it.

    Example:
        >>> Peers().largest(2.0)
        2.0
    """

    def __init__(
        self,
        group: ProcessGroup | None = None,
        device: str = "cpu",
        timeout: float = math.inf,
        *,
        lockstep: bool = False,
        missing: RuntimeError | None = None,
    ) -> None:
        self.count, self.index, self.root, self.step = 1, 0, 0, 0
        if group is not None:
            self.count, self.index = group.size(), group.rank()
            self.root = torch.distributed.get_process_group_ranks(group)[0]
        self.timeout, self.lockstep = timeout, lockstep and self.count > 1
        # Weakly: torch keeps a group until it is told to destroy it, and one that outlives that may abort at the exit.
        self._group = weakref.ref(group) if group is not None else None
        self._device, self._missing, self._broken = device, missing, ""

    @property
    def alone(self) -> bool:
        """Whether there is nobody to agree with."""
        return self.count == 1

    @property
    def in_step(self) -> Peers:
        """Those to agree with on whatever leads to a forward: all, where a forward needs all of them; else nobody."""
        return self if self.lockstep else ALONE

    @property
    def first(self) -> bool:
        """Whether this is the rank that counts what all ranks hold."""
        return self.index == 0

    def sums(self, values: Sequence[float] | Tensor) -> list[float]:
        """Return each value added up over the ranks; nan and inf stay what they are.

        Args:
            values: at most fourteen; a 1-D tensor is reduced where it is, and read once.
        """
        if self.alone:
            return values.tolist() if isinstance(values, Tensor) else list(values)
        tag = float((self.step + self._place()) % _TAGS)
        reduced = self._reduce(values, (tag, tag * tag), "SUM")
        self._check(reduced[0] == self.count * tag and reduced[1] == self.count * tag * tag)
        return reduced[2 : 2 + len(values)]

    def maxima(self, values: Sequence[float]) -> list[float]:
        """Return the largest of each value over the ranks; values must not be nan, which a maximum may lose."""
        if self.alone:
            return list(values)
        tag = float(self._place())
        reduced = self._reduce(values, (tag, -tag), "MAX")
        self._check(reduced[0] == tag == -reduced[1])
        return reduced[2 : 2 + len(values)]

    def largest(self, value: float) -> float:
        """Return the largest value of all ranks; nan if one has nan."""
        unknown = math.isnan(value)
        top, lost = self.maxima([-math.inf if unknown else value, float(unknown)])
        return math.nan if lost else top

    def check_lengths(self, shortest: float, longest: float) -> None:
        """Raise RanksError, now and from now on, if the same step has different lengths on the ranks."""
        if longest - shortest > _APART * longest:
            self._give_up(
                f"the same step is {longest:g} long on one rank and {shortest:g} on another: the ranks do not train "
                "the same parameters (are the gradients averaged, did all start from the same weights?). For models of "
                "their own: attach(..., ranks=None)"
            )

    def some(self, flag: bool) -> bool:
        """Return whether it is so on some rank."""
        return flag if self.alone else self.maxima([float(flag)])[0] > 0.0

    def every(self, flag: bool) -> bool:
        """Return whether it is so on every rank."""
        return not self.some(not flag)

    def _place(self) -> int:
        """Return a number for the step and for who asks, which must be the same on all ranks."""
        frame: FrameType | None = sys._getframe()
        while frame is not None and frame.f_globals["__name__"] == __name__:
            frame = frame.f_back
        return self.step * _TAGS + (crc32(frame.f_code.co_qualname.encode()) % _TAGS if frame is not None else 0)

    def _reduce(self, values: Sequence[float] | Tensor, tag: tuple[float, float], operation: str) -> list[float]:
        if self._missing is not None:
            self._lose(self._missing)
        if self._broken:  # whoever goes on does not wait again
            raise RanksError(self._broken)
        distributed = torch.distributed
        packed = torch.zeros(_WIDTH, dtype=torch.float64, device=self._device)
        packed[:2] = torch.tensor(tag, dtype=torch.float64)
        packed[2 : 2 + len(values)] = (
            values.detach() if isinstance(values, Tensor) else torch.tensor(values, dtype=torch.float64)
        )
        operator = getattr(distributed.ReduceOp, operation)
        try:
            if self._group is None or (group := self._group()) is None:
                raise RuntimeError("the process group was destroyed")
            work = distributed.all_reduce(packed, op=operator, group=group, async_op=True)
            work.wait(timedelta(seconds=self.timeout))
            reduced: list[float] = packed.tolist()
        except RuntimeError as error:
            self._lose(error)
        return reduced

    def _lose(self, error: RuntimeError) -> NoReturn:
        self._missing = None
        self._broken = (
            f"rank {self.index} of {self.count} could not agree with the others on step {self.step}, after "
            f"at most {self.timeout:g} s ({str(error).splitlines()[0]}): another rank stopped, raised an error, "
            "or takes other steps. See the output of the other ranks. All ranks attach a guard and take every step "
            "together; for slow ranks attach(..., ranks=Ranks(timeout=seconds))"
        )
        raise RanksError(self._broken) from error

    def _check(self, together: bool) -> None:
        if not together:
            self._give_up(
                f"rank {self.index} of {self.count} is at step {self.step}, another rank is at another place: they did "
                "not take the same steps, or one was resumed from another checkpoint, or measuring took another course "
                "there. Load the same guard state on all ranks; see the output of the others"
            )

    def _give_up(self, why: str) -> None:
        self._broken = why
        raise RanksError(why)


ALONE = Peers()
"""A guard that asks nobody."""
