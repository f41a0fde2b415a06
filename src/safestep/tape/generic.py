"""The rule for an operation without a rule of its own: dual numbers through that operation alone."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.autograd import forward_ad

from safestep.errors import TapeError
from safestep.tape.rules import Call, Rule, Tangents, everything


def generic(call: Call) -> Tangents:
    """Return the tangents of the results by torch's own forward derivative: the operation runs once more."""
    with forward_ad.dual_level():
        args = [_dual(value, dot) for value, dot in zip(call.args, call.dots, strict=True)]
        kwargs = {name: _dual(value, call.named.get(name)) for name, value in call.kwargs.items()}
        try:
            out = call.func(*args, **kwargs)
        except (RuntimeError, NotImplementedError) as error:
            first_line = str(error).partition("\n")[0]
            raise TapeError(f"{call.func} cannot be differentiated along the step: {first_line}") from error
        if isinstance(out, Tensor):
            return forward_ad.unpack_dual(out).tangent
        return [forward_ad.unpack_dual(one).tangent if isinstance(one, Tensor) else None for one in out]


def _dual(value: Any, dot: Any) -> Any:
    if isinstance(value, list):
        return [_dual(one, its) for one, its in zip(value, dot, strict=True)] if dot is not None else value
    return value if dot is None else forward_ad.make_dual(value, dot)


GENERIC = Rule(generic, keeps=everything, outputs=None)
