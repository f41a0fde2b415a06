"""Mixed precision: autocast, gradient scalers, parameters in reduced types."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from loops.models import ADAPTED
from loops.row import Loop, Row
from zoo import ZOO, Case
from zoo.batches import CLASSES
from zoo.models import mlp

BF16, FP16 = torch.bfloat16, torch.float16


def autocast(dtype: torch.dtype) -> Callable[[Loop], None]:
    def step(loop: Loop) -> None:
        loop.zero_grad()
        with torch.autocast("cpu", dtype):
            loss = loop.loss()
        loss.backward()
        for optimizer in loop.optimizers:
            optimizer.step()

    return step


def scaler(loop: Loop) -> None:
    loop.more["scaler"] = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)


def scaled(
    dtype: torch.dtype | None, *, clip: float = 0.0, overflow: Callable[[Loop], bool] = lambda loop: False
) -> Callable[[Loop], None]:
    def step(loop: Loop) -> None:
        known = loop.more["scaler"]
        loop.zero_grad()
        with torch.autocast("cpu", dtype or BF16, enabled=dtype is not None):
            loss = loop.loss()
        known.scale(loss * (math.inf if overflow(loop) else 1.0)).backward()
        for optimizer in loop.optimizers:
            if clip:
                known.unscale_(optimizer)
                nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], clip)
            known.step(optimizer)
        known.update()

    return step


def two_scaled(loop: Loop) -> None:
    """The gradients of the second optimizer overflow in the middle step."""
    known = loop.more["scaler"]
    loop.zero_grad()
    known.scale(loop.loss()).backward()
    if loop.index == 1:
        next(p for g in loop.optimizers[1].param_groups for p in g["params"]).grad.fill_(math.inf)
    for optimizer in loop.optimizers:
        known.step(optimizer)
    known.update()
    with torch.no_grad():
        loop.loss()  # the guard acts before the model is used again


def two_optimizers(loop: Loop) -> None:
    scaler(loop)
    first, second = loop.model[0], loop.model[2]
    loop.optimizers = [opt for part in (first, second) for opt in loop.recipe.build(part, big=loop.big)]


def cached_casts(loop: Loop) -> None:
    """Two micro-batches in one autocast region: the second forward uses the casts of the first."""
    loop.zero_grad()
    args, labels = loop.batch()
    with torch.autocast("cpu", BF16):
        for x, y in zip(args[0].chunk(2), labels.chunk(2), strict=True):
            (F.cross_entropy(loop.called(x), y, reduction="sum") / len(labels)).backward()
    for optimizer in loop.optimizers:
        optimizer.step()


def unused_first(loop: Loop) -> None:
    """A forward without gradients warms the cast cache within the region."""
    loop.zero_grad()
    with torch.autocast("cpu", BF16):
        with torch.no_grad():
            loop.called(*loop.batch()[0])
        loss = loop.loss()
    loss.backward()
    for optimizer in loop.optimizers:
        optimizer.step()


def lower(dtype: torch.dtype) -> Callable[[Loop], None]:
    def prepare(loop: Loop) -> None:
        loop.model.to(dtype)

    return prepare


def low_step(dtype: torch.dtype) -> Callable[[Loop], None]:
    def step(loop: Loop) -> None:
        loop.zero_grad()
        args, labels = loop.batch()
        F.cross_entropy(loop.called(args[0].to(dtype)).float(), labels).backward()
        for optimizer in loop.optimizers:
            optimizer.step()

    return step


class CastsInside(nn.Module):
    """The forward turns autocast on itself and returns float32, as Accelerate has it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", BF16):
            logits = self.body(x)
        return logits.to(x.dtype)


class Mixed(nn.Module):
    """A body whose type the row chooses, norm and head in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm, self.head = nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = F.gelu(self.body(x.to(self.body.weight.dtype)))
        return self.head(self.norm(hidden.to(self.head.weight.dtype)))


def low_body(loop: Loop) -> None:
    loop.model.body.to(BF16)


def low_base(loop: Loop) -> None:
    for layer in (loop.model[0], loop.model[2]):
        layer.base.to(BF16)


def masters(loop: Loop) -> None:
    """The optimizer steps float32 copies, which the loop copies into a model in bfloat16."""
    loop.model.to(BF16)
    loop.more["masters"] = [p.detach().float().requires_grad_() for p in loop.model.parameters()]
    loop.optimizers = [loop.recipe.cls(loop.more["masters"], lr=0.1)]


ROWS = (
    Row("autocast to bfloat16", step=autocast(BF16), type=BF16),
    Row("autocast to float16", step=autocast(FP16), type=FP16),
    Row("autocast, several micro-batches in one region", step=cached_casts, type=BF16),
    Row("autocast, weights cast before by a forward without gradients", step=unused_first, type=BF16),
    Row("autocast inside the forward, float32 out", case=Case("casts", CastsInside, ZOO["mlp"].batch), type=BF16),
    Row("`GradScaler`", scaler, step=scaled(None)),
    Row("`GradScaler`, autocast to bfloat16", scaler, step=scaled(BF16), type=BF16),
    Row("`GradScaler`, autocast to float16", scaler, step=scaled(FP16), type=FP16),
    Row("`GradScaler`, `unscale_`, clipping", scaler, step=scaled(FP16, clip=1.0), type=FP16),
    Row(
        "`GradScaler` skips a step",
        scaler,
        step=scaled(None, overflow=lambda loop: loop.index == 1),
        counted=2,
        note="the skipped step is neither counted nor scaled",
    ),
    Row(
        "`GradScaler`, two optimizers, one overflows",
        two_optimizers,
        step=two_scaled,
        note="the guard acts on what has moved, before the model is used again",
    ),
    Row("parameters in bfloat16", lower(BF16), step=low_step(BF16), type=BF16, note="a warning"),
    Row("parameters in float16", lower(FP16), step=low_step(FP16), type=FP16, fixed=True, note="a warning"),
    Row("a body in bfloat16, a head in float32", low_body, case=Case("mixed", Mixed, ZOO["mlp"].batch), type=BF16),
    Row("a frozen base in bfloat16, LoRA adapters in float32", low_base, case=ADAPTED, type=BF16),
    Row(
        "float32 masters kept by the loop",
        masters,
        refused={"": "none of the optimizer's 4 parameters belongs to the model"},
    ),
)
