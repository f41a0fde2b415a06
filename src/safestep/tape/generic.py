"""The rule for an operation without a rule of its own: dual numbers through that operation alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.autograd import forward_ad

from safestep.errors import TapeError
from safestep.tape.rules import Call, TangentRule, Tangents


def generic(call: Call) -> Tangents:
    """Return the tangents of the results by torch's own forward derivative: the operation runs once more."""
    return by_dual_numbers(call.run, call.args, call.dots, str(call.func))


def by_dual_numbers(function: Callable[[list[Any]], Any], args: Sequence[Any], dots: Sequence[Any], name: str) -> Any:
    """Return the tangents of the results of a function of a list of arguments.

    Raises:
        TapeError: if torch has no forward derivative of it.
    """
    with forward_ad.dual_level():
        try:
            out = function([_dual(*each) for each in zip(args, dots, strict=True)])
        except (RuntimeError, NotImplementedError) as error:
            first_line = str(error).partition("\n")[0]
            raise TapeError(f"{name} cannot be differentiated along the step: {first_line}") from error
        if isinstance(out, Tensor):
            return forward_ad.unpack_dual(out).tangent
        return [forward_ad.unpack_dual(one).tangent if isinstance(one, Tensor) else None for one in out]


def _dual(value: Any, dot: Any) -> Any:
    if isinstance(dot, list):
        return [_dual(*each) for each in zip(value, dot, strict=True)]
    return value if dot is None else forward_ad.make_dual(value, dot)


GENERIC = TangentRule(generic, outputs=None)
