"""Rules of functions of one number: the tangent times the slope, by the kernels that backward uses."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from safestep.tape.rules import Call, Tangents, only, rule

aten = torch.ops.aten

Slope = Callable[[Tensor, Tensor, Call], Tensor]
"""From a tangent and the value that it is to be multiplied at to the tangent of the result."""


def _of_argument(name: str, slope: Slope) -> None:
    rule(name, keeps=only(0))(lambda call: slope(call.dots[0], call.args[0], call))


def _of_result(name: str, slope: Slope) -> None:
    rule(name, keeps=only(), results=(0,))(lambda call: slope(call.dots[0], call.results[0], call))


# d f(x) = f'(x) dx is what a backward kernel computes from (dx, x): a diagonal Jacobian is its own transpose.
# Functions that few networks use take the generic way.
_of_argument("gelu", lambda d, x, call: aten.gelu_backward(d, x, approximate=call["approximate"]))
_of_argument("silu", lambda d, x, call: aten.silu_backward(d, x))
_of_argument("hardswish", lambda d, x, call: aten.hardswish_backward(d, x))
_of_argument("leaky_relu", lambda d, x, call: aten.leaky_relu_backward(d, x, call["negative_slope"], False))
_of_argument("hardtanh", lambda d, x, call: aten.hardtanh_backward(d, x, call["min_val"], call["max_val"]))
_of_result("relu", lambda d, y, call: aten.threshold_backward(d, y, 0))
_of_result("tanh", lambda d, y, call: aten.tanh_backward(d, y))
_of_result("sigmoid", lambda d, y, call: aten.sigmoid_backward(d, y))
_of_result("exp", lambda d, y, call: d * y)
_of_result("rsqrt", lambda d, y, call: d * y.pow(3).mul_(-0.5))


@rule("native_dropout", keeps=only(), results=(1,))
def dropout(call: Call) -> Tangents:
    """Return the tangent under the forward's mask."""
    if call["train"] is False:
        return call.dots[0]
    return aten.native_dropout_backward(call.dots[0], call.results[1], 1 / (1 - call["p"]) if call["p"] < 1 else 0.0)


@rule("round", "floor", "ceil", "trunc", "sign", refuses=lambda get: "is a staircase, which backward may pass by")
def staircase(call: Call) -> Tangents:
    """Return nothing: it is refused. Its derivative is zero, but no training means that one."""


@rule(
    "fake_quantize_per_tensor_affine_cachemask", "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams",
    "fake_quantize_per_channel_affine_cachemask", "_fused_moving_avg_obs_fq_helper",
    keeps=only(), results=(1,), quantises=True,
)  # fmt: skip
def fake_quantize(call: Call) -> Tangents:
    """Return the tangent where the value was not clipped: straight through, as in backward."""
    return call.dots[0] * call.results[1]
