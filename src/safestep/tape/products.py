"""Rules of products: d(a b) = da b + a db, a factor without a tangent costing nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from safestep.tape.rules import Call, Tangents, factors, only, rule
from safestep.tape.signature import Signature


@rule("mm", "bmm", keeps=factors(0, 1))
def matrix_product(call: Call) -> Tangents:
    """Return ``da b + a db``, the second product added into the first."""
    (a, b), (da, db) = call.args, call.dots
    total = None if da is None else call.func(da, b)
    return total if db is None else _added(total, a, db)


@rule("addmm", "baddbmm", keeps=factors(1, 2))
def affine(call: Call) -> Tangents:
    """Return ``beta dc + alpha (da b + a db)``."""
    (_, a, b), (dc, da, db) = call.args[:3], call.dots[:3]
    total = None if dc is None else (dc * call["beta"]).expand(call.shape).contiguous()
    for one, other in ((da, b), (a, db)):
        if one is not None and other is not None:
            total = _added(total, one, other, call["alpha"])
    return total


def _added(total: Tensor | None, a: Tensor, b: Tensor, alpha: float = 1) -> Tensor:
    """Return ``total + alpha a b``, in place where there is a total."""
    batched = a.ndim == 3
    if total is None:
        product = torch.bmm(a, b) if batched else torch.mm(a, b)
        return product if alpha == 1 else product.mul_(alpha)
    return total.baddbmm_(a, b, alpha=alpha) if batched else total.addmm_(a, b, alpha=alpha)


@rule("mv", "dot", "vdot", "mul.Tensor", keeps=factors(0, 1))
def product(call: Call) -> Tangents:
    """Return ``da b + a db`` of any bilinear operation."""
    (a, b), (da, db) = call.args, call.dots
    total = None if da is None else call.func(da, b)
    if db is None:
        return total
    if total is None:
        return call.func(a, db)
    if call.func is torch.ops.aten.mul.Tensor and total.size() == call.shape and total.dtype == call.dtype:
        return total.addcmul_(a, db)
    return total + call.func(a, db)


@rule("mul.Scalar", "div.Scalar", keeps=only())
def scaled(call: Call) -> Tangents:
    """Return the tangent times or over the same number."""
    return call.func(call.dots[0], *call.args[1:])


@rule("div.Tensor", keeps=only(1), results=(0,))
def quotient(call: Call) -> Tangents:
    """Return ``(da - (a/b) db) / b``."""
    b, (da, db) = call.args[1], call.dots
    if db is None:
        return call.func(da, b)
    top = call.results[0] * db
    return call.func(top.neg_() if da is None else torch.sub(da, top), b)


@rule(
    "convolution", "cudnn_convolution", "mkldnn_convolution", "_convolution", "miopen_convolution",
    keeps=factors(0, 1),
)  # fmt: skip
def convolution(call: Call) -> Tangents:
    """Return ``conv(dx, w) + conv(x, dw) + db``."""
    biased = "bias" in Signature.of(call.func).places
    (x, w), (dx, dw), db = call.args[:2], call.dots[:2], call.dots[2] if biased else None
    rest = call.args[3:] if biased else call.args[2:]
    total: Tensor | None = None
    for one, kernel in ((dx, w), (x, dw)):
        if one is not None and kernel is not None:
            bias = [db if total is None else None] if biased else []
            part = call.run([one, kernel, *bias, *rest])
            total = part if total is None else total.add_(part)
    if total is None and db is not None:
        return db.reshape(-1, *(1,) * (len(call.shape) - 2)).expand(call.shape)
    return total
