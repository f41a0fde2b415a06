"""Standard normal numbers for many steps at a time, drawn in a thread beside the steps."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

_BLOCK = 2**19
"""Numbers in a block, of as many whole steps as fit; a large ensemble has blocks of one step."""
_STEPS = 16
"""Steps in a block at most."""
_WORTH = 2**14
"""Blocks of fewer numbers are drawn sooner than another thread wakes."""


class Ahead:
    """Hands out standard normal numbers step by step, while the next block of them is being drawn.

    Drawing takes as long as the rest of a step, and torch draws with one core only: beside the steps it takes the
    other. The numbers do not depend on that, they come from one generator in order.

    Example:
        >>> ahead = Ahead((5, 2), torch.Generator().manual_seed(0))
        >>> ahead.next().shape, torch.equal(ahead.next(), ahead.next())
        (torch.Size([5, 2]), False)
    """

    def __init__(self, shape: tuple[int, int], generator: torch.Generator) -> None:
        runs, d = shape
        steps = max(1, min(_STEPS, _BLOCK // (runs * d)))
        self._generator = generator
        self._blocks = [torch.empty(steps, d, runs, dtype=torch.float32, device="cpu") for _ in range(2)]
        self._place = steps
        self._drawer = ThreadPoolExecutor(1, "noise") if self._blocks[0].numel() >= _WORTH else None
        self._coming: Future[Tensor] | None = None

    def next(self) -> Tensor:
        """Return the numbers of one step, shape ``(runs, d)``, in single precision; good until the next call."""
        if self._place == len(self._blocks[0]):
            self._turn()
        self._place += 1
        return self._blocks[0][self._place - 1].t()

    def _turn(self) -> None:
        """Bring the next block forward, and have the one after it drawn into the memory of the one before."""
        self._blocks.reverse()
        self._place = 0
        if self._coming is None:
            self._draw(self._blocks[0])
        else:
            self._coming.result()
        if self._drawer is not None:
            self._coming = self._drawer.submit(self._draw, self._blocks[1])

    def _draw(self, block: Tensor) -> Tensor:
        return block.normal_(generator=self._generator)
