"""Sees by what factor the gradients were multiplied between backward and the step (clipping, averaging)."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from safestep.distributed.dtensor import is_sharded
from safestep.recording.weak_hook import WeakHook

_WITNESSES = 3
_ELEMENTS = 1024
"""Elements of a gradient that are looked at."""
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0
_SAME = 1e-3
"""Relative distance up to which witnesses agree on a factor; float32 rounds their sums by less."""


class GradientWitness:
    """Keeps one number of some parameters' gradients when backward leaves them, to compare with later ones.

    Equation:
        ``l(g) = sum_k w_k g_k`` over evenly spread elements of a gradient, ``w_k = frac(k phi) - 1/2`` with the golden
        ratio ``phi`` (as good as random: gradients of a softmax sum to zero along many a regular pattern). Where the
        gradients were multiplied by ``c``, every ``l(c g) / l(g)`` is ``c``. A linear function: its mean over the ranks
        is that of their mean gradient.

    Args:
        parameters: those that train; the first, the middle and the last are the witnesses.

    Attributes:
        handles: remove the hooks.

    Note:
        What changes other gradients only (clipping layer by layer, where it happens to spare the witnesses) is not
        seen. Sharded parameters call no hooks and have no witness.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        plain = [q for q in parameters if q.requires_grad and q.is_leaf and q.numel() and not is_sharded(q)]
        last = len(plain) - 1
        places = sorted({round(last * part / (_WITNESSES - 1)) for part in range(_WITNESSES)}) if plain else []
        self._witnesses = [plain[place] for place in places]
        self._left: dict[int, Tensor] = {}
        hook = WeakHook(self._after_backward, self)
        self.handles = [q.register_post_accumulate_grad_hook(hook) for q in self._witnesses]

    def _after_backward(self, parameter: Tensor) -> None:
        if (number := _number(parameter.grad)) is not None:
            self._left[id(parameter)] = number

    def numbers(self) -> list[float]:
        """Return what backward left of each witness, then what there is now; nan where it is not known."""
        lost = torch.full((), math.nan, device="cpu")
        left = [self._left.get(id(q), lost) for q in self._witnesses]
        now = [lost if (number := _number(q.grad)) is None else number for q in self._witnesses]
        known = [*left, *now]
        if not known:
            return []
        home = next((number.device for number in known if number is not lost), lost.device)
        return torch.stack([number.to(home, torch.float64) for number in known]).tolist()


def factor_of(left: Sequence[float], now: Sequence[float]) -> float:
    """Return the factor between what backward left and what there is now; nan where it cannot be told.

    Example:
        >>> factor_of([1.0, -4.0, 0.0], [0.5, -2.0, 0.0])
        0.5
        >>> factor_of([1.0, -4.0], [0.5, -4.0])
        nan
    """
    pairs = [(a, b) for a, b in zip(left, now, strict=True) if not (math.isnan(a) and math.isnan(b))]
    factors = [b / a for a, b in pairs if a != 0.0]
    if not factors or any(a == 0.0 != b for a, b in pairs):
        return math.nan
    low, high = min(factors), max(factors)
    agree = low > 0.0 and high - low <= _SAME * high  # nan agrees with nothing
    return factors[0] if agree else math.nan


@torch.no_grad()
def _number(gradient: Tensor | None) -> Tensor | None:
    if gradient is None or gradient.layout is not torch.strided or gradient.is_complex() or is_sharded(gradient):
        return None
    some = gradient.detach().flatten()  # a view of most gradients
    some = some[:: max(1, some.numel() // _ELEMENTS)].float()
    return torch.dot(some, _weights(some.numel(), some.device))


@functools.cache
def _weights(count: int, device: torch.device) -> Tensor:
    turns = torch.arange(count, dtype=torch.float64, device="cpu") * _GOLDEN
    return (turns - turns.floor() - 0.5).to(device, torch.float32)
