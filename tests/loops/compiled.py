"""torch.compile: of the model, of its parts, of the step, of both, of the whole iteration."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loops.row import Loop, Row
from zoo import ZOO, Case
from zoo.batches import CLASSES

BF16 = torch.bfloat16


class Blocks(nn.Module):
    """Blocks of one's own between two layers, with norms and activations that a compiler fuses."""

    def __init__(self, function: Callable[[Tensor], Tensor] = torch.tanh) -> None:
        super().__init__()
        self.first, self.block, self.head = nn.Linear(4, 8), Block(), nn.Linear(8, CLASSES)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.function(self.block(self.first(x))))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.inner = nn.LayerNorm(8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.gelu(self.inner(self.norm(x))) * torch.sigmoid(x.mean(-1, keepdim=True))


BLOCKS = Case("blocks", Blocks, ZOO["mlp"].batch)

Prepare = Callable[[Loop], None]


def fresh(prepare: Callable[[Loop, Any], None], backend: str) -> Prepare:
    """Forget what other rows compiled, then prepare."""

    def prepared(loop: Loop) -> None:
        torch.compiler.reset()
        prepare(loop, partial(torch.compile, backend=backend))

    return prepared


def model(loop: Loop, compiled: Any) -> None:
    loop.called = compiled(loop.model)


def model_attached(loop: Loop, compiled: Any) -> None:
    loop.called = loop.attached = compiled(loop.model)


def in_place(loop: Loop, compiled: Any) -> None:
    loop.model.compile(**compiled.keywords)


def one_block(loop: Loop, compiled: Any) -> None:
    loop.model.block.compile(**compiled.keywords)


def function(loop: Loop, compiled: Any) -> None:
    loop.model.function = compiled(torch.tanh)


def loss(loop: Loop, compiled: Any) -> None:
    loop.tools["loss"] = compiled(lambda x, y: F.cross_entropy(loop.model(x), y))


def model_ran(loop: Loop, compiled: Any) -> None:
    """The compiled model runs before a guard is attached."""
    model(loop, compiled)
    for _ in range(2):
        loop.zero_grad()
        loop.loss().backward()


def with_loss(loop: Loop) -> None:
    loop.zero_grad()
    args, labels = loop.batch()
    loop.tools["loss"](*args, labels).backward()
    for optimizer in loop.optimizers:
        optimizer.step()


def the_step(loop: Loop, compiled: Any) -> None:
    (optimizer,) = loop.optimizers
    loop.tools["step"] = compiled(lambda: optimizer.step())  # noqa: PLW0108  # as torch's recipe has it


def tensor_rate(loop: Loop, compiled: Any) -> None:
    """As torch's recipe for compiled optimizers with a schedule has it: the rate is a tensor."""
    (optimizer,) = loop.optimizers
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(group["lr"])
    the_step(loop, compiled)


def both(loop: Loop, compiled: Any) -> None:
    model(loop, compiled)
    the_step(loop, compiled)


def stepped(loop: Loop) -> None:
    loop.zero_grad()
    loop.loss().backward()
    loop.tools["step"]()


def stepped_in_autocast(loop: Loop) -> None:
    loop.zero_grad()
    with torch.autocast("cpu", BF16):
        value = loop.loss()
    value.backward()
    loop.tools["step"]()


def iteration(loop: Loop, compiled: Any) -> None:
    (optimizer,) = loop.optimizers

    def whole(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        F.cross_entropy(loop.model(x), y).backward()
        optimizer.step()

    loop.tools["whole"] = compiled(whole)


def iterated(loop: Loop) -> None:
    args, labels = loop.batch()
    loop.tools["whole"](*args, labels)


def whole_graph(loop: Loop, compiled: Any) -> None:
    the_step(loop, partial(compiled, fullgraph=True))


def compiled_autograd(loop: Loop) -> None:
    loop.zero_grad()
    value = loop.loss()
    with torch._dynamo.compiled_autograd._enable(torch.compile(backend="eager")):
        value.backward()
    for optimizer in loop.optimizers:
        optimizer.step()


BROKEN = "the graph breaks where the guard looks"


def rows(backend: str) -> tuple[Row, ...]:
    make = partial(fresh, backend=backend)
    return (
        Row("compiled model", make(model), case=BLOCKS),
        Row("compiled model, itself attached", make(model_attached), case=BLOCKS),
        Row("`model.compile()`", make(in_place), case=BLOCKS),
        Row("a block compiled in place", make(one_block), case=BLOCKS),
        Row("a compiled function in the forward", make(function), case=BLOCKS),
        Row("forward and loss compiled together", make(loss), step=with_loss, case=BLOCKS, note=BROKEN),
        Row("compiled model under autocast", make(both), step=stepped_in_autocast, case=BLOCKS, type=BF16),
        Row("compiled step", make(the_step), step=stepped, case=BLOCKS, note=BROKEN),
        Row("compiled step, tensor `lr`", make(tensor_rate), step=stepped, case=BLOCKS, fixed=True),
        Row("compiled model and compiled step", make(both), step=stepped, case=BLOCKS),
        Row("whole iteration compiled", make(iteration), step=iterated, case=BLOCKS, note=BROKEN),
        Row(
            "compiled step, `fullgraph=True`",
            make(whole_graph),
            step=stepped,
            case=BLOCKS,
            refused={"": "compile the step without fullgraph=True"},
        ),
        Row(
            "compiled autograd",
            make(model),
            step=compiled_autograd,
            case=BLOCKS,
            refused={"curvature": "the gradient at the logits was not seen"},
        ),
        Row(
            "model compiled and run before `attach`",
            make(model_ran),
            refused={"": "no forward to measure the step on"},
            note="works where torch looks for new hooks, not for `nn.Sequential`",
        ),
    )


ROWS = rows("aot_eager")
